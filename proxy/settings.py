"""A pod's settings: each key is named and explained once, in `KEYS`, for parser, errors and help.

The text of a TOML file and the environment come in; a `Settings` or one `SettingsError` comes out.
The environment wins over the file: ``session_port`` is also ``TENCRYPT_SESSION_PORT``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, ip_address
from typing import Final

from ca.messages import parse_token
from policy.identity import (
    check_namespace,
    check_pod_name,
    check_service_account,
    check_trust_domain,
)
from proxy import settings_values as values
from proxy.session.keys import SUITES
from proxy.session.profile import (
    DEFAULT_PROFILE,
    GROUPS,
    HYBRID,
    TlsProfile,
    check_groups,
    check_suites,
)
from proxy.settings_source import (
    Key,
    SettingsError,
    Source,
    list_from_environment,
    number_from_environment,
)
from proxy.settings_values import Address, Listen, Network

__all__ = ["KEYS", "Settings", "SettingsError", "check_addresses", "describe", "parse_settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What `parse_settings` found to be in order; ``addresses`` may be empty: to be found out."""

    trust_domain: str
    name: str
    namespace: str
    service_account: str
    interface: str | None
    addresses: tuple[Address, ...]
    session_port: int
    ca_address: str
    ca_root_fingerprint: str
    token: str = field(repr=False)
    members: tuple[Network, ...]
    admin_socket: str
    daemon_uid: int
    metrics_listen: Listen | None
    tls_suites: tuple[str, ...]
    tls_groups: tuple[str, ...]
    offloads: tuple[str, ...]

    @property
    def tls_profile(self) -> TlsProfile:
        """What TLS may agree on."""
        return TlsProfile(self.tls_suites, self.tls_groups)


TRUST_DOMAIN: Final = Key(
    "trust_domain",
    "the realm of the project's certificate authority",
    "a SPIFFE trust domain, as shop.example",
    values.checked(check_trust_domain),
)
NAME: Final = Key(
    "name",
    "the pod's name",
    "a pod's name (DNS-1123), as nginx1",
    values.checked(check_pod_name),
)
NAMESPACE: Final = Key(
    "namespace",
    "the project that the pod belongs to: it talks to no other",
    "a namespace (DNS-1123 label), as shop",
    values.checked(check_namespace),
)
SERVICE_ACCOUNT: Final = Key(
    "service_account",
    "the identity under which the pod's peers know it",
    "a service account's name (DNS-1123), as default",
    values.checked(check_service_account),
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
    values.number(1, 65535),
    default=15443,
    from_environment=number_from_environment,
)
CA_ADDRESS: Final = Key(
    "ca_address",
    "where the certificate authority serves",
    "https://HOST:PORT, HOST an address or a name, as https://10.0.0.2:8443",
    values.checked(values.host),
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
    values.path,
)
MEMBERS: Final = Key(
    "members",
    "the project's pods, and nobody else: traffic with them is encrypted or refused",
    'a list of addresses and prefixes, at least one, as ["10.0.0.0/24", "fd00::/64"]',
    values.members,
    from_environment=list_from_environment,
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
    values.number(1, 65533),
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
    values.names(check_suites),
    default=DEFAULT_PROFILE.suites,
    from_environment=list_from_environment,
)
TLS_GROUPS: Final[Key[tuple[str, ...]]] = Key(
    "tls_groups",
    "the key-exchange groups that sessions may use",
    f"a list of one of {', '.join(GROUPS)}, or of several with {HYBRID} first",
    values.names(check_groups),
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
KEYS: Final[tuple[Key[object], ...]] = (
    TRUST_DOMAIN, NAME, NAMESPACE, SERVICE_ACCOUNT, INTERFACE, ADDRESSES, SESSION_PORT, CA_ADDRESS,
    CA_ROOT_FINGERPRINT, TOKEN, TOKEN_FILE, MEMBERS, ADMIN_SOCKET, DAEMON_UID, METRICS_LISTEN,
    TLS_SUITES, TLS_GROUPS, OFFLOADS,
)  # fmt: skip


def describe() -> str:
    """Explain every key, for ``tencrypt run --help``: name, meaning, what is accepted."""
    return "\n".join(f"  {key.name}\n    {key.meaning}\n    ({key.accepts})" for key in KEYS)


def parse_settings(
    text_untrusted: str,
    environment: Mapping[str, str],
    *,
    wall: float,
    read_token: Callable[[str], str],
    file_name: str | None = "pod.toml",
) -> Settings:
    """Return the settings of file and environment; raises `SettingsError` and nothing else.

    ``wall`` is the Unix time (s) at which the token must still be good. ``read_token`` returns the
    content of the file that ``token_file`` names, or raises ValueError with a reason. ``file_name``
    is how the user named the file. The token's claims are read to find mistakes before anything is
    set up; they prove nothing.
    """
    source = Source(text_untrusted, environment, file_name, KEYS)
    settings = Settings(
        trust_domain=source.get(TRUST_DOMAIN),
        name=source.get(NAME),
        namespace=source.get(NAMESPACE),
        service_account=source.get(SERVICE_ACCOUNT),
        interface=source.get(INTERFACE),
        addresses=source.get(ADDRESSES),
        session_port=source.get(SESSION_PORT),
        ca_address=source.get(CA_ADDRESS),
        ca_root_fingerprint=source.get(CA_ROOT_FINGERPRINT),
        token=_token(source, read_token),
        members=source.get(MEMBERS),
        admin_socket=_admin_socket(source),
        daemon_uid=source.get(DAEMON_UID),
        metrics_listen=source.get(METRICS_LISTEN),
        tls_suites=source.get(TLS_SUITES),
        tls_groups=source.get(TLS_GROUPS),
        offloads=source.get(OFFLOADS),
    )
    _check_members(source, settings)
    _check_claims(source, settings, wall)
    return settings


def _token_key(source: Source) -> Key[str]:
    """Return the key that gives the token: one of two, the environment's before the file's."""
    both = (TOKEN, TOKEN_FILE)
    given = [key for key in both if source.in_environment(key)]
    given = given or [key for key in both if source.in_file(key)]
    if not given:
        raise source.missing(TOKEN)
    if len(given) > 1:
        raise source.error(TOKEN_FILE, "token is set too: one of the two")
    return given[0]


def _token(source: Source, read_token: Callable[[str], str]) -> str:
    if _token_key(source) is TOKEN:
        return source.get(TOKEN)
    path = source.get(TOKEN_FILE)
    try:
        return values.token(read_token(path))
    except ValueError as error:
        raise source.error(TOKEN_FILE, str(error) or "the file holds no join token") from None


def _admin_socket(source: Source) -> str:
    path = source.get(ADMIN_SOCKET)
    if path is None:
        path = f"/run/tencrypt/{source.get(NAMESPACE)}.{source.get(NAME)}.sock"
        if len(path) > values.LONGEST_SOCKET_PATH:
            raise source.error(ADMIN_SOCKET, f"{path} is too long: set {ADMIN_SOCKET.accepts}")
    return path


def _check_members(source: Source, settings: Settings) -> None:
    """Refuse members that hold the CA's address: it must be reached without a certificate."""
    try:
        address = ip_address(values.host(settings.ca_address))
    except ValueError:
        return  # a name; what it resolves to is judged when it is known
    for network in settings.members:
        if address in network:
            raise source.error(MEMBERS, f"{network} holds the CA's address {address}")


def _check_claims(source: Source, settings: Settings, wall: float) -> None:
    """Refuse a token that is not this pod's, or no longer good, before the CA would."""
    claims = parse_token(settings.token)
    for key, ours, theirs in (
        (TRUST_DOMAIN, settings.trust_domain, claims.trust_domain),
        (NAME, settings.name, claims.pod),
        (NAMESPACE, settings.namespace, claims.namespace),
        (SERVICE_ACCOUNT, settings.service_account, claims.service_account),
    ):
        if ours != theirs:
            raise source.error(key, f'the token names "{theirs}"')
    if not set(settings.addresses) <= set(claims.addresses):
        raise source.error(ADDRESSES, f"the token names {_listed(claims.addresses)}")
    if claims.expires <= wall:
        expired = datetime.fromtimestamp(claims.expires, UTC)
        reason = f"expired at {expired:%Y-%m-%d %H:%M:%S} UTC; ask for a new one"
        raise source.error(_token_key(source), reason)


def check_addresses(settings: Settings, found: Iterable[Address]) -> None:
    """Refuse addresses found on an interface that the token does not name (`SettingsError`)."""
    named = parse_token(settings.token).addresses
    foreign = [address for address in found if address not in named]
    if foreign:
        raise SettingsError(
            f"this pod has the address {_listed(foreign)}: the token names {_listed(named)}"
        )


def _listed(addresses: Iterable[Address]) -> str:
    return ", ".join(map(str, addresses))
