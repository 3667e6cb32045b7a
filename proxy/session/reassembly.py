"""Putting the datagrams of a record together again: two records at a time, first write wins.

Only datagrams whose token is right come here, so strangers cannot make state; someone on the path can race
a changed piece and spoil that record, which dropping it would do as well.
"""

from dataclasses import dataclass, field
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped

OPEN_RECORDS: Final = 2
"""One that is arriving, and one that reordering holds back."""

LIFE: Final = 0.020
"""Seconds after which an incomplete record is given up: far above any reordering inside a cluster."""


@dataclass(slots=True, eq=False)
class _Partial:
    count: int
    total: int
    piece: int  # size of all pieces but the last
    began: float
    data: bytearray
    have: set[int] = field(default_factory=set)


class Reassembly:
    """The incomplete records of one session; at most two, of 64 KB each."""

    __slots__ = ("_partials", "given_up")

    def __init__(self) -> None:
        """Begin with none; buffers are made when a record of several datagrams begins."""
        self._partials: dict[int, _Partial] = {}
        self.given_up = 0

    def add(  # noqa: PLR0913 - the header's fields
        self, counter: int, count: int, segment: int, total: int, piece: memoryview, now: float
    ) -> memoryview | None:
        """Keep one piece; return the whole sealed record once it is complete, else None.

        Raises `Dropped` (REASSEMBLY) for a piece that contradicts what came before or came already.
        """
        size = _piece_size(count, segment, total, len(piece))
        partial = self._partials.get(counter)
        if partial is None:
            self._make_room(now)
            partial = self._partials[counter] = _Partial(count, total, size, now, bytearray(total))
        if (count, total, size) != (partial.count, partial.total, partial.piece) or segment in partial.have:
            raise Dropped(Drop.REASSEMBLY, "contradicts an earlier piece")
        partial.data[segment * size : segment * size + len(piece)] = piece
        partial.have.add(segment)
        if len(partial.have) < count:
            return None
        del self._partials[counter]
        return memoryview(partial.data)

    def _make_room(self, now: float) -> None:
        stale = [counter for counter, one in self._partials.items() if now - one.began > LIFE]
        if not stale and len(self._partials) == OPEN_RECORDS:
            stale = [min(self._partials)]
        for counter in stale:
            del self._partials[counter]
            self.given_up += 1


def _piece_size(count: int, segment: int, total: int, size: int) -> int:
    """Return the size of all pieces but the last, which each single piece already tells."""
    if segment < count - 1:
        if not (count - 1) * size < total <= count * size:
            raise Dropped(Drop.REASSEMBLY, "size of a piece")
        return size
    others, odd = divmod(total - size, count - 1)
    if odd or others < size:
        raise Dropped(Drop.REASSEMBLY, "size of the last piece")
    return others
