"""A pod's list exchange over stand-ins for sessions, with a clock that is turned by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from proxy.drops import Drop, Drops
from proxy.errors import Dropped
from proxy.lists.exchange import ListExchange
from proxy.lists.messages import LARGEST_PIECE, Age, Ask, Message, Part, parse
from proxy.session.session import Session
from proxy.session.table import SessionTable

OLD, NEW = (1, 100), (2, 200)
LIST = bytes(range(256)) * 20


@dataclass(frozen=True)
class Identity:
    uri: str = "spiffe://shop.example/ns/shop/sa/web"


@dataclass(frozen=True)
class Peer:
    pod: str
    identity: Identity = Identity()


@dataclass(eq=False)
class Line:
    """A session: what `ListExchange` uses of one."""

    index: int
    peer: Peer


@dataclass
class Table:
    """The sessions, and what was sent over them."""

    sessions: dict[int, Line] = field(default_factory=dict)
    current: dict[bytes, Line] = field(default_factory=dict)
    sent: list[tuple[Line, Message]] = field(default_factory=list)
    """Those that nobody has taken yet."""
    log: list[tuple[Line, Message]] = field(default_factory=list)

    def lists(self, session: Line, body: bytes, _now: float) -> None:
        assert self.sessions.get(session.index) is session
        self.sent.append((session, parse(body)))
        self.log.append(self.sent[-1])


class Pod:
    """An exchange whose CA never answers; a list is believed that says ``LIST``, of the age in `genuine`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.table, self.drops = Table(), Drops()
        self.genuine: Age = NEW
        self.offered: list[bytes] = []
        table = cast("SessionTable", self.table)
        self.exchange = ListExchange(table, self._offer, self.drops)

    def _offer(self, envelope: bytes) -> None:
        self.offered.append(envelope)
        if envelope != LIST:
            raise Dropped(Drop.ROSTER)
        self.adopt(self.genuine)

    def adopt(self, age: Age, envelope: bytes = LIST) -> None:
        self.exchange.adopted(envelope, *age, self.now)

    def session(self, pod: str) -> Session:
        """Open another session with a pod."""
        line = Line(len(self.table.sessions) + 1, Peer(pod))
        self.table.sessions[line.index] = line
        self.table.current[pod.encode()] = line
        session = cast("Session", line)
        self.exchange.opened(session, self.now)
        return session

    def hear(self, session: Session, message: Message) -> None:
        self.exchange.heard(session, message.encode(), self.now)

    def run(
        self, seconds: float, peer: Callable[[Line, Ask], Message | None] | None = None
    ) -> None:
        """Let time pass; ``peer`` says what is answered to an ASK, at once."""
        end = self.now + seconds
        while True:
            self._answer(peer)
            due = self.exchange.next_timer()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.exchange.handle_timer(self.now)
        self.now = end

    def _answer(self, peer: Callable[[Line, Ask], Message | None] | None) -> None:
        while peer and self.table.sent:
            line, message = self.table.sent.pop(0)
            answer = peer(line, message) if isinstance(message, Ask) else None
            if answer is not None:
                self.hear(cast("Session", line), answer)

    def asked(self) -> list[tuple[str, Ask]]:
        """Return who was asked for what."""
        return [(line.peer.pod, m) for line, m in self.table.sent if isinstance(m, Ask)]


def honest(_line: Line, ask: Ask) -> Message:
    piece = LIST[ask.offset : ask.offset + LARGEST_PIECE]
    return Part(ask.age, ask.offset, len(LIST), piece)
