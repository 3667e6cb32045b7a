"""What the proxy must know of an inner packet: who sends it, to whom, and that it is one.

Nothing here is authenticated: a header's addresses become facts only after `proxy.inbound` has compared
them with the peer's certificate, or `proxy.outbound` with our own.
"""

from struct import Struct
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped

IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40

_V4: Final = Struct(">BxH2xHxB2x4s4s")
_V6: Final = Struct(">4xHBx16s16s")
_ICMP, _ICMPV6 = 1, 58
_ICMP_REDIRECT = b"\5"
# Router and neighbour discovery and redirects (RFC 4861) concern a link; tenc0 has no neighbours.
_LINK_ICMPV6 = frozenset(range(133, 138))
# Loose and strict source route (RFC 791): they would let a peer choose a path behind our checks.
_SOURCE_ROUTES = frozenset({131, 137})
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS = 0, 43, 44, 60
_MOST_EXTENSIONS = 8


def parse_packet(packet_untrusted: memoryview) -> tuple[bytes, bytes]:
    """Return source and destination address (4 or 16 bytes each) of one whole IPv4 or IPv6 packet.

    Raises `Dropped`: PACKET_MALFORMED where a length is wrong, PACKET_FORBIDDEN for source routes, redirects
    and neighbour discovery, which no pod may send another through a tunnel.
    """
    size = len(packet_untrusted)
    version = packet_untrusted[0] >> 4 if size else 0
    if version == 4 and size >= IPV4_HEADER:
        return _parse_v4(packet_untrusted, size)
    if version == 6 and size >= IPV6_HEADER:
        return _parse_v6(packet_untrusted, size)
    raise Dropped(Drop.PACKET_MALFORMED, "neither IPv4 nor IPv6")


def ip_header(packet: memoryview) -> int:
    """Return the bytes of a parsed packet's IPv4 header, or of IPv6's without extension headers."""
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else IPV6_HEADER


def _parse_v4(packet: memoryview, size: int) -> tuple[bytes, bytes]:
    first: int
    source: bytes
    destination: bytes
    # All at once: a field read by itself costs as much as the whole header.
    first, total, fragment, protocol, source, destination = _V4.unpack_from(packet)
    header = (first & 15) * 4
    if not IPV4_HEADER <= header <= size or total != size:
        raise Dropped(Drop.PACKET_MALFORMED, "IPv4 length")
    if header > IPV4_HEADER:
        _refuse_source_route(packet[IPV4_HEADER:header])
    if protocol == _ICMP and not fragment & 0x1FFF and packet[header:][:1] == _ICMP_REDIRECT:
        raise Dropped(Drop.PACKET_FORBIDDEN, "ICMP redirect")
    return source, destination


def _refuse_source_route(options: memoryview) -> None:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        if options[at] in _SOURCE_ROUTES:
            raise Dropped(Drop.PACKET_FORBIDDEN, "source route")
        if at + 1 >= len(options) or options[at + 1] < 2:
            raise Dropped(Drop.PACKET_MALFORMED, "IPv4 options")
        at += options[at + 1]


def _parse_v6(packet: memoryview, size: int) -> tuple[bytes, bytes]:
    following: int
    source: bytes
    destination: bytes
    length, following, source, destination = _V6.unpack_from(packet)
    if length + IPV6_HEADER != size:
        raise Dropped(Drop.PACKET_MALFORMED, "IPv6 length")
    at = IPV6_HEADER
    for _ in range(_MOST_EXTENSIONS):
        if following == _ICMPV6 and at < size and packet[at] in _LINK_ICMPV6:
            raise Dropped(Drop.PACKET_FORBIDDEN, "neighbour discovery")
        if following not in {_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS}:
            return source, destination
        if following == _ROUTING:
            raise Dropped(Drop.PACKET_FORBIDDEN, "routing header")
        if at + 8 > size:
            raise Dropped(Drop.PACKET_MALFORMED, "IPv6 extension header")
        if following == _FRAGMENT:
            later_fragment = (packet[at + 2] << 8 | packet[at + 3]) & 0xFFF8
            following, at = packet[at], at + 8
            if later_fragment:
                return source, destination
        else:
            following, at = packet[at], at + (packet[at + 1] + 1) * 8
    raise Dropped(Drop.PACKET_MALFORMED, "too many IPv6 extension headers")
