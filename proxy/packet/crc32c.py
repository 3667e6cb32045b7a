"""SCTP's checksum (CRC32c, RFC 9260 appendix A) where four bytes change: without a look at the others.

A CRC is linear: what a change of some bits does to it depends on how far behind them the end is, and on nothing else.
Zero bytes behind them are passed by powers of two, so that a long packet costs no more than a short one.
"""

from functools import cache
from typing import Final

_POLYNOMIAL: Final = 0x82F63B78
"""Castagnoli's, its bits reversed."""

_Matrix = tuple[int, ...]
"""What becomes of each of a register's 32 bits."""


def difference(change: bytes, size: int) -> int:
    """Return what to XOR to the CRC of ``size`` bytes of whose first four ``change`` was XORed."""
    register = int.from_bytes(change, "little")
    power = 0
    while size:
        if size & 1:
            register = _pass(_zeros(power), register)
        size >>= 1
        power += 1
    return register


def _pass(matrix: _Matrix, register: int) -> int:
    result = 0
    while register:
        lowest = register & -register
        result ^= matrix[lowest.bit_length() - 1]
        register ^= lowest
    return result


@cache
def _zeros(power: int) -> _Matrix:
    """Return what 2 ** ``power`` zero bytes do to the register; ``power`` is at most 15, as IP's lengths are."""
    if power:
        half = _zeros(power - 1)
        return tuple(_pass(half, column) for column in half)
    return tuple(_byte(1 << bit) for bit in range(32))


def _byte(register: int) -> int:
    for _ in range(8):
        register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
    return register
