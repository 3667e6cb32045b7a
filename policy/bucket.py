"""A token bucket: arithmetic on ``now``, seconds that never go back."""


class Bucket:
    """``burst`` at once, ``rate`` a second."""

    __slots__ = ("_burst", "_filled", "_left", "_rate")

    def __init__(self, burst: float, rate: float) -> None:
        """Begin full."""
        self._burst, self._rate = burst, rate
        self._left, self._filled = burst, 0.0

    def has(self, now: float) -> bool:
        """Say whether a token is there."""
        if now > self._filled:
            self._left = min(self._burst, self._left + (now - self._filled) * self._rate)
            self._filled = now
        return self._left >= 1

    def seconds(self, now: float) -> float:
        """Return how long until a token is there; 0 where one is."""
        return 0.0 if self.has(now) else (1 - self._left) / self._rate

    def take(self) -> None:
        """Take the token that `has` found."""
        self._left -= 1
