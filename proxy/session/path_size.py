"""How large a session's datagrams may be: path MTU discovery by PINGs alone (RFC 8899; ``docs/decisions/0005``).

ICMP is never believed. A size counts as disproved when PINGs of it stay unanswered while small ones beside them are
answered; where nothing is answered the path is silent, and says nothing about sizes.
"""

import math
from typing import Final

from proxy.session.wire import HELLO_SIZE

BASE: Final = HELLO_SIZE
"""Bytes of UDP payload that each path carries over which a handshake went."""

TRIES: Final = 3
PATIENCE: Final = 0.3
"""Seconds for an answer: many round trips inside a cluster. Three of them, and a size is given up."""

CONFIRM_EVERY: Final = 5.0
"""Seconds after which a session that carries packets asks whether its size still gets through."""

RAISE_EVERY: Final = 60.0
"""Seconds after which a narrow path is asked for the full size again."""

STEP: Final = 16
"""Bytes: the search ends when the answer is as near as this."""


class PathSize:
    """The size in use, and the question under way; sizes in bytes of UDP payload, times in monotonic seconds."""

    __slots__ = (
        "_asked",
        "_disproved",
        "_largest",
        "_proved",
        "_questions",
        "_raise_at",
        "_small_answered",
        "_tries",
        "due",
        "size",
    )

    def __init__(self, largest: int, now: float, size: int | None = None) -> None:
        """Begin with ``size``, in use by another session, or hope for ``largest``, what the interface takes."""
        self.size = min(size or largest, largest)
        self.due = now
        self._largest = largest
        self._proved = min(size or BASE, largest)
        self._disproved = largest + 1
        self._raise_at = now
        self._asked = 0
        self._tries = 0
        self._small_answered = False
        self._questions: dict[bytes, int] = {}

    def ask(self, now: float, *, busy: bool) -> list[int]:
        """Return the sizes to PING now, and set `due`, when to call again; ``busy``: packets went since the last."""
        if now < self.due:
            return []
        if not self._asked:
            raising = now >= self._raise_at
            if not raising and not busy:
                self.due = now + CONFIRM_EVERY
                return []
            if raising:
                self._disproved = self._largest + 1
                self._raise_at = math.inf
            self._begin(self._largest if raising else self.size)
        elif self._tries == TRIES:
            self._give_up(now)
            if not self._asked:
                return []
        self._tries += 1
        self.due = now + PATIENCE
        # The small one tells a narrow path from a silent one.
        return [self._asked, 0] if self._tries > 1 else [self._asked]

    def note(self, nonce: bytes, size: int) -> None:
        """Remember which PING asked for a size."""
        self._questions[nonce] = size

    def answered(self, nonce: bytes, now: float) -> None:
        """Take a PONG; one that answers no question of this round changes nothing."""
        size = self._questions.pop(nonce, None)
        if size is None:
            return
        if not size:
            self._small_answered = True
            return
        self._proved = self.size = size
        self._search(now)

    def _begin(self, size: int) -> None:
        self._asked, self._tries, self._small_answered = size, 0, False
        self._questions.clear()

    def _give_up(self, now: float) -> None:
        if not self._small_answered:
            self._asked = 0
            self._raise_at = min(self._raise_at, now + RAISE_EVERY)
            self.due = now + CONFIRM_EVERY
            return
        self._disproved = self._asked
        self._raise_at = min(self._raise_at, now + RAISE_EVERY)
        if self._proved >= self._disproved:
            self._proved = min(BASE, self._largest)
        self.size = self._proved
        self._search(now)

    def _search(self, now: float) -> None:
        if self._disproved - self._proved > STEP and self._proved < self._largest:
            whole = self._disproved > self._largest
            self._begin(self._largest if whole else (self._proved + self._disproved) // 2)
            self.due = now
        else:
            self._asked = 0
            self.due = now + CONFIRM_EVERY
