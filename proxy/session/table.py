"""All sessions of a pod, driven by five plain calls with ``now`` passed in.

`receive_datagram`, `datagrams_to_send`, `next_timer`, `handle_timer` and `next_event`; besides these, the data
path reads `current` and `sessions` directly and calls `first_record`, `control` and `hint` for what records say.
"""

from collections import Counter
from functools import partial
from typing import Final

from proxy.credentials.credential import Credential
from proxy.credentials.trust import Revocations
from proxy.drops import Drop, Drops
from proxy.errors import Dropped
from proxy.session.answers import Answers
from proxy.session.calls import Calls
from proxy.session.cookie import Endpoint
from proxy.session.events import Event, ListsHeard, RendezvousDone, SessionOpened, VerifyHeard
from proxy.session.handshake import Initiator, Responder
from proxy.session.pair import LAST_GENERATION, pair_key
from proxy.session.path_size import PathSize
from proxy.session.profile import DEFAULT_PROFILE, TlsProfile
from proxy.session.registry import CONTROL, KINDS, Entropy, Registry
from proxy.session.session import RETIRED_LIFE, Session
from proxy.session.upkeep import Upkeep
from proxy.session.wire import (
    CLOSE,
    CONFIRM,
    DONE,
    LISTS,
    NONCE,
    PING,
    PONG,
    PONG_SIZE,
    PONG_STRUCT,
    PREFIX,
    VERIFY,
    Flight,
    Hello,
    Hint,
    Retry,
    parse_handshake,
)

HINT_WINDOW: Final = 1 << 16
"""Counters behind the last sent that a HINT may name: a receiver's full buffer holds thousands."""

_COUNT: Final = (1 << 32) - 1

_HINT_BUCKETS: Final = 1024
_HINTS_A_BUCKET: Final = 4
"""HINTs a second for addresses of one hash: a flood by one address does not silence the others."""


class SessionTable:
    """Who we talk to, and how: handshakes both ways, sessions by receiver index and by peer's address."""

    def __init__(  # noqa: PLR0913 - what differs from pod to pod
        self,
        credential: Credential,
        port: int,
        entropy: Entropy,
        drops: Drops,
        *,
        wall_offset: float,
        largest: int,
        profile: TlsProfile = DEFAULT_PROFILE,
    ) -> None:
        """Serve the pod of ``credential``; peers listen on ``port``.

        ``entropy`` gives random bytes; ``wall_offset`` is Unix time less monotonic time, and is set anew when
        the clock is corrected; ``largest`` is how many bytes of UDP payload the interface takes; ``profile`` is
        what TLS may agree on.
        """
        self.profile = profile
        self._registry = Registry(
            credential,
            port,
            entropy,
            drops,
            wall_offset=wall_offset,
            largest=largest,
            profile=profile,
        )
        self.sessions = self._registry.sessions
        self.current = self._registry.current
        self.sent = self._registry.sent
        self.totals = self._registry.totals
        self.received: Counter[str] = Counter()
        self._drops = drops
        self._hints: Counter[int] = Counter()
        self._hints_since = 0.0
        self._calls = Calls(self._registry)
        self._answers = Answers(self._registry, entropy(32))
        self._upkeep = Upkeep(self._registry, self._calls.connect)

    @property
    def wall_offset(self) -> float:
        """Unix time less monotonic time, as handshakes use it."""
        return self._registry.wall_offset

    @wall_offset.setter
    def wall_offset(self, seconds: float) -> None:
        self._registry.wall_offset = seconds

    @property
    def half_open(self) -> int:
        """How many handshakes that others began are under way, or were refused a moment ago."""
        return self._answers.half_open

    @property
    def calls(self) -> int:
        """How many addresses are being called."""
        return self._calls.under_way

    def can_prove(self, now: float) -> bool:
        """Say whether our own certificate is good now."""
        return self._registry.can_prove(now)

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
        outbox, self._registry.outbox = self._registry.outbox, []
        return outbox

    def next_timer(self) -> float | None:
        """Return when `handle_timer` wants to be called, in monotonic seconds."""
        return self._registry.timers.next()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._registry.timers.run(now)

    @property
    def has_news(self) -> bool:
        """Say whether events or datagrams wait: asked after each packet."""
        return bool(self._registry.events or self._registry.outbox)

    def next_event(self) -> Event | None:
        """Return the oldest event not yet told."""
        return self._registry.events.popleft() if self._registry.events else None

    # What the owner of credentials, and people, call.

    def adopt(self, credential: Credential, now: float) -> None:
        """Use ``credential`` from now on: judge all peers by its roots; if its certificate is new, show it to each."""
        if self._registry.adopt(credential, now):
            self._upkeep.renew_soon(self.current.values(), now)

    @property
    def revoked(self) -> Revocations:
        """What the project has withdrawn, as far as it was told to us."""
        return self._registry.revoked

    def revoke(self, revoked: Revocations, now: float) -> None:
        """Close the sessions of whom the list names, and open none; it stands in the place of the former."""
        self._registry.revoke(revoked, now)

    @property
    def informed_until(self) -> float:
        """Monotonic time until which handshakes are made: from then on we may not know who was withdrawn."""
        return self._registry.informed_until

    @informed_until.setter
    def informed_until(self, seconds: float) -> None:
        self._registry.informed_until = seconds

    def renew(self, now: float, pod: str | None = None) -> list[Session]:
        """Begin a handshake beside each session that seals, or beside those with ``pod``; return these sessions."""
        return self._upkeep.renew_now(now, pod)

    # What the data path calls.

    def connect(self, address: bytes, now: float, *, rendezvous: bool = False) -> None:
        """Call the pod at a packed address, unless a call to it is under way.

        ``rendezvous``: the address may be a Service's, so any pod of the project may answer; one whose certificate does
        not name it ends the call with `RendezvousDone` too.
        """
        self._calls.connect(address, now, rendezvous=rendezvous)

    def first_record(self, session: Session, plain: memoryview, now: float) -> None:
        """Take the first record that opened: now both ends hold the keys, and the pair may move to them.

        The responder's first is DONE with the generation it chose; raises `Dropped` where it is not.
        """
        exchange = self._registry.confirming[session.index]
        if isinstance(exchange, Initiator):
            session.generation = _chosen_generation(plain)
            self._calls.confirmed(exchange)
        elif isinstance(exchange, Responder):
            self._answers.confirmed(exchange, now)
        del self._registry.confirming[session.index]
        session.confirmed = True
        self._registry.tell(SessionOpened(session))
        self._inherit_size(session, now)
        self._promote(session, now)
        if isinstance(exchange, Initiator) and exchange.called not in session.peer.addresses:
            self._registry.tell(RendezvousDone(exchange.called, session))
        self._upkeep.begin(session, now)
        if self._registry.has_newer(exchange.own):
            self._upkeep.renew_soon([session], now)

    def control(self, session: Session, plain: memoryview, source: Endpoint, now: float) -> None:
        """Act on a control record that opened (prefix and body); raises `Dropped` for what is none for us."""
        kind, body = plain[0], bytes(plain[PREFIX : PREFIX + PONG_SIZE])
        self.received[CONTROL] += 1
        if kind in {PING, PONG} and len(body) < NONCE:
            raise Dropped(Drop.PACKET_MALFORMED, "PING or PONG without its 8 bytes")
        if kind == DONE and session.is_initiator:
            # Each of them: the CONFIRM that answered the last may be lost.
            self._registry.seal_control(session, CONFIRM, now)
        elif kind == PING:
            # Where it came from: its sender may be asking whether that address is reached.
            session.opener.expire(now)
            counts = session.opener.large & _COUNT, session.opener.incomplete & _COUNT
            answer = PONG_STRUCT.pack(body[:NONCE], *counts)
            self._registry.seal_control(session, PONG, now, answer, source)
            if source != session.endpoint:
                # Who sends a copy from an address of his own must not take the answer away.
                self._registry.seal_control(session, PONG, now, answer)
        elif kind == PONG:
            self._upkeep.answered(session, body, now)
        elif kind == CLOSE:
            self.remove(session, "closed by peer")
        elif kind == VERIFY:
            self._registry.tell(VerifyHeard(session, bytes(plain[PREFIX:])))
        elif kind == LISTS:
            self._registry.tell(ListsHeard(session, bytes(plain[PREFIX:])))
        elif kind != CONFIRM or session.is_initiator:
            raise Dropped(Drop.UNKNOWN_KIND, "in general, or from its sender's role")

    def verify(self, session: Session, body: bytes, now: float) -> None:
        """Send a VERIFY record; `proxy.verify.messages` knows its bodies."""
        self._registry.seal_control(session, VERIFY, now, body)

    def lists(self, session: Session, body: bytes, now: float) -> None:
        """Send a LISTS record; `proxy.lists.messages` knows its bodies."""
        self._registry.seal_control(session, LISTS, now, body)

    def ask_loss(self, session: Session, now: float) -> None:
        """Ask what became of the records of several datagrams; when `RecordLimit.due` has come and one is sent."""
        self._upkeep.ask_loss(session, now)

    def heard_from(self, session: Session, source: Endpoint, now: float) -> None:
        """Note that a session's record came from another address than the one in use."""
        self._upkeep.heard_from(session, source, now)

    def remove(self, session: Session, why: str) -> None:
        """Forget a session, as at the end of its life."""
        self._registry.remove(session, why)

    def hint(self, index: int, counter: int, source: Endpoint, now: float) -> None:
        """Tell the sender of a record that we know no session of its index, at a bounded rate."""
        if now >= self._hints_since + 1:
            self._hints.clear()
            self._hints_since = now
        bucket = hash(source[0]) % _HINT_BUCKETS
        if self._hints[bucket] < _HINTS_A_BUCKET:
            self._hints[bucket] += 1
            self._registry.send([Hint(index, counter).encode()], source)

    def close(self, now: float) -> None:
        """Close all sessions in good order: peers need not find out by themselves."""
        for session in list(self.sessions.values()):
            self._registry.seal_control(session, CLOSE, now)
            self.remove(session, "stopped")

    # The rest is our own.

    def _receive_flight(self, flight: Flight, source: Endpoint, now: float) -> None:
        # Ids are random: one of ours, from whom we called, means an answer to our call; else somebody calls, who may be
        # ourselves by way of a Service.
        if self._calls.knows(flight.header.initiator_id, source):
            self._calls.receive_flight(flight, source, now)
        else:
            self._answers.receive_flight(flight, source, now)

    def _receive_hint(self, hint: Hint, source: Endpoint, now: float) -> None:
        session = self._registry.by_peer.get((source, hint.index))
        if session is None or not session.confirmed or session.retired:
            raise Dropped(Drop.HINT, "no such session")
        recent = 0 <= session.sealer.counter - hint.counter < HINT_WINDOW
        if not recent or not self._registry.pairs[pair_key(session.peer)].heed_hint(now):
            raise Dropped(Drop.HINT, "old or too soon")
        self._upkeep.call(session, now)

    def _inherit_size(self, session: Session, now: float) -> None:
        for address in session.peer.addresses:
            former = self.current.get(address)
            if former is not None and former.endpoint == session.endpoint:
                session.path = PathSize(self._registry.largest, now, former.path.size)
                session.limit = former.limit
                session.limit.begin_again()

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

    def _retire(self, session: Session, now: float) -> None:
        evicted = self._registry.pairs[pair_key(session.peer)].retire(session)
        if evicted is not None:
            self.remove(evicted, "replaced")
        self._registry.timers.at(now + RETIRED_LIFE, partial(self._end_retired, session.index))

    def _end_retired(self, index: int, _now: float) -> None:
        session = self.sessions.get(index)
        if session is not None and session.retired:
            self.remove(session, "replaced")


def _chosen_generation(done: memoryview) -> int:
    # One below an older session's spoils only its own session, and may be honest: handshakes cross.
    chosen = int.from_bytes(done[PREFIX : PREFIX + 8], "big")
    if done[0] != DONE or len(done) < PREFIX + 8 or not 0 < chosen <= LAST_GENERATION:
        raise Dropped(Drop.GENERATION)
    return chosen


def _displaces(session: Session, rival: Session) -> bool:
    """Say which seals: of one pod's sessions the higher rank, of two pods at one address the later issued."""
    if pair_key(session.peer) == pair_key(rival.peer):
        return session.rank > rival.rank
    return session.peer.not_before >= rival.peer.not_before
