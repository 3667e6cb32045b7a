"""One list on its way from one peer, piece by piece: what came, what is asked for next, and when that is enough."""

from typing import Final

from ca.lists import LARGEST_ENVELOPE
from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.lists.messages import LARGEST_PIECE, Age, Ask, Part
from proxy.session.session import Session

ASK_AGAIN: Final = 1.0
TRIES: Final = 5
"""Of an ASK, a second apart; also while the peer's answers are at their pace."""

LONGEST: Final = 60.0
"""Seconds for the whole: a thousand pieces, each a round trip of 50 ms. Who is slower keeps others from the place."""


class Fetch:
    """One ASK is under way at a time; memory grows with what came, up to `LARGEST_ENVELOPE`."""

    __slots__ = ("_ends", "_received", "_total", "_tries", "age", "due", "session")

    def __init__(self, session: Session, age: Age, now: float) -> None:
        """Begin to fetch the list that the session's peer says it has; `ask` makes the first question."""
        self.session, self.age = session, age
        self.due = now
        self._ends = now + LONGEST
        self._tries = 0
        self._total = 0
        self._received = bytearray()

    def ask(self, now: float) -> bytes:
        """Return the body that asks for the next piece; raise `Dropped` (ROSTER) where it was asked for in vain."""
        if self._tries >= TRIES or now >= self._ends:
            raise Dropped(Drop.ROSTER, f"{self.session.peer.pod} did not send what it told of")
        self._tries += 1
        self.due = now + ASK_AGAIN
        return Ask(self.age, len(self._received)).encode()

    def restart(self, age: Age) -> None:
        """Fetch another list of the same peer, whose list has changed meanwhile; tries and time go on."""
        self.age = age
        self._total = 0
        self._received.clear()

    def take(self, part_untrusted: Part) -> bool:
        """Take a piece; say whether it is the next one. Raises `Dropped` (ROSTER) for one that no list has.

        Another one is late, or came twice: nothing has changed.
        """
        part, offset = part_untrusted, len(self._received)
        if (part.age, part.offset) != (self.age, offset):
            return False
        total = self._total or part.total
        due = min(LARGEST_PIECE, total - offset)
        if part.total != total or total > LARGEST_ENVELOPE or len(part.piece) != due:
            raise Dropped(Drop.ROSTER, f"{self.session.peer.pod} sent a piece of no list")
        self._total = total
        self._tries = 0
        self._received += part.piece
        return True

    def whole(self) -> bytes | None:
        """Return the envelope, as unverified as it came, once nothing of it is missing."""
        return bytes(self._received) if len(self._received) == self._total else None
