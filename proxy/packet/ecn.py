"""Explicit congestion notification through the tunnel: the inner field outside, both combined at the end (RFC 6040).

ECN is the last two bits of IPv4's TOS and of IPv6's traffic class (RFC 3168 5). DSCP, the other six, stay inside.
"""

from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped

NOT_ECT, ECT_1, ECT_0, CE = range(4)

_CHECKSUM: Final = 10


def inner_ecn(packet: memoryview) -> int:
    """Return the ECN field of a packet that `parse_packet` took."""
    return packet[1] & 3 if packet[0] >> 4 == 4 else packet[1] >> 4 & 3


def decapsulate(packet: memoryview, outer: int) -> None:
    """Combine the packet's ECN field with that of its datagram, in place (RFC 6040 figure 4).

    Raises `Dropped` (ECN) where a router marked congestion and the packet's ends do not understand marks: the loss
    tells them.
    """
    if not outer:
        return
    inner = inner_ecn(packet)
    if outer == CE and inner == NOT_ECT:
        raise Dropped(Drop.ECN)
    if outer == CE or (outer, inner) == (ECT_1, ECT_0):
        _set(packet, outer)


def combine(one: int, other: int) -> int:
    """Return the ECN field of a record from those of two of its datagrams: CE wins (RFC 3168 5.3)."""
    return CE if CE in {one, other} else other


def _set(packet: memoryview, ecn: int) -> None:
    if packet[0] >> 4 == 6:
        packet[1] = packet[1] & ~0x30 | ecn << 4
        return
    before = packet[0] << 8 | packet[1]
    packet[1] = packet[1] & ~3 | ecn
    after = packet[0] << 8 | packet[1]
    # RFC 1624 equation 3: HC' = ~(~HC + ~m + m').
    checksum = ~(packet[_CHECKSUM] << 8 | packet[_CHECKSUM + 1]) & 0xFFFF
    checksum += (~before & 0xFFFF) + after
    checksum = (checksum & 0xFFFF) + (checksum >> 16)
    checksum = ~((checksum & 0xFFFF) + (checksum >> 16)) & 0xFFFF
    packet[_CHECKSUM], packet[_CHECKSUM + 1] = checksum >> 8, checksum & 0xFF
