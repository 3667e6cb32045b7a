"""Flows whose packets get other addresses or ports, and whose answers get theirs back: a bounded table.

Packets of a flow have one of two names (`proxy.packet.name`): ``there`` as who opened it sends them, ``back`` as the
answers leave their sender. Each has its changes. Errors about them go the opposite way and are changed with their
quote, later fragments as the first.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from proxy.packet import upper as up
from proxy.packet.name import addresses, ends, flow_name, quoted, turned
from proxy.packet.rewrite import Change, End, rewrite, rewrite_quoted
from proxy.packet.upper import Upper

MOST_FLOWS: Final = 32_768
TCP_IDLE: Final = 7200.0
CLOSED_IDLE: Final = 120.0
UDP_IDLE: Final = 180.0
SCTP_IDLE: Final = 7200.0
ECHO_IDLE: Final = 60.0
"""Seconds without a packet until a flow is forgotten; ``CLOSED_IDLE`` after a reset, or FIN from both ends."""

MOST_FRAGMENTED: Final = 1024
FRAGMENT_LIFE: Final = 30.0
"""Seconds that a first fragment says what becomes of the others (RFC 791 section 3.2)."""

_IDLE: Final = {up.TCP: TCP_IDLE, up.UDP: UDP_IDLE, up.SCTP: SCTP_IDLE}
_FIN: Final = 1
_OPENS: Final = up.SYN | up.ACK | up.RST
_BOTH_FIN, _RESET = 3, 4

Changes = tuple[Change, ...]


class Flow:
    """One flow: names and changes of its packets either way, and until when it lives."""

    __slots__ = ("back", "changes", "changes_back", "closing", "ends", "opening", "there")

    def __init__(
        self,
        there: bytes,
        back: bytes,
        changes: Changes,
        changes_back: Changes,
        opening: bytes = b"",
    ) -> None:
        """Begin; ``opening`` is the sequence number of TCP's first segment, empty where it was not seen."""
        self.there, self.back = there, back
        self.changes, self.changes_back = changes, changes_back
        self.ends = 0.0
        self.closing = 0
        self.opening = opening

    @property
    def is_closed(self) -> bool:
        """Whether TCP has ended."""
        return self.closing >= _RESET or self.closing == _BOTH_FIN

    @property
    def target(self) -> End:
        """Where its packets go."""
        return self.changes[0].after

    def touch(self, now: float) -> None:
        """Live on from ``now``."""
        idle = CLOSED_IDLE if self.is_closed else _IDLE.get(self.there[-1], ECHO_IDLE)
        self.ends = now + idle


class Journal(Protocol):
    """Hears of each flow that begins, with what its first change makes of it, and of each that is forgotten."""

    def opened(self, name: bytes, target: End) -> None:
        """Note a flow."""

    def closed(self, name: bytes) -> None:
        """Forget it."""


class Flows:
    """The flows by name, the one not used for longest first; and what first fragments said."""

    def __init__(self, most: int = MOST_FLOWS, journal: Journal | None = None) -> None:
        """Begin empty."""
        self._most, self._journal = most, journal
        self._flows: OrderedDict[bytes, Flow] = OrderedDict()
        self._back: dict[bytes, Flow] = {}
        self._fragments: dict[bytes, tuple[Changes, float]] = {}
        self.answering: Counter[bytes] = Counter()
        """How many flows have answers from a packed address; none are left out, so that ``in`` is enough."""

    def __len__(self) -> int:
        """Return how many flows are kept, those whose time is up included."""
        return len(self._flows)

    def opened_to(self) -> Iterator[bytes]:
        """Yield the packed address that each flow was opened to, as who opened it knows it."""
        return (ends(name)[1].address for name in self._flows)

    def find(self, name: bytes, now: float) -> tuple[Flow, bool] | None:
        """Return the live flow whose packets have a name, and whether these go ``there``."""
        flow = self._flows.get(name)
        is_there = flow is not None
        flow = flow or self._back.get(name)
        if flow is None:
            return None
        if now >= flow.ends:
            self.remove(flow)
            return None
        return flow, is_there

    def add(self, flow: Flow, now: float) -> None:
        """Keep a flow whose names are free; the one not used for longest makes room."""
        if len(self._flows) >= self._most:
            self.remove(next(iter(self._flows.values())))
        self._flows[flow.there] = self._back[flow.back] = flow
        self.answering[_source(flow.back)] += 1
        flow.touch(now)
        if self._journal is not None:
            self._journal.opened(flow.there, flow.target)

    def remove(self, flow: Flow) -> None:
        """Forget a flow."""
        del self._flows[flow.there], self._back[flow.back]
        if self._journal is not None:
            self._journal.closed(flow.there)
        source = _source(flow.back)
        self.answering[source] -= 1
        if not self.answering[source]:
            del self.answering[source]

    def remove_if(self, judge: Callable[[Flow], bool]) -> None:
        """Forget the flows of which ``judge`` says so."""
        for flow in [one for one in self._flows.values() if judge(one)]:
            self.remove(flow)

    def translate(self, packet: memoryview, now: float, *, unfinished: bool = False) -> bool:
        """Change a parsed packet if it is of a flow, or an error about one, or a later fragment of either; say whether.

        ``unfinished``: its TCP or UDP checksum holds the sum of the pseudo-header alone. Where TCP opens anew, the old
        flow is forgotten. Raises `Dropped`, as `rewrite`.
        """
        upper = up.find_upper(packet)
        if upper.is_later:
            return self._later(packet, upper, now)
        name = flow_name(packet, upper)
        if name is None:
            return self._error(packet, upper, now)
        found = self.find(name, now)
        if found is None:
            return False
        flow, is_there = found
        if upper.protocol == up.TCP and upper.at + 14 <= len(packet):
            flags = packet[upper.at + 13]
            if is_there and _reopens(flow, packet, upper):
                self.remove(flow)
                return False
            if flags & (_FIN | up.RST):
                flow.closing |= _RESET if flags & up.RST else 1 if is_there else 2
        flow.touch(now)
        self._flows.move_to_end(flow.there)
        changes = flow.changes if is_there else flow.changes_back
        self._note(upper, changes, now)
        rewrite(packet, upper, changes, unfinished=unfinished)
        return True

    def _error(self, packet: memoryview, upper: Upper, now: float) -> bool:
        about = quoted(packet, upper)
        if about is None:
            return False
        name, inner = about
        # It goes the way of the answers to what it quotes, which is a packet as we changed it; a router's is nobody's.
        way = turned(name)
        found = self.find(way, now) if way.startswith(addresses(packet)) else None
        if found is None:
            return False
        flow, is_there = found
        outer, made = flow.changes_back, flow.changes
        if is_there:
            outer, made = made, outer
        self._note(upper, outer, now)
        rewrite_quoted(packet, upper, inner, outer, [one.undone() for one in made])
        return True

    def _note(self, upper: Upper, changes: Changes, now: float) -> None:
        if upper.fragment:
            self._fragments.pop(upper.fragment, None)
            if len(self._fragments) >= MOST_FRAGMENTED:
                del self._fragments[next(iter(self._fragments))]
            self._fragments[upper.fragment] = changes, now + FRAGMENT_LIFE

    def _later(self, packet: memoryview, upper: Upper, now: float) -> bool:
        changes, ends = self._fragments.get(upper.fragment, ((), 0.0))
        if now >= ends:
            return False
        rewrite(packet, upper, changes)
        return True


def opening(packet: memoryview, upper: Upper) -> bytes:
    """Return the sequence number of a TCP segment that opens a connection; empty for all others."""
    at = upper.at
    if upper.protocol != up.TCP or at + 14 > len(packet):
        return b""
    return bytes(packet[at + 4 : at + 8]) if packet[at + 13] & _OPENS == up.SYN else b""


def _reopens(flow: Flow, packet: memoryview, upper: Upper) -> bool:
    # A kernel that repeats a SYN repeats its sequence number; with another one, the former connection is forgotten.
    sequence = opening(packet, upper)
    return bool(sequence) and (flow.is_closed or sequence != flow.opening)


def _source(name: bytes) -> bytes:
    return name[: (len(name) - 5) // 2]
