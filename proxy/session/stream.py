"""One direction of the TLS byte stream over datagrams: pieces, acknowledgement, repetition (after RFC 9000 19.6)."""

from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.wire import FLIGHT_TLS

INITIATOR_LIMIT: Final = 20 * 1024
RESPONDER_LIMIT: Final = 16 * 1024
"""Bytes of one direction: a ClientHello of 4 KB and a flight of 16 KB; flights are 0.9 to 2.2 KB."""

_MOST_EARLY: Final = 16
"""Pieces kept that came before their turn: a whole flight in reverse order."""


class OutStream:
    """What we send: pieces as they were first cut, kept until acknowledged."""

    __slots__ = ("_pieces", "acknowledged", "end")

    def __init__(self) -> None:
        """Begin empty."""
        self._pieces: list[tuple[int, bytes]] = []
        self.acknowledged = 0
        self.end = 0

    def append(self, tls: bytes) -> list[tuple[int, bytes]]:
        """Add what TLS wants sent; return the new pieces as (offset, bytes)."""
        fresh = [
            (self.end + at, tls[at : at + FLIGHT_TLS]) for at in range(0, len(tls), FLIGHT_TLS)
        ]
        self._pieces += fresh
        self.end += len(tls)
        return fresh

    def acknowledge(self, received_untrusted: int) -> None:
        """Note how much the peer has without a gap. A lie makes only the liar's handshake fail."""
        if self.acknowledged < received_untrusted <= self.end:
            self.acknowledged = received_untrusted

    def missing(self) -> list[tuple[int, bytes]]:
        """Return the pieces that the peer has not acknowledged."""
        return [(at, piece) for at, piece in self._pieces if at + len(piece) > self.acknowledged]

    def last(self) -> list[tuple[int, bytes]]:
        """Return the last piece, to be repeated to a peer that has all and still waits."""
        return self._pieces[-1:]


class InStream:
    """What we receive: bytes in order, and a few pieces that came early. The first write of a byte wins."""

    __slots__ = ("_early", "_limit", "received")

    def __init__(self, limit: int) -> None:
        """Refuse all beyond ``limit`` bytes."""
        self._early: dict[int, bytes] = {}
        self._limit = limit
        self.received = 0

    def add(self, offset: int, piece_untrusted: bytes) -> bytes:
        """Return the bytes that are now in order (none for a repetition, or after a gap).

        Raises `Dropped` (HANDSHAKE_MISMATCH) beyond the limit.
        """
        end = offset + len(piece_untrusted)
        if end > self._limit:
            raise Dropped(Drop.HANDSHAKE_MISMATCH, "more TLS than a handshake has")
        if offset > self.received:
            if len(self._early) < _MOST_EARLY:
                self._early.setdefault(offset, piece_untrusted)
            return b""
        in_order = piece_untrusted[self.received - offset :]
        self.received = max(self.received, end)
        while (piece := self._early.pop(self.received, None)) is not None:
            in_order += piece
            self.received += len(piece)
        return in_order
