"""A pod's settings: the text of a TOML file and the environment come in; a `Settings` or one `SettingsError` comes out.

The keys are those of `proxy.settings_keys`. The environment wins over the file: ``session_port`` is also
``TENCRYPT_SESSION_PORT``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address

from ca.messages import parse_token
from policy.identity import PodIdentity
from policy.settings_source import Key, SettingsError, Source
from proxy import settings_values as values
from proxy.session.profile import TlsProfile
from proxy.settings_keys import (
    ADDRESSES,
    ADMIN_SOCKET,
    CA_ADDRESS,
    CA_ROOT_FINGERPRINT,
    DAEMON_UID,
    INTERFACE,
    KEYS,
    METRICS_LISTEN,
    NAME,
    NAMESPACE,
    OFFLOADS,
    SERVICE_ACCOUNT,
    SESSION_PORT,
    TLS_GROUPS,
    TLS_SUITES,
    TOKEN,
    TOKEN_FILE,
    TRUST_DOMAIN,
    VERIFY,
)
from proxy.settings_membership import MEMBERS, ProjectSettings, parse_project
from proxy.settings_values import Address, Listen

__all__ = ["Settings", "SettingsError", "check_addresses", "parse_settings"]


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
    project: ProjectSettings
    admin_socket: str
    daemon_uid: int
    metrics_listen: Listen | None
    tls_suites: tuple[str, ...]
    tls_groups: tuple[str, ...]
    offloads: tuple[str, ...]
    verify: bool

    @property
    def break_glass_file(self) -> str:
        """Where `tencrypt net break-glass` leaves its reason for the daemon, which may not ask the kernel."""
        return f"{self.admin_socket}.break-glass"

    @property
    def identity(self) -> PodIdentity:
        """Whom the pod's certificate will be for."""
        return PodIdentity(self.trust_domain, self.namespace, self.service_account)

    @property
    def tls_profile(self) -> TlsProfile:
        """What TLS may agree on."""
        return TlsProfile(self.tls_suites, self.tls_groups)


def parse_settings(
    text_untrusted: str,
    environment: Mapping[str, str],
    *,
    wall: float,
    read_token: Callable[[str], str] | None,
    file_name: str | None = "pod.toml",
) -> Settings:
    """Return the settings of file and environment; raises `SettingsError` and nothing else.

    ``wall`` is the Unix time (s) at which the token must still be good. ``read_token`` returns the content of the
    file that ``token_file`` names, or raises ValueError with a reason; without it no token is asked for, and ``token``
    is empty. ``file_name`` is how the user named the file. The token's claims are read to find mistakes before
    anything is set up; they prove nothing.
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
        token="" if read_token is None else _token(source, read_token),
        project=parse_project(source),
        admin_socket=_admin_socket(source),
        daemon_uid=source.get(DAEMON_UID),
        metrics_listen=source.get(METRICS_LISTEN),
        tls_suites=source.get(TLS_SUITES),
        tls_groups=source.get(TLS_GROUPS),
        offloads=source.get(OFFLOADS),
        verify=source.get(VERIFY) == "project",
    )
    _check_members(source, settings)
    if read_token is not None:
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
    for network in settings.project.members:
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
    if not settings.token:
        return
    named = parse_token(settings.token).addresses
    foreign = [address for address in found if address not in named]
    if foreign:
        raise SettingsError(
            f"this pod has the address {_listed(foreign)}: the token names {_listed(named)}"
        )


def _listed(addresses: Iterable[Address]) -> str:
    return ", ".join(map(str, addresses))
