"""How many datagrams a session's records may have: many while the path carries them, one where it loses.

A lost datagram loses its whole record. The peer's PONGs say how many records of several datagrams have opened, and how
many were given up with pieces missing; from two of them follows what became of those sent in between.
"""

from typing import Final

from proxy.session.wire import MOST_DATAGRAMS

ASK_EVERY: Final = 0.25
"""Seconds between questions while records of several datagrams are sent."""

ENOUGH: Final = 8
"""Records sent before they are judged; if none of them opened, the path carries none."""

LOSSY: Final = 50
"""One incomplete record in so many halves the limit."""

PATIENCE: Final = 1.0
SILENT: Final = 2
"""Seconds that a question stands, and questions without an answer that count as loss."""

CALM: Final = 10.0
LONGEST_CALM: Final = 600.0
"""Seconds without loss after which the limit doubles; where nothing came through, that pause doubles too."""

_COUNT: Final = 1 << 32


class RecordLimit:
    """The limit and its questions; counts modulo 2^32 as PONGs carry them, times in monotonic seconds."""

    __slots__ = (
        "_asked",
        "_asked_at",
        "_base",
        "_calm",
        "_calm_since",
        "_nonce",
        "_silent",
        "due",
        "most",
    )

    def __init__(self, most: int = MOST_DATAGRAMS) -> None:
        """Begin with ``most`` datagrams a record."""
        self.most = most
        self.due = 0.0
        self._nonce = b""
        self._asked = 0
        self._asked_at = 0.0
        self._silent = 0
        self._base = (0, 0, 0)
        self._calm = CALM
        self._calm_since = 0.0

    def ask(self, nonce: bytes, sent: int, now: float) -> bool:
        """Say whether a PING of ``nonce`` shall ask about the ``sent`` records of several datagrams so far.

        A question stands until it is answered, a second at most: the way there and back may take long. Who drops
        the answers must not hide what else is lost: two that stay out count as loss.
        """
        self.due = now + ASK_EVERY
        if self._nonce:
            if now < self._asked_at + PATIENCE:
                return False
            self._silent += 1
            if self._silent == SILENT:
                self._shrink(now)
        self._nonce, self._asked, self._asked_at = nonce, sent, now
        return True

    def answered(self, nonce: bytes, opened: int, incomplete: int, now: float) -> None:
        """Take the counts of the PONG that answers the last question; any other says nothing."""
        if not self.heard(nonce):
            return
        counts = self._asked, opened, incomplete
        sent, opened, incomplete = (
            (after - before) % _COUNT for after, before in zip(counts, self._base, strict=True)
        )
        if sent < ENOUGH:
            return
        self._base = counts
        if not opened:
            self.most = 1
            self._calm = min(2 * self._calm, LONGEST_CALM)
        elif incomplete * LOSSY > opened + incomplete:
            self._shrink(now)
            return
        else:
            self._calm = CALM
            return
        self._calm_since = now

    def heard(self, nonce: bytes) -> bool:
        """Say whether a PONG answers the last question, which stands no longer."""
        if not self._nonce or nonce != self._nonce:
            return False
        self._nonce, self._silent = b"", 0
        return True

    def begin_again(self) -> None:
        """Keep the limit for another session over the same path, whose counts begin at 0."""
        self._nonce, self._asked, self._base, self._silent = b"", 0, (0, 0, 0), 0

    def _shrink(self, now: float) -> None:
        self.most = max(1, self.most // 2)
        self._calm_since, self._silent = now, 0

    def relax(self, now: float) -> None:
        """Double the limit after a calm time."""
        if self.most < MOST_DATAGRAMS and now >= self._calm_since + self._calm:
            self.most, self._calm_since = 2 * self.most, now
