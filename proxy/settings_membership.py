"""The keys that say who belongs to the project and what may pass in clear, and what they come to together.

Part of a pod's settings: see `proxy.settings`.
"""

from dataclasses import dataclass
from typing import Final, NoReturn

from policy import settings_parse
from policy.settings_source import (
    Key,
    SettingsError,
    Source,
    boolean_from_environment,
    list_from_environment,
    number_from_environment,
    table_from_environment,
)
from proxy import settings_values as values
from proxy.flow.clearance import ACCEPTED, Clearance
from proxy.settings_values import Address, Network

MEMBERS: Final[Key[tuple[Network, ...]]] = Key(
    "members",
    "addresses that are the project's pods in any case: traffic with them is encrypted or refused",
    'a list of addresses and prefixes, at least one, as ["10.0.0.0/24", "fd00::/64"]',
    values.members,
    default=(),
    from_environment=list_from_environment,
)
CLUSTER_RANGES: Final[Key[tuple[Network, ...]]] = Key(
    "cluster_ranges",
    "where the cluster's pods and Services live: nothing there is reached in clear but what is listed; "
    "what members says if left out",
    'a list of addresses and prefixes, at least one, as ["10.0.0.0/8", "fd00::/48"]',
    values.members,
    default=(),
    from_environment=list_from_environment,
)
ENCRYPTION: Final[Key[str]] = Key(
    "encryption",
    "permissive: in clear to addresses of cluster_ranges that hold no certificate, while a project moves pod by pod",
    "strict or permissive",
    settings_parse.one_of("strict", "permissive"),
    default="strict",
)
CLEAR_IN: Final[Key[tuple[Clearance, ...]]] = Key(
    "clear_in",
    "who may reach this pod's ports in clear: probes, an ingress router, scrapes",
    f'a list as ["10.0.9.9 tcp/8080"]: {ACCEPTED}',
    values.clearances,
    default=(),
    from_environment=list_from_environment,
)
CLEAR_OUT: Final[Key[tuple[Clearance, ...]]] = Key(
    "clear_out",
    "whom in cluster_ranges this pod may reach in clear: the API server, other projects",
    f'a list as ["10.96.0.1 tcp/443"]: {ACCEPTED}',
    values.clearances,
    default=(),
    from_environment=list_from_environment,
)
DNS: Final[Key[str | None]] = Key(
    "dns",
    "redirect: the pod's queries pass a proxy that learns which names are the project's; "
    "redirect where cluster_ranges is set, else off",
    "redirect or off",
    settings_parse.one_of("redirect", "off"),
    default=None,
)
RESOLVERS: Final[Key[tuple[Address, ...]]] = Key(
    "resolvers",
    "the pod's DNS servers, which are asked in clear; of /etc/resolv.conf if left out",
    'a list of 1 to 3 addresses, as ["10.96.0.10"]',
    values.resolvers,
    default=(),
    from_environment=list_from_environment,
)
DNS_PORT: Final[Key[int]] = Key(
    "dns_listen_port",
    "where on loopback the DNS proxy listens for the first resolver; the next ports are the others'",
    "a port from 1 to 65533",
    settings_parse.number(1, 65533),
    default=15053,
    from_environment=number_from_environment,
)
CLUSTER_DOMAIN: Final[Key[str]] = Key(
    "cluster_domain",
    "the cluster's DNS domain; the project's zone is NAMESPACE.svc in it",
    "a domain name, as cluster.local",
    values.domain,
    default="cluster.local",
)
DNS_BYPASS: Final[Key[bool]] = Key(
    "dns_bypass",
    "let addresses of other projects' names pass in clear as long as DNS says so, which others can forge",
    "true or false",
    settings_parse.boolean,
    default=False,
    from_environment=boolean_from_environment,
)
ROSTER: Final[Key[str | None]] = Key(
    "roster",
    "on: addresses on the authority's signed list of live pods are members; on where cluster_ranges is set, else off",
    "on or off",
    settings_parse.one_of("on", "off"),
    default=None,
)
ENDPOINTS_FILE: Final[Key[str | None]] = Key(
    "endpoints_file",
    "a file of the project's Services and EndpointSlices, as `kubectl get services,endpointslices -o json` writes it",
    "an absolute path",
    settings_parse.path,
    default=None,
)
TARGET_PORTS: Final[Key[dict[int, int]]] = Key(
    "target_ports",
    "ports of Services and the pod's own ports behind them, for peers that know Services by DNS alone",
    "a table of ports, as { 80 = 8080 }",
    values.port_map,
    default={},
    from_environment=table_from_environment,
)
RULES: Final[Key[str]] = Key(
    "rules",
    "audit: what rules_file refuses is counted and passes",
    "enforce or audit",
    settings_parse.one_of("enforce", "audit"),
    default="enforce",
)
RULES_FILE: Final[Key[str | None]] = Key(
    "rules_file",
    "a file of rules by identity, protocol and port, read again when it changes; without it all may talk",
    "an absolute path",
    settings_parse.path,
    default=None,
)
MEMBERSHIP_KEYS: Final[tuple[Key[object], ...]] = (
    MEMBERS, CLUSTER_RANGES, ENCRYPTION, CLEAR_IN, CLEAR_OUT, DNS, RESOLVERS, DNS_PORT, CLUSTER_DOMAIN, DNS_BYPASS,
    ROSTER, ENDPOINTS_FILE, TARGET_PORTS, RULES, RULES_FILE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """What is the project's, and what may pass in clear; ``resolvers`` may be empty: to be found out."""

    members: tuple[Network, ...]
    ranges: tuple[Network, ...]
    strict: bool
    clear_in: tuple[Clearance, ...]
    clear_out: tuple[Clearance, ...]
    dns_port: int | None
    resolvers: tuple[Address, ...]
    cluster_domain: str
    dns_bypass: bool
    roster: bool
    endpoints_file: str | None
    target_ports: dict[int, int]
    enforce: bool
    rules_file: str | None


def parse_project(source: Source) -> ProjectSettings:
    """Return what file and environment say of the project; raises `SettingsError`."""
    members, ranges = source.get(MEMBERS), source.get(CLUSTER_RANGES)
    if not members and not ranges:
        raise SettingsError(f"{source.missing(CLUSTER_RANGES)}; or set {MEMBERS.name}")
    has_ranges = bool(ranges)
    redirects = (source.get(DNS) or ("redirect" if has_ranges else "off")) == "redirect"
    project = ProjectSettings(
        members=members,
        ranges=ranges or members,
        strict=source.get(ENCRYPTION) == "strict",
        clear_in=source.get(CLEAR_IN),
        clear_out=source.get(CLEAR_OUT),
        dns_port=source.get(DNS_PORT) if redirects else None,
        resolvers=source.get(RESOLVERS),
        cluster_domain=source.get(CLUSTER_DOMAIN),
        dns_bypass=source.get(DNS_BYPASS),
        roster=(source.get(ROSTER) or ("on" if has_ranges else "off")) == "on",
        endpoints_file=source.get(ENDPOINTS_FILE),
        target_ports=source.get(TARGET_PORTS),
        enforce=source.get(RULES) == "enforce",
        rules_file=source.get(RULES_FILE),
    )
    _check(source, project)
    return project


def _check(source: Source, project: ProjectSettings) -> None:
    """Refuse what contradicts itself."""
    if project.dns_bypass and project.dns_port is None:
        _refuse(source, DNS_BYPASS, f'needs {DNS.name} = "redirect"')
    if not project.strict and not project.roster:
        _refuse(
            source, ENCRYPTION, f'permissive needs {ROSTER.name} = "on": it says who cannot encrypt'
        )
    for clear in (*project.clear_in, *project.clear_out):
        for network in project.members:
            if network.version == clear.network.version and network.overlaps(clear.network):
                key = CLEAR_IN if clear in project.clear_in else CLEAR_OUT
                _refuse(source, key, f"{clear}: {network} is among the {MEMBERS.name}")


def _refuse(source: Source, key: Key[object], reason: str) -> NoReturn:
    raise source.error(key, reason)
