"""What the set-up consists of, worked out before anything is touched.

The order in which a packet meets the parts:

    leaving    ip rule 99 (not the daemon's UID) -> table 126 -> tenc0, else unreachable
               nftables, after NAT: to members only the daemon's session datagrams
    arriving   nftables, before anything else: from members only session datagrams

Routes bring packets into the tunnel; the filter is what refuses plaintext. Each holds alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
)
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

TUNNEL: Final = "tenc0"
TABLE: Final = 0x7E
# Marks our rules and routes (rtm_protocol, FRA_PROTOCOL), so that nobody else's are removed.
PROTOCOL: Final = 0x7E
# Before `main` (32766) and what CNI plugins put near it; after `local` (0), so that packets to
# the pod's own addresses are delivered although these may lie inside a member prefix.
RULE_PREFERENCE: Final = 99
# What tenc0 puts together at most: with the datagrams' headers it fits one UDP send of 65,507 bytes.
SUPER_PACKET: Final = 61_000
MOST_SEGMENTS: Final = 128
TUNNEL_METRIC: Final = 10
UNREACHABLE_METRIC: Final = 1000
NFT_TABLE: Final = "tencrypt"

# Record header, inner prefix and AEAD tag of one datagram.
RECORD_OVERHEAD: Final = 24 + 4 + 16
# UDP payload of a handshake's first datagram: a path that does not carry it carries no session.
HELLO: Final = 1200
_UDP_HEADER: Final = 8
_IP_HEADER: Final = {4: 20, 6: 40}
# RFC 8200 section 5: below this the kernel takes IPv6 off a link. RFC 791 page 25 for IPv4.
_LEAST_MTU: Final = {4: 68, 6: 1280}
# What the kernel allows is wider; what nft and a shell read without quoting is this.
_INTERFACE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,15}")

# What the kernel delivers by rules of its own, or what stands for no pod.
_SPECIAL_V4: Final = tuple(
    IPv4Network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32")
)
_SPECIAL_V6: Final = tuple(
    IPv6Network(text) for text in ("::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8")
)


class PlanError(ValueError):
    """The settings cannot be carried out; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class NetSettings:
    """What the set-up depends on.

    `addresses` are the pod's own; `members` the prefixes that are talked to through the tunnel
    alone; `uid` and `gid` are the daemon's.
    """

    interface: str
    interface_mtu: int
    addresses: tuple[Address, ...]
    members: tuple[Network, ...]
    session_port: int
    uid: int
    gid: int
    verify: bool = False
    """Whether watchers may look at the interface."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route of table 126: through tenc0 with `source` as sender, or unreachable without one."""

    destination: Network
    source: Address | None

    @property
    def metric(self) -> int:
        """The smaller one is taken while its device is there."""
        return UNREACHABLE_METRIC if self.source is None else TUNNEL_METRIC


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole set-up as plain data; `nft` is the text of one transaction for `nft -f -`."""

    interface: str
    tunnel_mtu: int
    uid: int
    addresses: tuple[Address, ...]
    families: tuple[int, ...]
    interlock_routes: tuple[Route, ...]
    tunnel_routes: tuple[Route, ...]
    nft: str


def plan(settings: NetSettings) -> Plan:
    """Work out the set-up. Raises PlanError."""
    _check(settings)
    members = _collapsed(settings.members)
    sources = {address.version: address for address in reversed(settings.addresses)}
    return Plan(
        interface=settings.interface,
        tunnel_mtu=_tunnel_mtu(settings, members),
        uid=settings.uid,
        addresses=settings.addresses,
        families=tuple(sorted({member.version for member in members})),
        # Under the tunnel's routes, for when tenc0 is gone or the family has no own address:
        # without them the lookup would go on to `main`, and leave in clear by the interface.
        interlock_routes=tuple(Route(member, None) for member in members),
        tunnel_routes=tuple(
            Route(member, sources[member.version])
            for member in members
            if member.version in sources
        ),
        nft=_nft(settings, members),
    )


def _check(settings: NetSettings) -> None:
    if not _INTERFACE_NAME.fullmatch(settings.interface) or settings.interface in {".", ".."}:
        raise PlanError(f"interface {settings.interface!r}: 1 to 15 of A-Z a-z 0-9 . _ -")
    if settings.interface in {TUNNEL, "lo"}:
        raise PlanError(f"interface {settings.interface}: the one that leads to the other pods")
    if not settings.addresses:
        raise PlanError(f"interface {settings.interface} has no address that the pod could use")
    if not 1 <= settings.session_port <= 0xFFFF:
        raise PlanError(f"session port {settings.session_port}: a port from 1 to 65535")
    for name, number in (("uid", settings.uid), ("gid", settings.gid)):
        # Forwarded packets and the kernel's own count as UID 0 in rules; -1 means "unchanged".
        if not 1 <= number < 0xFFFFFFFF:
            raise PlanError(
                f"daemon {name} {number}: from 1 to 4294967294, and used by nothing else"
            )
    _check_addresses(settings)


def _check_addresses(settings: NetSettings) -> None:
    for address in (*settings.addresses, *(m.network_address for m in settings.members)):
        # "fd00::1%..." may hold any text, and would stand in the filter's.
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise PlanError(f"address {str(address)!r}: an address without a scope")
    for member in settings.members:
        if _is_special(member):
            raise PlanError(
                f"member {member}: holds loopback, link-local, multicast or no addresses"
            )


def _is_special(member: Network) -> bool:
    if isinstance(member, IPv4Network):
        return any(member.overlaps(other) for other in _SPECIAL_V4)
    return any(member.overlaps(other) for other in _SPECIAL_V6)


def _collapsed(members: tuple[Network, ...]) -> tuple[Network, ...]:
    """Without overlap: nft's interval sets refuse it, and one route then serves each address."""
    v4 = [member for member in members if isinstance(member, IPv4Network)]
    v6 = [member for member in members if isinstance(member, IPv6Network)]
    return (*collapse_addresses(v4), *collapse_addresses(v6))


def _tunnel_mtu(settings: NetSettings, members: tuple[Network, ...]) -> int:
    """Return the largest inner packet of which one fits one datagram on the interface."""
    both = {address.version for address in settings.addresses} & {
        member.version for member in members
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


# RFC 4861 section 7.1: the hop limit proves that no router passed it on. IPv6 rests on these two.
_NEIGHBOUR_DISCOVERY: Final = (
    "ip6 nexthdr icmpv6 ip6 hoplimit 255 "
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
)


def _nft(settings: NetSettings, members: tuple[Network, ...]) -> str:
    interface, port = settings.interface, settings.session_port
    v4 = [str(member) for member in members if member.version == 4]
    v6 = [str(member) for member in members if member.version == 6]
    # Arriving: priority -450 is before reassembly (-400), so that fragments from members, which
    # we never send (the session sets DF), cannot even fill the reassembly queue; an extension
    # header before UDP is refused with them, for `ip6 nexthdr` reads the fixed header alone.
    # Leaving: priority 300 is after NAT, so that the address judged is the one on the wire.
    # `skuid` is the user that opened the socket; forwarded packets have none and do not match.
    # On other interfaces (a second network of the pod) members are refused altogether.
    return f"""\
table inet {NFT_TABLE}
delete table inet {NFT_TABLE}
table inet {NFT_TABLE} {{
  counter refused_arriving {{ }}
  counter refused_leaving {{ }}
  set members4 {{ type ipv4_addr; flags interval; {_elements(v4)}}}
  set members6 {{ type ipv6_addr; flags interval; {_elements(v6)}}}
  chain from_member {{
    iifname "{interface}" ip frag-off & 0x3fff == 0 udp dport {port} accept
    iifname "{interface}" ip6 nexthdr udp udp dport {port} accept
    {_NEIGHBOUR_DISCOVERY}
    counter name refused_arriving drop
  }}
  chain to_member {{
    oifname "{interface}" meta skuid {settings.uid} udp sport {port} accept
    {_NEIGHBOUR_DISCOVERY}
    counter name refused_leaving drop
  }}
  chain arriving {{
    type filter hook prerouting priority -450; policy accept;
    iifname {{ "lo", "{TUNNEL}" }} accept
    ip saddr @members4 jump from_member
    ip6 saddr @members6 jump from_member
  }}
  chain leaving {{
    type filter hook postrouting priority 300; policy accept;
    oifname {{ "lo", "{TUNNEL}" }} accept
    ip daddr @members4 jump to_member
    ip6 daddr @members6 jump to_member
  }}
}}
"""


def _elements(prefixes: list[str]) -> str:
    return f"elements = {{ {', '.join(prefixes)} }} " if prefixes else ""
