"""When a pod asks for its next certificate: arithmetic on ``now`` (monotonic seconds) and a random number.

It asks at half the life, so that the other half is left for a CA that is away; the jitter keeps pods that
started together from asking together. After a failure it asks again at growing intervals, drawn from all of
them ("full jitter"), so that a CA that comes back is not met by all at once. Nothing here ends a certificate
before its time, and nothing stops the asking: a pod whose certificate has ended heals when the CA is back.
"""

from dataclasses import dataclass
from typing import Final

JITTER: Final = 0.1
"""Of the half life, to both sides."""

FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 60.0
"""Seconds: the longest wait after the first failure, doubled by each further one, and where that stops."""

URGENT_PAUSE: Final = 10.0
URGENT: Final = 0.1
"""Where less than this part of the life is left, or none, the longest wait is the shorter one."""

REFUSED_PAUSE: Final = 300.0
"""Seconds: the longest wait after a refusal. Somebody must mend the CA's records first, and asking loads it."""

HASTE: Final = 300.0
"""Seconds within which all pods renew after the root that issues was replaced."""

_MOST_DOUBLINGS: Final = 16


@dataclass(slots=True)
class Renewal:
    """One certificate's life: from ``now`` at its issue to ``ends``; ``next_at`` is when to ask.

    ``failures`` in a row and ``last_error`` are those since the issue. All random numbers are in [0, 1).
    """

    life: float
    ends: float
    next_at: float
    failures: int = 0
    last_error: str = ""

    @classmethod
    def begin(cls, now: float, life: float, random: float) -> "Renewal":
        """Plan for a certificate that came now and is good for ``life`` more seconds.

        No CA is asked more than once a second or so: where its root ends soon, lives halve at each renewal.
        """
        half = max(life / 2, FIRST_PAUSE)
        return cls(life, now + life, now + half * (1 + JITTER * (2 * random - 1)))

    def hasten(self, now: float, random: float) -> None:
        """Ask within a quarter of the life, `HASTE` at most: the root that our certificate is under issues no more."""
        self.next_at = min(self.next_at, now + random * min(HASTE, self.life / 4))

    def seconds_left(self, now: float) -> float:
        """Return what is left of the certificate; negative once it has ended."""
        return self.ends - now

    def has_ended(self, now: float) -> bool:
        """Say whether the certificate is over."""
        return now >= self.ends

    def failed(self, now: float, error: str, random: float, *, is_refusal: bool) -> None:
        """Note an attempt that brought no certificate, and plan the next."""
        self.failures += 1
        self.last_error = error
        if is_refusal:
            # Half of it at least: a refusal does not pass by itself.
            pause = min(REFUSED_PAUSE, self._share(0.1)) * (1 + random) / 2
        else:
            pause = self._longest_pause(now) * random
        self.next_at = now + pause

    def _longest_pause(self, now: float) -> float:
        doubled = FIRST_PAUSE * 2.0 ** min(self.failures - 1, _MOST_DOUBLINGS)
        # Of a short life the pauses are a small part, too.
        longest = min(doubled, LAST_PAUSE, self._share(0.05))
        is_urgent = self.seconds_left(now) < URGENT * self.life
        return min(longest, URGENT_PAUSE) if is_urgent else longest

    def _share(self, part: float) -> float:
        return max(FIRST_PAUSE, part * self.life)
