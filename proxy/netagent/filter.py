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

from proxy.netagent.allowed import Allowed
from proxy.netagent.nft_text import (
    BYPASS_MARK,
    CLEAR_MARK,
    IP,
    SEALED_MARK,
    chain,
    hook,
    mark,
    marked,
    named_set,
)

if TYPE_CHECKING:
    from proxy.netagent.settings import Address, NetSettings, Network

NFT_TABLE: Final = "tencrypt"
TUNNEL: Final = "tenc0"

MOST_ELEMENTS: Final = 4096
AUDIT_SECONDS: Final = 24 * 3600

_TYPE: Final = {4: "ipv4_addr", 6: "ipv6_addr"}
# By way of a router outside to a member: the destination that is judged is not the last.
_SOURCE_ROUTES: Final = tuple(
    f"{one} exists counter name refused_leaving drop"
    for one in ("ip option lsrr", "ip option ssrr", "exthdr rt")
)
_COUNTED: Final = "meta l4proto { tcp, udp, sctp }"

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
        self._allowed = Allowed(settings)

    def sets(self) -> Iterator[str]:
        """Give what is inside, and what the agent adds while all runs."""
        settings = self._settings
        for version, kind in _TYPE.items():
            inside = [str(one) for one in self._inside if one.version == version]
            yield named_set(f"inside{version}", f"type {kind}; flags interval;", inside)
            kept = [str(one) for one in self._kept if one.version == version]
            yield named_set(f"members{version}", f"type {kind}; size {MOST_ELEMENTS};", kept)
            if settings.dns_bypass:
                yield named_set(
                    f"bypass{version}", f"type {kind}; flags timeout; size {MOST_ELEMENTS};"
                )
            if not settings.strict:
                ranges = [str(one) for one in settings.ranges if one.version == version]
                yield named_set(f"ranges{version}", f"type {kind}; flags interval;", ranges)
                fresh = ranges if settings.broken_glass else []
                yield named_set(f"served{version}", f"type {kind}; size {MOST_ELEMENTS};")
                yield named_set(f"fresh{version}", f"type {kind}; flags interval, timeout;", fresh)
                flows = f"type {kind} . inet_proto . inet_service; flags dynamic, timeout; timeout {AUDIT_SECONDS}s;"
                for name in ("spoken", "heard"):
                    yield named_set(f"{name}{version}", f"{flows} size {MOST_ELEMENTS};")

    def strict(self) -> Iterator[str]:
        """Refuse in clear, both ways, what is inside and not listed."""
        yield self._refusing("from_inside", self._from_inside(), "refused_arriving")
        yield self._refusing("to_member", self._to_inside(), "refused_leaving")
        bypass = [f"{marked(BYPASS_MARK)} accept"]
        bypass = bypass if self._settings.dns_bypass else []
        yield self._refusing("to_inside", [*self._to_inside(), *bypass], "refused_leaving")
        link = [_LINK_NEEDS, *_LINK_ALSO]
        local = [*link, *self._allowed.arriving(), *self._allowed.session_arriving()]
        yield self._refusing("from_link", local, "refused_arriving")
        local = [*link, *self._allowed.leaving(), *self._allowed.session_leaving()]
        yield self._refusing("to_link", local, "refused_leaving")
        yield self._fragments()
        yield hook(
            "arriving",
            "filter hook prerouting priority -150",
            [
                *self._own_ways("iifname"),
                *(f"{IP[v]} saddr @members{v} jump from_inside" for v in (4, 6)),
                *(f"{IP[v]} saddr @inside{v} jump from_inside" for v in (4, 6)),
                "ip saddr 169.254.0.0/16 jump from_link",
                "ip6 saddr fe80::/10 jump from_link",
                "meta pkttype { broadcast, multicast } jump from_link",
                "fib daddr type { broadcast, multicast } jump from_link",
            ],
        )
        yield hook(
            "leaving",
            "filter hook postrouting priority 300",
            [
                *self._own_ways("oifname"),
                *_SOURCE_ROUTES,
                *(f"{IP[v]} daddr @members{v} jump to_member" for v in (4, 6)),
                *(f"{IP[v]} daddr @inside{v} jump to_inside" for v in (4, 6)),
                "ip daddr 169.254.0.0/16 jump to_link",
                "ip6 daddr fe80::/10 jump to_link",
                "fib daddr type { broadcast, multicast } jump to_link",
            ],
        )

    def permissive(self) -> Iterator[str]:
        """Refuse in clear what leaves for members, and for the ranges where no roster is fresh; count what is clear."""
        answers = f"ct direction reply {marked(CLEAR_MARK)} accept"
        yield self._refusing("to_member", [*self._to_inside(), answers], "refused_leaving")
        begun = f"{marked(CLEAR_MARK)} accept"
        yield self._refusing("to_service", [*self._to_inside(), begun], "refused_leaving")
        fresh = [
            *self._to_inside(),
            "ct direction reply accept",
            *(
                f"{ip} daddr @fresh{v} ct state new {_COUNTED} "
                f"update @spoken{v} {{ {ip} daddr . meta l4proto . th dport counter }}"
                for v, ip in IP.items()
            ),
            *(f"{IP[v]} daddr @fresh{v} accept" for v in (4, 6)),
        ]
        yield self._refusing("to_range", fresh, "refused_leaving")
        sources = [
            f"{ip} saddr @{name}{v}" for v, ip in IP.items() for name in ("ranges", "inside")
        ]
        heard = {
            v: f"update @heard{v} {{ {ip} saddr . meta l4proto . th dport counter }}"
            for v, ip in IP.items()
        }
        yield hook(
            "arriving",
            "filter hook prerouting priority -150",
            [
                *self._own_ways("iifname"),
                *self._allowed.session_arriving(),
                *self._allowed.arriving(),
                *(
                    f"{source} ct state new {_COUNTED} {heard[6 if 'ip6' in source else 4]}"
                    for source in sources
                ),
                *(f"{source} ct state new {mark('ct', CLEAR_MARK)}" for source in sources),
            ],
        )
        yield hook(
            "leaving",
            "filter hook postrouting priority 300",
            [
                *self._own_ways("oifname"),
                *_SOURCE_ROUTES,
                *(f"{IP[v]} daddr @members{v} jump to_member" for v in (4, 6)),
                *(f"{IP[v]} daddr @inside{v} jump to_member" for v in (4, 6)),
                *(f"{IP[v]} daddr @served{v} jump to_service" for v in (4, 6)),
                *(f"{IP[v]} daddr @ranges{v} jump to_range" for v in (4, 6)),
            ],
        )

    def untracked(self) -> Iterator[str]:
        """Keep sessions' datagrams out of connection tracking, where anything asks for it."""
        settings = self._settings
        if self._allowed.tracks:
            arriving = f'iifname "{settings.interface}" udp dport {settings.session_port} notrack'
            yield hook("untracked_in", "filter hook prerouting priority -300", [arriving])
            leaving = f"meta skuid {settings.uid} udp sport {settings.session_port} notrack"
            yield hook("untracked_out", "filter hook output priority -300", [leaving])

    def redirect(self) -> Iterator[str]:
        """Send what applications ask a resolver to the DNS proxy: a port for each resolver."""
        settings = self._settings
        if settings.dns_port is None:
            return
        rules = [f"meta skuid {settings.uid} return"]
        for number, resolver in enumerate(settings.resolvers):
            to = f"{IP[resolver.version]} daddr {resolver}"
            port = settings.dns_port + number
            rules += [f"{to} {name} dport 53 redirect to :{port}" for name in ("udp", "tcp")]
        yield hook("resolvers", "nat hook output priority -100", rules)

    def reroute(self) -> Iterator[str]:
        """Let connections that began on a bypass go on by `main` when it has ended, and answers in clear go there."""
        rules = []
        to_member = [f"{IP[v]} daddr @members{v} return" for v in (4, 6)]
        if not self._settings.strict:
            to_main = f"{marked(CLEAR_MARK)} {mark('meta', CLEAR_MARK)}"
            begun = f"ct state new {mark('ct', CLEAR_MARK)}"
            rules.append(f"ct direction reply {to_main} return")
            rules += [f"{IP[v]} daddr @served{v} {to_main}" for v in (4, 6)]
            rules += [f"{IP[v]} daddr @served{v} return" for v in (4, 6)]
            rules += to_member
            rules += [f"{IP[v]} daddr @inside{v} return" for v in (4, 6)]
            rules += [f"{IP[v]} daddr @ranges{v} {begun}" for v in (4, 6)]
        if self._settings.dns_bypass:
            begun = mark("ct", BYPASS_MARK)
            rules += to_member
            rules += [f"ct state new {IP[v]} daddr @bypass{v} {begun}" for v in (4, 6)]
            rules.append(f"{marked(BYPASS_MARK)} {mark('meta', BYPASS_MARK)}")
        if rules:
            yield hook("reroute", "route hook output priority -150", rules)

    # Lines of several chains.

    def _refusing(self, name: str, rules: Iterable[str], counter: str) -> str:
        return chain(name, [*rules, f"counter name {counter} drop"])

    def _fragments(self) -> str:
        """Refuse fragments, which sessions never make, before they can fill the reassembly queue."""
        listed = [
            f"{IP[one.version]} saddr {one} accept"
            for one in dict.fromkeys(self._allowed.networks())
        ]
        if self._settings.dns_bypass:
            listed += [f"{IP[v]} saddr @bypass{v} accept" for v in (4, 6)]
        refuse = "counter name refused_arriving drop"
        refused = [
            f"{IP[v]} saddr @{name}{v} {refuse}" for name in ("members", "inside") for v in (4, 6)
        ]
        return chain("fragment", [*listed, *refused]) + hook(
            "fragments",
            "filter hook prerouting priority -450",
            [
                f'iifname {{ "lo", "{TUNNEL}" }} accept',
                "ip frag-off & 0x3fff != 0 jump fragment",
                "exthdr frag exists jump fragment",
            ],
        )

    def _own_ways(self, where: str) -> list[str]:
        """Let pass what stays inside, and have nothing in clear belong to a connection that tenc0 has seen.

        So an ICMP error that quotes such a connection is refused wherever it comes from, and the first answers to a new
        session, whose peer is not known here as a member yet, stay inside.
        """
        if not self._allowed.tracks:
            return [f'{where} {{ "lo", "{TUNNEL}" }} accept']
        counter = "refused_arriving" if where == "iifname" else "refused_leaving"
        return [
            f'{where} "{TUNNEL}" {mark("ct", SEALED_MARK)} accept',
            f'{where} "lo" accept',
            f"{marked(SEALED_MARK)} counter name {counter} drop",
        ]

    def _from_inside(self) -> list[str]:
        answers = f"{marked(BYPASS_MARK)} ct direction reply"
        bypass = []
        if self._settings.dns_bypass:
            refused = [
                f"{IP[v]} saddr @members{v} counter name refused_arriving drop" for v in (4, 6)
            ]
            bypass = [*refused, f"{answers} accept"]
        return [
            *self._allowed.session_arriving(),
            _LINK_NEEDS,
            *self._allowed.arriving(),
            *bypass,
        ]

    def _to_inside(self) -> list[str]:
        return [*self._allowed.session_leaving(), _LINK_NEEDS, *self._allowed.leaving()]
