"""One timer over everything: a heap of callbacks; what has ended meanwhile ignores its call."""

from collections.abc import Callable
from heapq import heappop, heappush


class Timers:
    """Callbacks by the monotonic second at which they are due."""

    __slots__ = ("_heap", "_sequence")

    def __init__(self) -> None:
        """Begin with none."""
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._sequence = 0

    def at(self, when: float, callback: Callable[[float], None]) -> None:
        """Call ``callback(now)`` once, at or after ``when``."""
        self._sequence += 1
        heappush(self._heap, (when, self._sequence, callback))

    def next(self) -> float | None:
        """Return when the next one is due."""
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Call all that are due; those that they add with a time up to ``now`` wait for the next run."""
        newest = self._sequence
        later = []
        try:
            while self._heap and self._heap[0][0] <= now:
                one = heappop(self._heap)
                if one[1] > newest:
                    later.append(one)
                else:
                    one[2](now)
        finally:
            for one in later:
                heappush(self._heap, one)
