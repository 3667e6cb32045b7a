"""What the set-up consists of, worked out before anything is touched.

The order in which a packet meets the parts:

    leaving    ip rule 97 (connections marked in clear) and 98 (listed in clear) -> main
               ip rule 99 (not the daemon's UID) -> table 126 -> tenc0, else unreachable
               nftables, after NAT: to inside only the daemon's session datagrams, and what is listed
    arriving   nftables, before anything is delivered: from inside only session datagrams, and what is listed

Routes bring packets into the tunnel; the filter is what refuses plaintext. Each holds alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from proxy.netagent.filter import NFT_TABLE, TUNNEL, ruleset
from proxy.netagent.nft_text import BYPASS_MARK, CLEAR_MARK, MARK_MASK
from proxy.netagent.settings import Address, NetSettings, Network, PlanError, check

__all__ = [
    "NFT_TABLE", "TUNNEL", "Address", "NetSettings", "Network", "Plan", "PlanError", "Route", "Rule", "plan",
]  # fmt: skip

TABLE: Final = 0x7E
# Marks our rules and routes (rtm_protocol, FRA_PROTOCOL), so that nobody else's are removed.
PROTOCOL: Final = 0x7E
MAIN: Final = 254
# Before `main` (32766) and what CNI plugins put near it; after `local` (0), so that packets to
# the pod's own addresses are delivered although these may lie inside a member prefix.
RULE_PREFERENCE: Final = 99
LISTED_PREFERENCE: Final = 98
BYPASS_PREFERENCE: Final = 97
# What tenc0 puts together at most: with the datagrams' headers it fits one UDP send of 65,507 bytes.
SUPER_PACKET: Final = 61_000
MOST_SEGMENTS: Final = 128
TUNNEL_METRIC: Final = 10
THROW_METRIC: Final = 500
UNREACHABLE_METRIC: Final = 1000

# Record header, inner prefix and AEAD tag of one datagram.
RECORD_OVERHEAD: Final = 24 + 4 + 16
# UDP payload of a handshake's first datagram: a path that does not carry it carries no session.
HELLO: Final = 1200
_UDP_HEADER: Final = 8
_IP_HEADER: Final = {4: 20, 6: 40}
# RFC 8200 section 5: below this the kernel takes IPv6 off a link. RFC 791 page 25 for IPv4.
_LEAST_MTU: Final = {4: 68, 6: 1280}

Ports = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Route:
    """A route of table 126: by tenc0 with `source` as sender; without one unreachable, or `throw`: on to `main`."""

    destination: Network
    source: Address | None
    throw: bool = False

    @property
    def metric(self) -> int:
        """The smaller one is taken while its device is there."""
        if self.throw:
            return THROW_METRIC
        return UNREACHABLE_METRIC if self.source is None else TUNNEL_METRIC

    def command(self) -> str:
        """Return what `ip` would be told."""
        how = "" if self.source is not None else "throw " if self.throw else "unreachable "
        by = "" if self.source is None else f" dev {TUNNEL} src {self.source}"
        return (
            f"ip -{self.destination.version} route replace {how}{self.destination}{by} "
            f"table {TABLE} metric {self.metric} proto {PROTOCOL}"
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of ours: which packets look in `table`; a UID range stands for all others than these."""

    version: int
    preference: int
    table: int
    but_uids: Ports | None = None
    to: Network | None = None
    protocol: int | None = None
    sport: Ports | None = None
    dport: Ports | None = None
    mark: Ports | None = None

    def command(self, verb: str = "add") -> str:
        """Return what `ip` would be told."""
        words = [f"ip -{self.version} rule {verb} pref {self.preference}"]
        words.append("not from all" if self.but_uids else "from all")
        if self.to is not None:
            words.append(f"to {self.to}")
        if self.mark is not None:
            words.append(f"fwmark {self.mark[0]:#x}/{self.mark[1]:#x}")
        if self.but_uids is not None:
            words.append("uidrange {}-{}".format(*self.but_uids))
        if self.protocol is not None:
            words.append(f"ipproto {self.protocol}")
        for name, ports in (("sport", self.sport), ("dport", self.dport)):
            if ports is not None:
                words.append(f"{name} {ports[0]}-{ports[1]}")
        return " ".join([*words, f"lookup {self.table} protocol {PROTOCOL}"])


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole set-up as plain data; `nft` is the text of one transaction for `nft -f -`."""

    interface: str
    tunnel_mtu: int
    uid: int
    addresses: tuple[Address, ...]
    rules: tuple[Rule, ...]
    interlock_routes: tuple[Route, ...]
    tunnel_routes: tuple[Route, ...]
    nft: str

    def describe(self) -> str:
        """Return all that would be set, as a person would type it."""
        device = (
            f"ip tuntap add dev {TUNNEL} mode tun user {self.uid} vnet_hdr",
            f"ip link set dev {TUNNEL} mtu {self.tunnel_mtu} gso_max_size {SUPER_PACKET} gso_max_segs {MOST_SEGMENTS}",
            f"ip link set dev {TUNNEL} up",
            f"rp_filter of {self.interface} and {TUNNEL}: 2",
        )
        lines = [
            *(route.command() for route in self.interlock_routes),
            *(rule.command() for rule in self.rules),
            *device,
            *(route.command() for route in self.tunnel_routes),
        ]
        return "\n".join(["nft -f - <<EOF", f"{self.nft}EOF", *lines])


def plan(settings: NetSettings, notes: Iterable[str] = (), kept: Iterable[Address] = ()) -> Plan:
    """Work out the set-up. Raises PlanError.

    ``notes`` go into the filter; ``kept`` are members that orders had added to the set-up there was before.
    """
    check(settings)
    kept = tuple(kept)
    inside = _collapsed((*settings.members, *(settings.ranges if settings.strict else ())))
    led = (*inside, *(single(one) for one in kept))
    sources = {address.version: address for address in reversed(settings.addresses)}
    return Plan(
        interface=settings.interface,
        tunnel_mtu=_tunnel_mtu(settings),
        uid=settings.uid,
        addresses=settings.addresses,
        rules=tuple(dict.fromkeys(_rules(settings))),
        # Under the tunnel's routes, for when tenc0 is gone or the family has no own address:
        # without them the lookup would go on to `main`, and leave in clear by the interface.
        interlock_routes=tuple(Route(one, None) for one in led),
        tunnel_routes=tuple(
            Route(one, sources[one.version]) for one in led if one.version in sources
        ),
        nft=ruleset(settings, inside, notes, kept),
    )


BROKEN: Final = "break-glass"
"""How the note in the filter begins that `tencrypt net break-glass` leaves for whoever comes later."""


def standing(settings: NetSettings, notes: Iterable[str]) -> NetSettings:
    """Return the settings as they are in force: where the glass was broken, all is permissive, without a roster."""
    if not any(note.startswith(BROKEN) for note in notes):
        return settings
    # Members by the settings are in clear too: where no session can be had, that is what it is broken for.
    ranges = _collapsed((*settings.ranges, *settings.members))
    return replace(settings, members=(), ranges=ranges, strict=False, broken_glass=True)


def _rules(settings: NetSettings) -> Iterator[Rule]:
    inside = {one.version for one in (*settings.members, *settings.ranges)}
    # Of each own address too: a member of that family may be found while all runs.
    own = {address.version for address in settings.addresses} if inside else set[int]()
    for version in sorted(inside | own):
        if settings.dns_bypass:
            yield Rule(version, BYPASS_PREFERENCE, MAIN, mark=(BYPASS_MARK, MARK_MASK))
        if not settings.strict:
            yield Rule(version, BYPASS_PREFERENCE, MAIN, mark=(CLEAR_MARK, MARK_MASK))
        yield Rule(version, RULE_PREFERENCE, TABLE, but_uids=(settings.uid, settings.uid))
    for one in settings.clear_out:
        yield _listed(one.network, one.protocol, dport=one.ports)
    for one in settings.clear_in:
        yield _listed(one.network, one.protocol, sport=one.ports)
    if settings.dns_port is None:
        for resolver in settings.resolvers:
            for protocol in (6, 17):
                yield _listed(single(resolver), protocol, dport=(53, 53))


def _listed(
    network: Network,
    protocol: int | None,
    *,
    sport: Ports | None = None,
    dport: Ports | None = None,
) -> Rule:
    return Rule(
        network.version,
        LISTED_PREFERENCE,
        MAIN,
        to=network,
        protocol=protocol,
        sport=sport,
        dport=dport,
    )


def single(address: Address) -> Network:
    """Return the prefix that holds an address alone."""
    return IPv4Network(address) if address.version == 4 else IPv6Network(address)


def _collapsed(members: tuple[Network, ...]) -> tuple[Network, ...]:
    """Without overlap: nft's interval sets refuse it, and one route then serves each address."""
    v4 = [member for member in members if isinstance(member, IPv4Network)]
    v6 = [member for member in members if isinstance(member, IPv6Network)]
    return (*collapse_addresses(v4), *collapse_addresses(v6))


def _tunnel_mtu(settings: NetSettings) -> int:
    """Return the largest inner packet of which one fits one datagram on the interface."""
    both = {address.version for address in settings.addresses} & {
        one.version for one in (*settings.members, *settings.ranges)
    }
    carrier = 6 if 6 in both else 4
    overhead = _IP_HEADER[carrier] + _UDP_HEADER + RECORD_OVERHEAD
    mtu = settings.interface_mtu - overhead
    least = max(_LEAST_MTU[carrier] + overhead, HELLO + _IP_HEADER[carrier] + _UDP_HEADER)
    if settings.interface_mtu < least:
        message = (
            f"interface {settings.interface} has MTU {settings.interface_mtu}: IPv{carrier} "
            f"through {TUNNEL} needs {least}"
        )
        if carrier == 6:
            message += ", or leave the IPv6 addresses or members out"
        raise PlanError(message)
    return mtu
