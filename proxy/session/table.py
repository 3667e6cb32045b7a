"""All sessions of a pod, driven by five plain calls with ``now`` passed in.

`receive_datagram`, `datagrams_to_send`, `next_timer`, `handle_timer` and `next_event`; besides these, the data
path reads `current` and `sessions` directly and calls `confirm` and `control` for what records say.
"""

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Final

from proxy.credentials.credential import Credential
from proxy.drops import Drop, Drops
from proxy.errors import Dropped, Unusable
from proxy.session.answers import Answers
from proxy.session.calls import Calls
from proxy.session.cookie import Endpoint
from proxy.session.events import CallFailed, Event, HandshakeRefused, SessionClosed, SessionOpened
from proxy.session.handshake import Exchange, Initiator, Responder
from proxy.session.pair import LAST_GENERATION, Pair, PairKey, pair_key
from proxy.session.record import SealingBuffer
from proxy.session.session import RENEW_AFTER, RETIRED_LIFE, Session
from proxy.session.timers import Timers
from proxy.session.tls import TlsEnd, make_context
from proxy.session.wire import (
    CLOSE,
    CONFIRM,
    DONE,
    FLIGHT,
    HELLO,
    HELLO_SIZE,
    HINT,
    PREFIX,
    RETRY,
    Flight,
    Hello,
    Hint,
    Retry,
    parse_handshake,
)

Entropy = Callable[[int], bytes]
"""Gives that many random bytes: the kernel's in a pod, seeded in a simulation."""

HINT_WINDOW: Final = 1 << 16
"""Counters behind the last sent that a HINT may name: a receiver's full buffer holds thousands."""

_HINT_BUCKETS: Final = 1024
_HINTS_A_BUCKET: Final = 4
"""HINTs a second that senders of one hash share: a flood by one address does not silence the others."""

RENEW_AGAIN: Final = 30.0

KINDS: Final = {HELLO: "hello", RETRY: "retry", FLIGHT: "flight", HINT: "hint"}
CONTROL: Final = "control"

_CONTROL_SIZE: Final = HELLO_SIZE


class SessionTable:
    """Who we talk to, and how: handshakes both ways, sessions by receiver index and by peer's address."""

    def __init__(
        self, credential: Credential, port: int, entropy: Entropy, drops: Drops, wall_offset: float
    ) -> None:
        """Serve the pod of ``credential``; peers listen on ``port``.

        ``wall_offset`` is Unix time less monotonic time; set the attribute anew when the clock is corrected.
        """
        self.sessions: dict[int, Session] = {}
        self.current: dict[bytes, Session] = {}
        self.wall_offset = wall_offset
        self.buffer = SealingBuffer()
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self._drops = drops
        self._credential = credential
        self._context = make_context(credential)
        self._port = port
        self._entropy = entropy
        self._timers = Timers()
        self._outbox: list[tuple[bytes, Endpoint]] = []
        self._events: deque[Event] = deque()
        self._by_peer: dict[tuple[Endpoint, int], Session] = {}
        self._pairs: dict[PairKey, Pair] = {}
        self._confirming: dict[int, Exchange] = {}
        self._hints: Counter[int] = Counter()
        self._hints_since = 0.0
        self._calls = Calls(self)
        self._answers = Answers(self, entropy(32))

    # What a driver calls.

    def receive_datagram(self, data_untrusted: memoryview, source: Endpoint, now: float) -> None:
        """Take a datagram that is no record; what is refused is counted."""
        try:
            message = parse_handshake(data_untrusted)
            self.received[KINDS[data_untrusted[0]]] += 1
            match message:
                case Hello():
                    self._answers.receive_hello(message, source, now)
                case Retry():
                    self._calls.receive_retry(message, source, now)
                case Flight():
                    self._receive_flight(message, source, now)
                case Hint():
                    self._receive_hint(message, source, now)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1

    def datagrams_to_send(self) -> list[tuple[bytes, Endpoint]]:
        """Return what is to be sent now, and forget it."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def next_timer(self) -> float | None:
        """Return when `handle_timer` wants to be called, in monotonic seconds."""
        return self._timers.next()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._timers.run(now)

    def next_event(self) -> Event | None:
        """Return the oldest event not yet told."""
        return self._events.popleft() if self._events else None

    # What the data path calls.

    def connect(self, address: bytes, now: float) -> None:
        """Call the pod at a packed address, unless a call to it is under way."""
        self._calls.connect(address, now)

    def first_record(self, session: Session, plain: memoryview, now: float) -> None:
        """Take the first record that opened: now both ends hold the keys, and the pair may move to them.

        The responder's first is DONE with the generation it chose; raises `Dropped` where it is not.
        """
        exchange = self._confirming.pop(session.index, None)
        if isinstance(exchange, Initiator):
            session.generation = _chosen_generation(plain, session.generation)
            self._calls.confirmed(exchange)
        elif isinstance(exchange, Responder):
            self._answers.confirmed(exchange, now)
        session.confirmed = True
        self._events.append(SessionOpened(session))
        self._promote(session, now)
        renew_after = RENEW_AFTER if session.is_initiator else RENEW_AFTER * 1.1
        self._timers.at(now + renew_after, partial(self._renew, session.index))

    def control(self, session: Session, kind: int, now: float) -> None:
        """Act on a control record that opened; unknown kinds are counted."""
        self.received[CONTROL] += 1
        if kind == DONE:
            # Each of them: the CONFIRM that answered the last may be lost.
            self._seal_control(session, CONFIRM, now)
        elif kind == CLOSE:
            self.remove(session, "closed by peer")
        elif kind != CONFIRM:
            self._drops[Drop.UNKNOWN_KIND] += 1

    def remove(self, session: Session, why: str) -> None:
        """Forget a session."""
        if self.sessions.pop(session.index, None) is None:
            return
        self._by_peer.pop((session.endpoint, session.peer_index), None)
        self._confirming.pop(session.index, None)
        for address in session.peer.addresses:
            if self.current.get(address) is session:
                del self.current[address]
        key = pair_key(session.peer)
        pair = self._pairs[key]
        pair.sessions.remove(session)
        if session in pair.retired:
            pair.retired.remove(session)
        if not pair.sessions:
            del self._pairs[key]
        self._events.append(SessionClosed(session, why))

    def hint(self, index: int, counter: int, source: Endpoint, now: float) -> None:
        """Tell the sender of a record that we know no session of its index, at a bounded rate."""
        if now >= self._hints_since + 1:
            self._hints.clear()
            self._hints_since = now
        bucket = hash((source[0], index)) % _HINT_BUCKETS
        if self._hints[bucket] < _HINTS_A_BUCKET:
            self._hints[bucket] += 1
            self.send([Hint(index, counter).encode()], source)

    def close(self, now: float) -> None:
        """Close all sessions in good order: peers need not find out by themselves."""
        for session in list(self.sessions.values()):
            self._seal_control(session, CLOSE, now)
            self.remove(session, "stopped")

    # What calls and answers use.

    def send(self, datagrams: list[bytes], endpoint: Endpoint) -> None:
        """Queue handshake datagrams."""
        for datagram in datagrams:
            self.sent[KINDS.get(datagram[0], CONTROL)] += 1
            self._outbox.append((datagram, endpoint))

    def tell(self, event: Event) -> None:
        """Queue an event; a refusal is counted too."""
        if isinstance(event, HandshakeRefused | CallFailed):
            self._drops[event.refusal.reason] += isinstance(event, HandshakeRefused)
        self._events.append(event)

    def at(self, when: float, callback: Callable[[float], None]) -> None:
        """Call back once at ``when``."""
        self._timers.at(when, callback)

    def new_tls(self, called: bytes | None, now: float) -> TlsEnd:
        """Return a TLS end for one handshake."""
        own, wall = self._credential.own, now + self.wall_offset
        return TlsEnd(self._context, own, called=called, wall=wall)

    def new_index(self) -> int:
        """Return a receiver index that no session or handshake of ours has."""
        while True:
            index = self.random(4)
            if (
                index not in self.sessions
                and not self._calls.uses(index)
                and not self._answers.uses(index)
            ):
                return index

    def random(self, size: int) -> int:
        """Return a random number of ``size`` bytes, never 0."""
        return int.from_bytes(self._entropy(size), "big") or 1

    def next_generation(self, address: bytes) -> int:
        """Return what to propose to the pod at a packed address: more than any session that names it has."""
        named = (s.generation for s in self.sessions.values() if address in s.peer.addresses)
        return max(named, default=0) + 1

    def endpoint_of(self, address: bytes) -> Endpoint:
        """Return where the pod at a packed address listens."""
        return str(ip_address(address)), self._port

    def establish(self, exchange: Exchange, now: float) -> Session:
        """Make the session of a proven handshake; it opens records, and seals nothing but DONE until confirmed."""
        proven, theirs, own = exchange.proven, exchange.theirs, self._credential.own
        if proven is None or theirs is None:
            raise RuntimeError("only a proven handshake makes a session")
        pair = self._pairs.setdefault(pair_key(proven.peer), Pair())
        if exchange.is_initiator:
            generation = exchange.header.generation
        else:
            generation = max(theirs.generation, pair.highest_generation() + 1)
        session = Session(
            exchange.keys(own.fingerprint),
            proven.peer,
            index=exchange.header.index,
            peer_index=theirs.index,
            endpoint=exchange.endpoint,
            generation=generation,
            group=proven.group,
            is_initiator=exchange.is_initiator,
            now=now,
            ends=min(own.not_after, proven.peer.not_after) - self.wall_offset,
            buffer=self.buffer,
        )
        pair.sessions.append(session)
        self.sessions[session.index] = session
        self._by_peer[session.endpoint, session.peer_index] = session
        self._confirming[session.index] = exchange
        self._timers.at(session.ends, partial(self._end, session.index))
        return session

    def seal_done(self, session: Session, now: float) -> None:
        """Tell the initiator, under the new keys, that it is judged, and which generation we chose."""
        self._seal_control(session, DONE, now, session.generation.to_bytes(8, "big"))

    # The rest is our own.

    def _receive_flight(self, flight: Flight, source: Endpoint, now: float) -> None:
        # Ids are random: one of ours as the initiator's means an answer to our call, else somebody calls.
        if self._calls.knows(flight.header.initiator_id):
            self._calls.receive_flight(flight, source, now)
        else:
            self._answers.receive_flight(flight, source, now)

    def _receive_hint(self, hint: Hint, source: Endpoint, now: float) -> None:
        session = self._by_peer.get((source, hint.index))
        if session is None or not session.confirmed or session.retired:
            raise Dropped(Drop.HINT, "no such session")
        recent = 0 <= session.sealer.counter - hint.counter < HINT_WINDOW
        if not recent or not self._pairs[pair_key(session.peer)].heed_hint(now):
            raise Dropped(Drop.HINT, "old or too soon")
        self._call_peer(session, now)

    def _promote(self, session: Session, now: float) -> None:
        """Let a confirmed session seal for the addresses that it is best for; retire whom it displaces."""
        before = {self.current[a] for a in session.peer.addresses if a in self.current}
        for address in session.peer.addresses:
            rival = self.current.get(address)
            if rival is None or _displaces(session, rival):
                self.current[address] = session
        for one in (*before, session):
            if all(self.current.get(address) is not one for address in one.peer.addresses):
                self._retire(one, now)

    def _call_peer(self, session: Session, now: float) -> None:
        sealing = [a for a in session.peer.addresses if self.current.get(a) is session]
        # The address that answered before, where there are two.
        sealing.sort(key=lambda address: self.endpoint_of(address) != session.endpoint)
        if sealing:
            self.connect(sealing[0], now)

    def _renew(self, index: int, now: float) -> None:
        session = self.sessions.get(index)
        if session is not None and not session.retired:
            self._call_peer(session, now)
            self._timers.at(now + RENEW_AGAIN, partial(self._renew, index))

    def _retire(self, session: Session, now: float) -> None:
        evicted = self._pairs[pair_key(session.peer)].retire(session)
        if evicted is not None:
            self.remove(evicted, "replaced")
        self._timers.at(now + RETIRED_LIFE, partial(self._end_retired, session.index))

    def _end_retired(self, index: int, _now: float) -> None:
        session = self.sessions.get(index)
        if session is not None and session.retired:
            self.remove(session, "replaced")

    def _end(self, index: int, now: float) -> None:
        # Timers hold indices, not sessions: what is gone must not keep its memory until then.
        session = self.sessions.get(index)
        if session is not None and now >= session.ends:
            self.remove(session, "ended")

    def _seal_control(self, session: Session, kind: int, now: float, body: bytes = b"") -> None:
        try:
            pieces = session.seal(bytes((kind, 0, 0, 0)) + body, _CONTROL_SIZE, now)
        except Unusable:
            self.remove(session, "ended")
            return
        self.send([bytes(pieces[0])], session.endpoint)


def _chosen_generation(done: memoryview, proposed: int) -> int:
    chosen = int.from_bytes(done[PREFIX : PREFIX + 8], "big")
    if done[0] != DONE or len(done) < PREFIX + 8 or not proposed <= chosen <= LAST_GENERATION:
        raise Dropped(Drop.GENERATION)
    return chosen


def _displaces(session: Session, rival: Session) -> bool:
    """Say which seals: of one pod's sessions the higher rank, of two pods at one address the later issued."""
    if pair_key(session.peer) == pair_key(rival.peer):
        return session.rank > rival.rank
    return session.peer.not_before >= rival.peer.not_before
