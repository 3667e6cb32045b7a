"""The text of the filter: one nftables table, made and replaced in one transaction.

    untracked   prerouting, output -300   sessions' datagrams are not tracked
    fragments   prerouting -450   before reassembly: none from inside but from what is listed
    arriving    prerouting -150   behind connection tracking: from inside only session datagrams, and what is listed
    resolvers   output -100       queries of applications to the DNS proxy (NAT)
    reroute     output -150       connections begun on a bypass that has ended (only with `dns_bypass`)
    leaving     postrouting 300   after NAT, so that the address judged is the one on the wire

*Inside* is what is refused in clear: the cluster's ranges and the members; where encryption is permissive the members
alone. `skuid` is the user that opened a socket; forwarded packets have none and do not match. No rule asks for a mark
that an application could set by itself: SO_MARK needs only CAP_NET_RAW, which containers have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.flow.clearance import Clearance
    from proxy.netagent.settings import Address, NetSettings, Network

NFT_TABLE: Final = "tencrypt"
TUNNEL: Final = "tenc0"

BYPASS_MARK: Final = 0x7E000000
MARK_MASK: Final = 0xFF000000
"""Of conntrack marks, and of packets' marks, which then look in `main`: others' lower bits stay theirs."""

MOST_ELEMENTS: Final = 4096
AUDIT_SECONDS: Final = 24 * 3600

_IP: Final = {4: "ip", 6: "ip6"}
_TYPE: Final = {4: "ipv4_addr", 6: "ipv6_addr"}
_NAMES: Final = {6: "tcp", 17: "udp", 132: "sctp"}
_REPLY: Final = "ct direction reply ct state established"
_COUNTED: Final = "meta l4proto { tcp, udp, sctp }"
_DNS: Final = "meta l4proto { tcp, udp } th"

# RFC 4861 section 7.1, RFC 2710 section 3: the hop limit proves that no router passed it on. IPv6 rests on these,
# multicast and DHCP's leases on the others. Redirects (137) are refused.
_LINK_NEEDS: Final = (
    "ip6 nexthdr icmpv6 ip6 hoplimit 255 "
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept"
)
_LINK_ALSO: Final = (
    "ip6 hoplimit 1 icmpv6 type { 130, 131, 132, 143 } accept",
    "ip protocol igmp accept",
    "udp sport { 67, 68 } udp dport { 67, 68 } accept",
    "udp sport { 546, 547 } udp dport { 546, 547 } accept",
)


def ruleset(
    settings: NetSettings,
    inside: Iterable[Network],
    notes: Iterable[str] = (),
    kept: Iterable[Address] = (),
) -> str:
    """Return the whole text.

    ``inside`` has no overlaps, ``notes`` are kept as comments of a chain without hook, ``kept`` are members that
    orders had added before.
    """
    body = _Body(settings, tuple(inside), tuple(kept))
    noted = "".join(f'    accept comment "{note}"\n' for note in notes)
    parts = [
        f"table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\ntable inet {NFT_TABLE} {{\n",
        "  counter refused_arriving { }\n  counter refused_leaving { }\n",
        f"  chain notes {{\n{noted}  }}\n" if noted else "",
        *body.sets(),
        *body.untracked(),
        *(body.strict() if settings.strict else body.permissive()),
        *body.redirect(),
        *body.reroute(),
        "}\n",
    ]
    return "".join(parts)


class _Body:
    """The parts of the table."""

    def __init__(
        self, settings: NetSettings, inside: tuple[Network, ...], kept: tuple[Address, ...]
    ) -> None:
        self._settings, self._inside, self._kept = settings, inside, kept
        redirected = settings.dns_port is not None
        lists = settings.clear_in or settings.clear_out or settings.ca_inside
        self._tracks = bool(lists or redirected or settings.dns_bypass or settings.resolvers)
        self._tracks |= not settings.strict

    def sets(self) -> Iterator[str]:
        """Give what is inside, and what the agent adds while all runs."""
        settings = self._settings
        for version, kind in _TYPE.items():
            inside = [str(one) for one in self._inside if one.version == version]
            yield _set(f"inside{version}", f"type {kind}; flags interval;", inside)
            kept = [str(one) for one in self._kept if one.version == version]
            yield _set(f"members{version}", f"type {kind}; size {MOST_ELEMENTS};", kept)
            if settings.dns_bypass:
                yield _set(f"bypass{version}", f"type {kind}; flags timeout; size {MOST_ELEMENTS};")
            if not settings.strict:
                ranges = [str(one) for one in settings.ranges if one.version == version]
                yield _set(f"ranges{version}", f"type {kind}; flags interval;", ranges)
                fresh = ranges if settings.broken_glass else []
                yield _set(f"fresh{version}", f"type {kind}; flags interval, timeout;", fresh)
                flows = f"type {kind} . inet_proto . inet_service; flags dynamic, timeout; timeout {AUDIT_SECONDS}s;"
                for name in ("spoken", "heard"):
                    yield _set(f"{name}{version}", f"{flows} size {MOST_ELEMENTS};")

    def strict(self) -> Iterator[str]:
        """Refuse in clear, both ways, what is inside and not listed."""
        yield self._chain("from_inside", self._from_inside(), "refused_arriving")
        yield self._chain("to_member", self._to_inside(), "refused_leaving")
        bypass = [f"ct mark & {MARK_MASK:#x} == {BYPASS_MARK:#x} accept"]
        bypass = bypass if self._settings.dns_bypass else []
        yield self._chain("to_inside", [*self._to_inside(), *bypass], "refused_leaving")
        link = [_LINK_NEEDS, *_LINK_ALSO]
        local = [*link, *self._listed_arriving(), *self._session_arriving()]
        yield self._chain("from_link", local, "refused_arriving")
        local = [*link, *self._listed_leaving(), *self._session_leaving()]
        yield self._chain("to_link", local, "refused_leaving")
        yield self._fragments()
        yield _hook(
            "arriving",
            "filter hook prerouting priority -150",
            [
                f'iifname {{ "lo", "{TUNNEL}" }} accept',
                *(f"{_IP[v]} saddr @members{v} jump from_inside" for v in (4, 6)),
                *(f"{_IP[v]} saddr @inside{v} jump from_inside" for v in (4, 6)),
                "ip saddr 169.254.0.0/16 jump from_link",
                "ip6 saddr fe80::/10 jump from_link",
                "meta pkttype { broadcast, multicast } jump from_link",
                "fib daddr type { broadcast, multicast } jump from_link",
            ],
        )
        yield _hook(
            "leaving",
            "filter hook postrouting priority 300",
            [
                f'oifname {{ "lo", "{TUNNEL}" }} accept',
                *(f"{_IP[v]} daddr @members{v} jump to_member" for v in (4, 6)),
                *(f"{_IP[v]} daddr @inside{v} jump to_inside" for v in (4, 6)),
                "ip daddr 169.254.0.0/16 jump to_link",
                "ip6 daddr fe80::/10 jump to_link",
                "fib daddr type { broadcast, multicast } jump to_link",
            ],
        )

    def permissive(self) -> Iterator[str]:
        """Refuse in clear what leaves for members, and for the ranges where no roster is fresh; count what is clear."""
        yield self._chain("to_member", self._to_inside(), "refused_leaving")
        fresh = [
            *self._to_inside(),
            "ct direction reply accept",
            *(
                f"{ip} daddr @fresh{v} ct state new {_COUNTED} "
                f"update @spoken{v} {{ {ip} daddr . meta l4proto . th dport counter }}"
                for v, ip in _IP.items()
            ),
            *(f"{_IP[v]} daddr @fresh{v} accept" for v in (4, 6)),
        ]
        yield self._chain("to_range", fresh, "refused_leaving")
        yield _hook(
            "arriving",
            "filter hook prerouting priority -150",
            [
                f'iifname {{ "lo", "{TUNNEL}" }} accept',
                *self._session_arriving(),
                *self._listed_arriving(),
                *(
                    f"{ip} saddr @{name}{v} ct state new {_COUNTED} "
                    f"update @heard{v} {{ {ip} saddr . meta l4proto . th dport counter }}"
                    for v, ip in _IP.items()
                    for name in ("ranges", "inside")
                ),
            ],
        )
        yield _hook(
            "leaving",
            "filter hook postrouting priority 300",
            [
                f'oifname {{ "lo", "{TUNNEL}" }} accept',
                *(f"{_IP[v]} daddr @members{v} jump to_member" for v in (4, 6)),
                *(f"{_IP[v]} daddr @inside{v} jump to_member" for v in (4, 6)),
                *(f"{_IP[v]} daddr @ranges{v} jump to_range" for v in (4, 6)),
            ],
        )

    def untracked(self) -> Iterator[str]:
        """Keep sessions' datagrams out of connection tracking, where anything asks for it."""
        settings = self._settings
        if self._tracks:
            arriving = f'iifname "{settings.interface}" udp dport {settings.session_port} notrack'
            yield _hook("untracked_in", "filter hook prerouting priority -300", [arriving])
            leaving = f"meta skuid {settings.uid} udp sport {settings.session_port} notrack"
            yield _hook("untracked_out", "filter hook output priority -300", [leaving])

    def redirect(self) -> Iterator[str]:
        """Send what applications ask a resolver to the DNS proxy: a port for each resolver."""
        settings = self._settings
        if settings.dns_port is None:
            return
        rules = [f"meta skuid {settings.uid} return"]
        for number, resolver in enumerate(settings.resolvers):
            to = f"{_IP[resolver.version]} daddr {resolver}"
            port = settings.dns_port + number
            rules += [f"{to} {name} dport 53 redirect to :{port}" for name in ("udp", "tcp")]
        yield _hook("resolvers", "nat hook output priority -100", rules)

    def reroute(self) -> Iterator[str]:
        """Let connections that began on a bypass go on by `main` when it has ended."""
        if not self._settings.dns_bypass:
            return
        mark = f"& {MARK_MASK ^ 0xFFFFFFFF:#x} | {BYPASS_MARK:#x}"
        rules = [f"{_IP[v]} daddr @members{v} return" for v in (4, 6)]
        rules += [
            f"ct state new {_IP[v]} daddr @bypass{v} ct mark set ct mark {mark}" for v in (4, 6)
        ]
        marked = f"ct mark & {MARK_MASK:#x} == {BYPASS_MARK:#x}"
        rules.append(f"{marked} meta mark set meta mark {mark}")
        yield _hook("reroute", "route hook output priority -150", rules)

    # Lines of several chains.

    def _chain(self, name: str, rules: Iterable[str], counter: str) -> str:
        return _chain(name, [*rules, f"counter name {counter} drop"])

    def _fragments(self) -> str:
        """Refuse fragments, which sessions never make, before they can fill the reassembly queue."""
        listed = [
            f"{_IP[one.version]} saddr {one} accept"
            for one in dict.fromkeys(self._listed_networks())
        ]
        if self._settings.dns_bypass:
            listed += [f"{_IP[v]} saddr @bypass{v} accept" for v in (4, 6)]
        refuse = "counter name refused_arriving drop"
        refused = [
            f"{_IP[v]} saddr @{name}{v} {refuse}" for name in ("members", "inside") for v in (4, 6)
        ]
        return _chain("fragment", [*listed, *refused]) + _hook(
            "fragments",
            "filter hook prerouting priority -450",
            [
                f'iifname {{ "lo", "{TUNNEL}" }} accept',
                "ip frag-off & 0x3fff != 0 jump fragment",
                "exthdr frag exists jump fragment",
            ],
        )

    def _listed_networks(self) -> Iterator[Address | Network]:
        for one in (*self._settings.clear_in, *self._settings.clear_out):
            yield one.network
        yield from self._settings.resolvers

    def _session_arriving(self) -> list[str]:
        interface, port = self._settings.interface, self._settings.session_port
        return [
            f'iifname "{interface}" ip frag-off & 0x3fff == 0 udp dport {port} accept',
            f'iifname "{interface}" ip6 nexthdr udp udp dport {port} accept',
        ]

    def _session_leaving(self) -> list[str]:
        settings = self._settings
        return [
            f'oifname "{settings.interface}" meta skuid {settings.uid} udp sport {settings.session_port} accept'
        ]

    def _from_inside(self) -> list[str]:
        marked = f"ct mark & {MARK_MASK:#x} == {BYPASS_MARK:#x} ct direction reply"
        bypass = []
        if self._settings.dns_bypass:
            refused = [
                f"{_IP[v]} saddr @members{v} counter name refused_arriving drop" for v in (4, 6)
            ]
            bypass = [*refused, f"{marked} accept"]
        return [
            *self._session_arriving(),
            _LINK_NEEDS,
            *self._listed_arriving(),
            *bypass,
        ]

    def _to_inside(self) -> list[str]:
        return [*self._session_leaving(), _LINK_NEEDS, *self._listed_leaving()]

    def _listed_arriving(self) -> list[str]:
        """Let pass who may speak to us in clear, and the answers of those to whom we may."""
        settings = self._settings
        rules = [_match("saddr", one, "dport") for one in settings.clear_in]
        rules += [f"{_match('saddr', one, 'sport')} {_REPLY}" for one in settings.clear_out]
        rules += [
            f"{_IP[one.version]} saddr {one} {_DNS} sport 53 {_REPLY}" for one in settings.resolvers
        ]
        if settings.ca_inside:
            rules.append(f"{self._ca('saddr')} tcp sport {settings.ca_port} {_REPLY}")
        return [f"{rule} accept" for rule in rules]

    def _listed_leaving(self) -> list[str]:
        settings = self._settings
        rules = [_match("daddr", one, "dport") for one in settings.clear_out]
        rules += [f"{_match('daddr', one, 'sport')} {_REPLY}" for one in settings.clear_in]
        daemon = f"meta skuid {settings.uid} " if settings.dns_port is not None else ""
        rules += [
            f"{daemon}{_IP[one.version]} daddr {one} {_DNS} dport 53" for one in settings.resolvers
        ]
        if settings.ca_inside:
            to_ca = f"{self._ca('daddr')} tcp dport {settings.ca_port}"
            # What the kernel sends for a connection whose socket has gone has no user.
            rules += [f"meta skuid {settings.uid} {to_ca}", f"{to_ca} ct state established"]
        return [f"{rule} accept" for rule in rules]

    def _ca(self, where: str) -> str:
        address = self._settings.ca_address
        return "" if address is None else f"{_IP[address.version]} {where} {address}"


def _match(where: str, one: Clearance, port: str) -> str:
    rule = f"{_IP[one.network.version]} {where} {one.network}"
    if one.protocol is None:
        return rule
    if one.ports is None:
        return f"{rule} meta l4proto {one.protocol}"
    low, high = one.ports
    name = _NAMES[one.protocol]
    return f"{rule} {name} {port} {low if low == high else f'{low}-{high}'}"


def _set(name: str, kind: str, elements: Iterable[str] = ()) -> str:
    listed = ", ".join(elements)
    return f"  set {name} {{ {kind} {f'elements = {{ {listed} }} ' if listed else ''}}}\n"


def _chain(name: str, rules: Iterable[str]) -> str:
    lines = "".join(f"    {rule}\n" for rule in rules)
    return f"  chain {name} {{\n{lines}  }}\n"


def _hook(name: str, hook: str, rules: Iterable[str]) -> str:
    return _chain(name, [f"type {hook}; policy accept;", *rules])
