"""What an inner packet carries behind its IP headers: protocol, ports, and which fragments belong together."""

from dataclasses import dataclass
from typing import Final

from proxy.packet.ip import IPV6_HEADER

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
WITH_PORTS: Final = frozenset({TCP, UDP, SCTP})
SYN, RST, ACK = 2, 4, 16

_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 44
_MOST_EXTENSIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Upper:
    """The protocol above IP and where its header begins; ``fragment`` names the packet that a fragment is of."""

    protocol: int
    at: int
    fragment: bytes = b""
    is_later: bool = False
    """A fragment without the header."""


def find_upper(packet: memoryview) -> Upper:
    """Return what a packet that `parse_packet` took carries."""
    if packet[0] >> 4 == 4:
        fragment = (packet[6] << 8 | packet[7]) & 0x3FFF
        name = bytes(packet[4:6]) + bytes(packet[9:10]) + bytes(packet[12:20]) if fragment else b""
        return Upper(packet[9], (packet[0] & 15) * 4, name, bool(fragment & 0x1FFF))
    return _find_v6(packet)


def _find_v6(packet: memoryview) -> Upper:
    following, at, name = packet[6], IPV6_HEADER, b""
    for _ in range(_MOST_EXTENSIONS):
        if following == _FRAGMENT:
            offset = (packet[at + 2] << 8 | packet[at + 3]) & 0xFFF8
            following = packet[at]
            name = bytes(packet[at + 4 : at + 8]) + bytes(packet[8:40])
            at += 8
            if offset:
                return Upper(following, at, name, is_later=True)
        elif following in _EXTENSIONS:
            following, at = packet[at], at + (packet[at + 1] + 1) * 8
        else:
            break
    return Upper(following, at, name)


def ports(packet: memoryview, upper: Upper) -> tuple[int, int] | None:
    """Return source and destination port, None where the packet is too short for them."""
    at = upper.at
    if at + 4 > len(packet):
        return None
    return packet[at] << 8 | packet[at + 1], packet[at + 2] << 8 | packet[at + 3]
