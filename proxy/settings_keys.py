"""The keys of a pod's settings: each is named and explained once, for parser, errors and help."""

from ipaddress import IPv4Address
from typing import Final

from policy import settings_parse
from policy.identity import (
    check_namespace,
    check_pod_name,
    check_service_account,
    check_trust_domain,
)
from policy.settings_source import (
    Key,
    list_from_environment,
    number_from_environment,
)
from proxy import settings_values as values
from proxy.session.keys import SUITES
from proxy.session.profile import (
    DEFAULT_PROFILE,
    GROUPS,
    HYBRID,
    check_groups,
    check_suites,
)
from proxy.settings_membership import MEMBERSHIP_KEYS
from proxy.settings_values import Address, Listen

TRUST_DOMAIN: Final = Key(
    "trust_domain",
    "the realm of the project's certificate authority",
    "a SPIFFE trust domain, as shop.example",
    settings_parse.checked(check_trust_domain),
)
NAME: Final = Key(
    "name",
    "the pod's name",
    "a pod's name (DNS-1123), as nginx1",
    settings_parse.checked(check_pod_name),
)
NAMESPACE: Final = Key(
    "namespace",
    "the project that the pod belongs to: it talks to no other",
    "a namespace (DNS-1123 label), as shop",
    settings_parse.checked(check_namespace),
)
SERVICE_ACCOUNT: Final = Key(
    "service_account",
    "the identity under which the pod's peers know it",
    "a service account's name (DNS-1123), as default",
    settings_parse.checked(check_service_account),
)
INTERFACE: Final[Key[str | None]] = Key(
    "interface",
    "the interface that reaches the other pods; found out if left out",
    "a network interface's name of 1 to 15 characters, not lo or tenc0, as eth0",
    values.interface,
    default=None,
)
ADDRESSES: Final[Key[tuple[Address, ...]]] = Key(
    "addresses",
    "the pod's own addresses; found out if left out",
    'a list of addresses without prefix, as ["10.0.0.1", "fd00::1"]',
    values.addresses,
    default=(),
    from_environment=list_from_environment,
)
SESSION_PORT: Final[Key[int]] = Key(
    "session_port",
    "the UDP port on which the project's proxies speak to each other",
    "a port from 1 to 65535",
    settings_parse.number(1, 65535),
    default=15443,
    from_environment=number_from_environment,
)
CA_ADDRESS: Final = Key(
    "ca_address",
    "where the certificate authority serves",
    "https://HOST:PORT, HOST an address or a name, as https://10.0.0.2:8443",
    settings_parse.checked(values.host),
)
CA_ROOT_FINGERPRINT: Final = Key(
    "ca_root_fingerprint",
    "the SHA-256 of the authority's root certificate, as `tencrypt ca show` prints it",
    "sha256: and 64 hexadecimal digits",
    values.fingerprint,
)
TOKEN: Final = Key(
    "token",
    "the join token that `tencrypt ca token` printed for this pod (or token_file)",
    "a join token as `tencrypt ca token` prints it, or token_file instead",
    values.token,
    secret=True,
)
TOKEN_FILE: Final = Key(
    "token_file",
    "a file that holds the join token; instead of token",
    "an absolute path of a file that holds the join token",
    settings_parse.path,
)
ADMIN_SOCKET: Final[Key[str | None]] = Key(
    "admin_socket",
    "where `tencrypt status` asks; /run/tencrypt/NAMESPACE.NAME.sock if left out",
    f"an absolute path of at most {values.LONGEST_SOCKET_PATH} bytes",
    values.socket_path,
    default=None,
)
DAEMON_UID: Final[Key[int]] = Key(
    "daemon_uid",
    "the user and group number of the daemon, which no application in the pod may use",
    "a number from 1 to 65533",
    settings_parse.number(1, 65533),
    default=15443,
    from_environment=number_from_environment,
)
METRICS_LISTEN: Final[Key[Listen | None]] = Key(
    "metrics_listen",
    "where the pod's own programs ask for metrics and health, by HTTP",
    'a loopback address and port, as 127.0.0.1:15090 or [::1]:15090, or "off"',
    values.loopback,
    default=Listen(IPv4Address("127.0.0.1"), 15090),
)
TLS_SUITES: Final[Key[tuple[str, ...]]] = Key(
    "tls_suites",
    "the cipher suites that sessions may use, the preferred first",
    f"a list of at least one of {', '.join(SUITES)}",
    settings_parse.names(check_suites),
    default=DEFAULT_PROFILE.suites,
    from_environment=list_from_environment,
)
TLS_GROUPS: Final[Key[tuple[str, ...]]] = Key(
    "tls_groups",
    "the key-exchange groups that sessions may use",
    f"a list of one of {', '.join(GROUPS)}, or of several with {HYBRID} first",
    settings_parse.names(check_groups),
    default=DEFAULT_PROFILE.groups,
    from_environment=list_from_environment,
)
OFFLOADS: Final[Key[tuple[str, ...]]] = Key(
    "offloads",
    "what the kernel may put together or cut; what it cannot is left off by itself",
    f"a list of some of {', '.join(values.OFFLOADS)}, or none: []",
    values.offloads,
    default=values.OFFLOADS,
    from_environment=list_from_environment,
)
VERIFY: Final[Key[str]] = Key(
    "verify",
    "whether `tencrypt verify`, here and at other pods of the project, may look at this pod's interface",
    "off or project",
    settings_parse.one_of("off", "project"),
    default="off",
)
KEYS: Final[tuple[Key[object], ...]] = (
    TRUST_DOMAIN, NAME, NAMESPACE, SERVICE_ACCOUNT, INTERFACE, ADDRESSES, SESSION_PORT, CA_ADDRESS,
    CA_ROOT_FINGERPRINT, TOKEN, TOKEN_FILE, *MEMBERSHIP_KEYS, ADMIN_SOCKET, DAEMON_UID, METRICS_LISTEN,
    TLS_SUITES, TLS_GROUPS, OFFLOADS, VERIFY,
)  # fmt: skip
