"""Packets that wait for a session: bounded per address and in all, in order."""

from collections import deque
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped

MOST_FOR_ONE: Final = 64
BYTES_FOR_ONE: Final = 256 << 10
"""Packets, and bytes, for one address: a burst of a connection's first flights."""

MOST_IN_ALL: Final = 1024
BYTES_IN_ALL: Final = 4 << 20
"""Super-packets are up to 61 KB each."""


class WaitingPackets:
    """Copies of sealed-to-be plaintext by packed destination address."""

    def __init__(self) -> None:
        """Begin empty."""
        self._queues: dict[bytes, deque[bytes]] = {}
        self._sizes: dict[bytes, int] = {}
        self._count = 0
        self._bytes = 0

    def add(self, address: bytes, plain: bytes) -> None:
        """Keep one; raises `Dropped` (QUEUE_FULL)."""
        size = len(plain)
        queue = self._queues.get(address, ())
        if len(queue) >= MOST_FOR_ONE or self._count >= MOST_IN_ALL:
            raise Dropped(Drop.QUEUE_FULL)
        if self._sizes.get(address, 0) + size > BYTES_FOR_ONE or self._bytes + size > BYTES_IN_ALL:
            raise Dropped(Drop.QUEUE_FULL)
        self._queues.setdefault(address, deque()).append(plain)
        self._sizes[address] = self._sizes.get(address, 0) + size
        self._count += 1
        self._bytes += size

    def __len__(self) -> int:
        """Return how many packets wait, in all."""
        return self._count

    def __contains__(self, address: bytes) -> bool:
        """Say whether packets wait for an address."""
        return address in self._queues

    def take(self, address: bytes) -> deque[bytes]:
        """Return and forget all that wait for an address, oldest first."""
        queue = self._queues.pop(address, deque())
        self._count -= len(queue)
        self._bytes -= self._sizes.pop(address, 0)
        return queue
