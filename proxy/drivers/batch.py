"""Datagrams of one size that leave together: one send, and where the kernel joins them again, one receive."""

from collections.abc import Callable
from typing import Final

from proxy.outbound import Sending
from proxy.session.cookie import Endpoint
from proxy.session.pieces import LARGEST_SEND

MOST: Final = 64
"""Datagrams of one send (UDP_MAX_SEGMENTS before Linux 6.9)."""


class Batch:
    """Keeps the order in which it was given datagrams; what it keeps goes with `flush` at the latest."""

    def __init__(self, send: Callable[[Sending], None]) -> None:
        """Send by ``send``."""
        self._send = send
        self._buffer = memoryview(bytearray(LARGEST_SEND))
        self._count = self._end = self._size = self._ecn = 0
        self._endpoint: Endpoint = ("", 0)

    def add(self, sending: Sending) -> None:
        """Take what is to be sent; a single datagram is copied, and may wait for others of its size."""
        data, size, endpoint, ecn = sending
        length = len(data)
        if length > size:
            self.flush()
            self._send(sending)
            return
        end = self._end + length
        if self._count and (
            length > self._size
            or end > LARGEST_SEND
            or ecn != self._ecn
            or endpoint != self._endpoint
        ):
            self.flush()
            end = length
        if not self._count:
            self._size, self._endpoint, self._ecn = length, endpoint, ecn
        self._buffer[self._end : end] = data
        self._end = end
        self._count += 1
        # A shorter one is the last that fits in a send: the kernel cuts by the first one's size.
        if self._count == MOST or length < self._size:
            self.flush()

    def flush(self) -> None:
        """Send what is kept."""
        if self._count:
            kept = self._buffer[: self._end], self._size, self._endpoint, self._ecn
            self._count = self._end = 0
            self._send(kept)
