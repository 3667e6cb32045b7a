"""The replay window over record counters (the idea of RFC 6479; an integer is the bitmap)."""

from typing import Final

WINDOW: Final = 2048
"""Counters behind the highest that may still open: records that another path or queue overtook."""

_FULL: Final = (1 << WINDOW) - 1


class ReplayWindow:
    """Which counters of a session have opened. It moves only by `commit`, after the AEAD opened."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        """Begin with nothing seen; counters begin at 1."""
        self._highest = 0
        self._seen = 0

    def is_fresh(self, counter: int) -> bool:
        """Say whether ``counter`` (64 bits) may still open; changes nothing."""
        behind = self._highest - counter
        if behind < 0:
            return True
        return behind < WINDOW and counter > 0 and not self._seen >> behind & 1

    def commit(self, counter: int) -> None:
        """Mark a fresh ``counter`` as opened."""
        ahead = counter - self._highest
        if ahead <= 0:
            self._seen |= 1 << -ahead
            return
        # A forged leap cannot come here, an honest one can: never shift by more than the window.
        self._seen = (self._seen << ahead | 1) & _FULL if ahead < WINDOW else 1
        self._highest = counter
