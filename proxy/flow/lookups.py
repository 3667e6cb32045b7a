"""Addresses inside the cluster's ranges that nobody has named yet: looked up in reverse, once for many packets."""

from collections import deque
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped

MOST_UNDER_WAY: Final = 256
REMEMBERED: Final = 30.0
"""Seconds that a lookup in vain is not repeated."""

_MOST_IN_VAIN: Final = 4096


class Lookups:
    """Which addresses are being looked up, and which were in vain; the driver takes `wanted`."""

    def __init__(self, *, possible: bool = True) -> None:
        """Begin; where no lookup is ``possible``, each is in vain."""
        self._possible = possible
        self.wanted: deque[bytes] = deque()
        self._under_way: set[bytes] = set()
        self._in_vain: dict[bytes, float] = {}

    def begin(self, address: bytes, now: float) -> None:
        """Have an address looked up, unless it is; raises `Dropped` (UNKNOWN_ADDRESS) where that was in vain."""
        if address in self._under_way:
            return
        until = self._in_vain.get(address, 0.0)
        if not self._possible or now < until:
            raise Dropped(Drop.UNKNOWN_ADDRESS)
        if len(self._under_way) >= MOST_UNDER_WAY:
            raise Dropped(Drop.QUEUE_FULL)
        self._under_way.add(address)
        self.wanted.append(address)

    def ended(self, address: bytes, now: float, *, in_vain: bool) -> None:
        """Note that a lookup has ended."""
        self._under_way.discard(address)
        self._in_vain.pop(address, None)
        if in_vain:
            if len(self._in_vain) >= _MOST_IN_VAIN:
                del self._in_vain[next(iter(self._in_vain))]
            self._in_vain[address] = now + REMEMBERED
