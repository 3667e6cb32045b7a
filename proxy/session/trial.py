"""Before a session's datagrams go to another address, it must answer there, and no longer here.

A record that opens proves who sealed it, not from where it came: whoever sees it can send the same bytes first from
an address of his own. So both addresses are asked, and a session moves only where the new one answers and the
old one does not (``docs/decisions/0005``; RFC 9000 9.3.3 says why the old one too). To an address that the peer's
certificate names, from one that it does not name, an answer there is enough: a thief could not be got rid of.
"""

from enum import Enum, auto
from typing import Final

from proxy.session.cookie import Endpoint

ASK_AGAIN: Final = 0.2
JUDGE: Final = 0.4
"""Seconds from the first record to the judgement: with it a peer is talking again within one second."""

GIVE_UP: Final = 1.0
PAUSE: Final = 1.0
"""Seconds between a trial that moved nothing and the next."""


class Outcome(Enum):
    """What a trial says now."""

    OPEN = auto()
    MOVE = auto()
    STAY = auto()


class Trial:
    """One new address of one session's peer."""

    __slots__ = (
        "_here",
        "_preferred",
        "_there",
        "answered_here",
        "answered_there",
        "ask_again_at",
        "endpoint",
        "give_up_at",
        "judge_at",
    )

    def __init__(
        self, endpoint: Endpoint, here: bytes, there: bytes, now: float, *, preferred: bool
    ) -> None:
        """Try ``endpoint`` with the PING body ``there``, beside ``here`` for the address in use (8 random bytes).

        ``preferred``: the peer's certificate names this address, and not the one in use.
        """
        self.endpoint = endpoint
        self._here, self._there = here, there
        # The moments themselves: an age, worked out at one of them, may fall short of it by a rounding.
        self.ask_again_at, self.judge_at, self.give_up_at = (
            now + ASK_AGAIN,
            now + JUDGE,
            now + GIVE_UP,
        )
        self._preferred = preferred
        self.answered_here = self.answered_there = False

    @property
    def pings(self) -> tuple[bytes, bytes]:
        """The bodies of the PINGs to the address in use and to the new one."""
        return self._here, self._there

    def answered(self, nonce: bytes) -> None:
        """Take a PONG."""
        self.answered_here |= nonce == self._here
        self.answered_there |= nonce == self._there

    def outcome(self, now: float) -> Outcome:
        """Say what to do."""
        if (self.answered_here and not self._preferred) or now >= self.give_up_at:
            return Outcome.STAY
        sure = self._preferred or now >= self.judge_at
        return Outcome.MOVE if self.answered_there and sure else Outcome.OPEN
