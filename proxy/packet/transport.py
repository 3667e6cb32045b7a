"""Where TCP or UDP lies in an IP packet: what segmentation and unfinished checksums need to know."""

from struct import Struct
from typing import Final

from proxy.packet.checksum import TCP, UDP
from proxy.packet.ip import IPV6_HEADER

LEAST_TCP: Final = 20
_UDP_HEADER: Final = 8
_FRAGMENTED: Final = 0x3FFF
"""More fragments, or an offset (RFC 791)."""


Transport = tuple[int, int, int]
"""Protocol number, offset of its header, and offset of what it carries."""

_V4: Final = Struct(">B5xH1xB")


def find_transport(packet: memoryview) -> Transport | None:
    """Return the TCP or UDP of a packet that `parse_packet` took, right behind the IP header; None without one.

    None too for a fragment, for IPv6 with extension headers, and where the header or UDP's length contradicts the
    packet's: what a kernel's segmentation would do with such a one is nobody's guess.
    """
    first, fragment, protocol = _V4.unpack_from(packet)
    if first >> 4 == 4:
        at = (first & 15) * 4
        if fragment & _FRAGMENTED:
            return None
    else:
        protocol, at = packet[6], IPV6_HEADER
    size = len(packet)
    if protocol == TCP and at + LEAST_TCP <= size:
        payload = at + (packet[at + 12] >> 4) * 4
        return (TCP, at, payload) if at + LEAST_TCP <= payload <= size else None
    if protocol == UDP and at + _UDP_HEADER <= size:
        length = packet[at + 4] << 8 | packet[at + 5]
        return (UDP, at, at + _UDP_HEADER) if at + length == size else None
    return None
