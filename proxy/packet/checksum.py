"""The internet checksum (RFC 1071): whole, of a pseudo-header, completed where a kernel left it to hardware."""

import sys
from typing import Final, Literal

TCP, UDP = 6, 17

_ORDER: Final[Literal["little", "big"]] = sys.byteorder

CHECKSUM_AT: Final = {TCP: 16, UDP: 6}
"""Where the checksum stands in a transport header."""


def add(data: bytes | bytearray | memoryview) -> int:
    """Return the ones' complement sum of the 16-bit words of ``data``, an odd last byte padded by a zero."""
    odd = len(data) & 1
    # Words in the machine's order are as good: the sum's bytes are swapped at the end (RFC 1071 2 B).
    total = sum(memoryview(data)[: len(data) - odd].cast("H"))
    if odd:
        total += int.from_bytes(bytes((data[-1], 0)), _ORDER)
    return int.from_bytes(fold(total).to_bytes(2, _ORDER), "big")


def fold(total: int) -> int:
    """Return a sum of 16-bit words as one word, carries added again."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes | bytearray | memoryview) -> int:
    """Return the checksum that stands for ``data``, whose own checksum field is zero."""
    return ~add(data) & 0xFFFF


def pseudo_header(packet: memoryview, protocol: int, size: int) -> int:
    """Return the sum over a parsed packet's pseudo-header (RFC 9293 3.1, RFC 8200 8.1); ``size`` of its upper layer."""
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return fold(add(addresses) + protocol + size)


def complete(packet: memoryview, start: int, at: int) -> None:
    """Finish the checksum over ``packet[start:]`` at ``start + at``, where the sum over a pseudo-header stands."""
    where = start + at
    result = checksum(packet[start:])
    # UDP's zero says "none" (RFC 768); of both zeros in ones' complement the other means the same everywhere.
    packet[where : where + 2] = (result or 0xFFFF).to_bytes(2, "big")
