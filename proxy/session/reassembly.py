"""Putting the datagrams of a record together again: two records at a time, first write wins.

Only datagrams whose token is right come here, so strangers cannot make state; someone on the path can race
a changed piece and spoil that record, which dropping it would do as well.
"""

from dataclasses import dataclass, field
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.packet.ecn import combine
from proxy.session.wire import RECORD_HEADER

OPEN_RECORDS: Final = 2
"""One that is arriving, and one that reordering holds back."""

LIFE: Final = 0.020
"""Seconds after which an incomplete record is given up: far above any reordering inside a cluster."""


@dataclass(slots=True, eq=False)
class _Partial:
    place: tuple[int, int, int]
    began: float
    data: bytearray
    ecn: int
    have: set[int] = field(default_factory=set)


class Reassembly:
    """The incomplete records of one session; at most two, of 64 KB each."""

    __slots__ = ("_partials", "ecn", "given_up")

    def __init__(self) -> None:
        """Begin with none; buffers are made when a record of several datagrams begins."""
        self._partials: dict[int, _Partial] = {}
        self.given_up = 0
        self.ecn = 0  # of the record that was completed last

    def add(  # noqa: PLR0913, PLR0917 - the header's fields, once a datagram
        self,
        counter: int,
        place: tuple[int, int, int],
        segment: int,
        datagram: memoryview,
        now: float,
        ecn: int = 0,
    ) -> memoryview | None:
        """Keep one piece; return the whole sealed record once it is complete, else None.

        ``place`` is the record's number of datagrams, size of pieces (`piece_size`) and sealed length. Raises
        `Dropped`: REASSEMBLY for a piece that contradicts what came before or came already, INCOMPLETE for one that
        comes too late.
        """
        partial = self._partials.get(counter)
        if partial is None:
            self._make_room(counter, now)
            partial = self._partials[counter] = _Partial(place, now, bytearray(place[2]), ecn)
        if place != partial.place or segment in partial.have:
            raise Dropped(Drop.REASSEMBLY, "contradicts an earlier piece")
        count, size, _ = place
        piece = datagram[RECORD_HEADER:]
        partial.data[segment * size : segment * size + len(piece)] = piece
        partial.have.add(segment)
        partial.ecn = combine(partial.ecn, ecn)
        if len(partial.have) < count:
            return None
        del self._partials[counter]
        self.ecn = partial.ecn
        return memoryview(partial.data)

    def forget(self, counter: int) -> None:
        """Drop what is there of a record that came whole by itself."""
        self._partials.pop(counter, None)

    def expire(self, now: float) -> None:
        """Give up what is incomplete for too long: a session that falls silent must not keep its buffers."""
        for counter in [c for c, one in self._partials.items() if now - one.began > LIFE]:
            del self._partials[counter]
            self.given_up += 1

    def _make_room(self, arriving: int, now: float) -> None:
        self.expire(now)
        if len(self._partials) == OPEN_RECORDS:
            oldest = min(self._partials)
            if arriving < oldest:
                # Late or replayed: not worth a record that is arriving.
                raise Dropped(Drop.INCOMPLETE, "older than both open records")
            del self._partials[oldest]
            self.given_up += 1
