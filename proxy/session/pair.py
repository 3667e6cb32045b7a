"""What we remember of one other pod across sessions: which of them seals, which still open, how often it may ask."""

from typing import Final

from proxy.credentials.certificate import PodCertificate
from proxy.session.session import Session

MOST_RETIRED: Final = 3
"""Sessions of one pod that no longer seal and still open."""

LAST_GENERATION: Final = (1 << 63) - 1
"""Higher ones are refused: a peer that counts so far has misbehaved, and spoils only its own pair."""

FIRST_PACE: Final = 1.0
LAST_PACE: Final = 4.0
"""Seconds between handshakes that HINTs may start, doubling: who forges them costs us one in four seconds."""

PairKey = tuple[str, str]


def pair_key(peer: PodCertificate) -> PairKey:
    """Return what makes two certificates the same pod's: SPIFFE id and pod name."""
    return peer.identity.uri, peer.pod


class Pair:
    """This pod and another."""

    __slots__ = ("_hint_pace", "_next_hint", "retired", "sessions")

    def __init__(self) -> None:
        """Begin without sessions."""
        self.sessions: list[Session] = []
        self.retired: list[Session] = []
        self._next_hint = 0.0
        self._hint_pace = FIRST_PACE

    def highest_generation(self) -> int:
        """Return the highest generation of a live session, 0 without any."""
        return max((session.generation for session in self.sessions), default=0)

    def remove(self, session: Session) -> None:
        """Forget a session."""
        self.sessions.remove(session)
        if session in self.retired:
            self.retired.remove(session)

    def heed_hint(self, now: float) -> bool:
        """Say whether a HINT may start a handshake now, and note that it did."""
        if now < self._next_hint:
            return False
        self._next_hint = now + self._hint_pace
        self._hint_pace = min(2 * self._hint_pace, LAST_PACE)
        return True

    def retire(self, session: Session) -> Session | None:
        """Keep ``session`` for what is still under way; return the one that must go for it, if any."""
        if session in self.retired:
            return None
        session.retired = True
        self.retired.append(session)
        if len(self.retired) <= MOST_RETIRED:
            return None
        # One that never carried a packet has none under way.
        idle = [one for one in self.retired if not one.packets_in + one.packets_out]
        return (idle or self.retired)[0]
