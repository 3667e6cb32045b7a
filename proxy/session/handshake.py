"""The two roles of a handshake: TLS flights in FLIGHT datagrams, acknowledged and repeated by our own timer.

Each role has a table per event from state to method; a state that is not in it had no reason for the event,
and the datagram is dropped. Methods return the datagrams to send. A role that has ended says how: `proven` and both
headers for the keys, or `refusal`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum, auto
from typing import ClassVar, Final, Self

from typing_extensions import override

from proxy.credentials.certificate import PodCertificate
from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.cookie import Endpoint
from proxy.session.keys import SessionKeys, derive, export_context
from proxy.session.stream import INITIATOR_LIMIT, RESPONDER_LIMIT, InStream, OutStream
from proxy.session.tls import Proven, TlsEnd
from proxy.session.wire import Flight, FlightHeader, Hello, Retry

FIRST_REPEAT: Final = 0.1
LAST_REPEAT: Final = 0.4
"""Seconds: repetition backs off between these, far above a round trip inside a cluster."""

HANDSHAKE_LIFE: Final = 5.0
"""Seconds until a handshake is given up, at either end."""

PROGRESS: Final = 1.5
"""Seconds without new TLS bytes after which an attempt is given up for another: somebody may have spoilt it."""

_MOST_RETRIES: Final = 4
"""RETRYs an attempt heeds: more than one may be forged, and the genuine one must get through."""


class State(Enum):
    """Where a handshake stands."""

    ASKING = auto()  # initiator: HELLO sent, no cookie yet
    FLIGHTS = auto()  # TLS is talking
    CONFIRMING = auto()  # TLS has finished and the peer is judged; no record has opened yet
    REFUSED = auto()  # ended; repeats its alert when asked


class Exchange:
    """What both roles share: the two TLS streams, the timer, and how the handshake ended."""

    is_initiator: ClassVar[bool]

    def __init__(self, tls: TlsEnd, endpoint: Endpoint, header: FlightHeader, now: float) -> None:
        """Talk to ``endpoint`` with ``header`` in each FLIGHT of ours."""
        self.endpoint = endpoint
        self.header = header
        self.theirs: FlightHeader | None = None
        self.proven: Proven | None = None
        self.refusal: Dropped | None = None
        self.state = State.FLIGHTS
        self.deadline = now + HANDSHAKE_LIFE
        self._progressed = now
        self._tls = tls
        self._out = OutStream()
        self._in = InStream(RESPONDER_LIMIT if self.is_initiator else INITIATOR_LIMIT)
        self._repeat_after = FIRST_REPEAT
        self.timer = now + FIRST_REPEAT

    def handle_timer(self, now: float) -> list[bytes]:
        """Return what to repeat; a handshake past its deadline, or without progress, is refused."""
        stalled = self.is_initiator and now >= self._progressed + PROGRESS
        if now >= self.deadline or stalled:
            self.refusal = self.refusal or Dropped(Drop.HANDSHAKE_TIMEOUT)
            return []
        self._repeat_after = min(2 * self._repeat_after, LAST_REPEAT)
        self.timer = min(now + self._repeat_after, self.deadline)
        return self.repeat()

    @property
    def has_spoken(self) -> bool:
        """Whether TLS has had anything of the peer to answer."""
        return self._out.end > 0

    @property
    def own(self) -> PodCertificate:
        """The certificate that this handshake proves us with: a newer one may have come since."""
        return self._tls.own

    @property
    def era(self) -> int:
        """By which of our roots and revocations the peer was judged."""
        return self._tls.era

    def keys(self) -> SessionKeys:
        """Return the session's keys: only after `proven` is set."""
        if self.proven is None or self.theirs is None:
            raise RuntimeError("no keys before the handshake is proven")
        fingerprints = (self.own.fingerprint, self.proven.peer.fingerprint)
        headers = (self.header, self.theirs)
        if not self.is_initiator:
            fingerprints, headers = fingerprints[::-1], headers[::-1]
        context = export_context(*headers, fingerprints)
        return derive(self.proven.export, context, self.proven.suite, initiator=self.is_initiator)

    def repeat(self) -> list[bytes]:
        """Return what the timer sends again in this state."""
        raise NotImplementedError

    def repeat_missing(self) -> list[bytes]:
        """Return the pieces that the peer has not acknowledged, or the last: an acknowledgement may be forged."""
        return self._flights(self._out.missing() or self._out.last())

    def _flights(self, pieces: list[tuple[int, bytes]]) -> list[bytes]:
        received = self._in.received
        return [self.header.encode(offset, received, piece) for offset, piece in pieces]

    def _acknowledge(self) -> list[bytes]:
        return [self.header.encode(self._out.end, self._in.received, b"")]

    def advance(self, flight: Flight, now: float) -> list[bytes]:
        """Take a FLIGHT whose header was checked: feed TLS, and answer with its bytes or an acknowledgement."""
        self._out.acknowledge(flight.received)
        if not flight.tls:
            return []
        in_order = self._in.add(flight.offset, flight.tls)
        if not in_order:
            return self._acknowledge()
        self._progressed = now
        return self._feed(in_order)

    def _feed(self, tls_untrusted: bytes) -> list[bytes]:
        try:
            self.proven = self._tls.step(tls_untrusted)
        except Dropped as refusal:
            self.refusal, self.state = refusal.with_traceback(None), State.REFUSED
        else:
            if self.proven is not None:
                self.state = State.CONFIRMING
        fresh = self._out.append(self._tls.outgoing())
        if self.proven is not None and not self.is_initiator:
            return []  # DONE says more than an acknowledgement
        return self._flights(fresh) if fresh else self._acknowledge()


class Initiator(Exchange):
    """Calls ``called``; done with a session once a record of the responder opens."""

    is_initiator = True

    def __init__(  # noqa: PLR0913 - everything that an attempt is made of
        self,
        tls: TlsEnd,
        endpoint: Endpoint,
        called: bytes,
        *,
        handshake_id: int,
        index: int,
        generation: int,
        now: float,
    ) -> None:
        """Begin an attempt; `hello` is its first datagram."""
        super().__init__(tls, endpoint, FlightHeader(index, handshake_id, 0, b"", generation), now)
        self.called = called
        self.state = State.ASKING
        self._retries = 0

    def hello(self) -> list[bytes]:
        """Return the HELLO."""
        return [Hello(self.header.initiator_id).encode()]

    def receive_retry(self, retry: Retry) -> list[bytes]:
        """Take a cookie; raises `Dropped` when none is awaited."""
        step = self._ON_RETRY.get(self.state)
        if step is None or self.theirs is not None or self._retries == _MOST_RETRIES:
            raise Dropped(Drop.UNKNOWN_HANDSHAKE, "RETRY")
        if retry.cookie == self.header.cookie:
            return []
        self._retries += 1
        self.header = replace(self.header, cookie=retry.cookie)
        return step(self)

    def receive_flight(self, flight: Flight, now: float) -> list[bytes]:
        """Take a FLIGHT of the responder; raises `Dropped` where it is not part of this handshake."""
        step = self._ON_FLIGHT.get(self.state)
        if step is None:
            raise Dropped(Drop.UNKNOWN_HANDSHAKE, "FLIGHT")
        if self.theirs is None and not flight.tls:
            # It would bind us to a header for nothing: an honest first acknowledgement is no loss.
            return []
        self._check_header(flight.header)
        return step(self, flight, now)

    def _check_header(self, header: FlightHeader) -> None:
        if self.theirs is None:
            offered = self.header
            echoed = (header.newest, header.oldest) == (offered.newest, offered.oldest)
            within = echoed and not header.generation and not header.features & ~offered.features
            if not header.responder_id or not within:
                raise Dropped(Drop.HANDSHAKE_MISMATCH, "chosen outside the offer")
            self.theirs = header
            self.header = replace(self.header, responder_id=header.responder_id)
        elif header != self.theirs:
            raise Dropped(Drop.HANDSHAKE_MISMATCH)

    def _begin_tls(self) -> list[bytes]:
        self.state = State.FLIGHTS
        return self._feed(b"")

    def _hear_refusal(self, flight: Flight, _now: float) -> list[bytes]:
        # Only now can the responder have judged our certificate; its alert is in its TLS stream.
        self._out.acknowledge(flight.received)
        in_order = self._in.add(flight.offset, flight.tls)
        try:
            if in_order:
                self._tls.read_refusal(in_order)
        except Dropped as refusal:
            self.refusal, self.state = refusal.with_traceback(None), State.REFUSED
        return []

    _ON_RETRY: ClassVar[Mapping[State, Callable[["Initiator"], list[bytes]]]] = {
        State.ASKING: _begin_tls,
        State.FLIGHTS: Exchange.repeat_missing,
    }
    _ON_FLIGHT: ClassVar[Mapping[State, Callable[["Initiator", Flight, float], list[bytes]]]] = {
        State.FLIGHTS: Exchange.advance,
        State.CONFIRMING: _hear_refusal,
    }
    _ON_TIMER: ClassVar[Mapping[State, Callable[["Initiator"], list[bytes]]]] = {
        State.ASKING: hello,
        State.FLIGHTS: Exchange.repeat_missing,
        State.CONFIRMING: Exchange.repeat_missing,  # the last piece asks for a lost DONE
    }

    @override
    def repeat(self) -> list[bytes]:
        step = self._ON_TIMER.get(self.state)
        return step(self) if step else []


class Responder(Exchange):
    """Answers a FLIGHT with a good cookie; done with a session once a record of the initiator opens."""

    is_initiator = False

    @classmethod
    def answer(  # noqa: PLR0913 - everything that a handshake is made of
        cls,
        tls: TlsEnd,
        endpoint: Endpoint,
        first: FlightHeader,
        *,
        responder_id: int,
        index: int,
        now: float,
    ) -> Self:
        """Begin for an initiator whose address the cookie in ``first`` has proved."""
        header = FlightHeader(
            index,
            first.initiator_id,
            responder_id,
            first.cookie,
            newest=first.newest,
            oldest=first.oldest,
        )
        responder = cls(tls, endpoint, header, now)
        responder.theirs = replace(first, responder_id=0)
        return responder

    def receive_flight(self, flight: Flight, now: float) -> list[bytes]:
        """Take a FLIGHT of the initiator; raises `Dropped` where it contradicts its first."""
        named = flight.header.responder_id
        if named not in {0, self.header.responder_id}:
            raise Dropped(Drop.HANDSHAKE_MISMATCH)
        if replace(flight.header, responder_id=0) != self.theirs:
            raise Dropped(Drop.HANDSHAKE_MISMATCH)
        return self._ON_FLIGHT[self.state](self, flight, now)

    def _leave_to_done(self, _flight: Flight, _now: float) -> list[bytes]:
        # A repeated last flight: the caller seals DONE again.
        return []

    def _repeat_alert(self, flight: Flight, _now: float) -> list[bytes]:
        # The last piece alone: who makes us send must not make us send many times what he does.
        return self._flights(self._out.last()) if flight.tls else []

    _ON_FLIGHT: ClassVar[Mapping[State, Callable[["Responder", Flight, float], list[bytes]]]] = {
        State.FLIGHTS: Exchange.advance,
        State.CONFIRMING: _leave_to_done,
        State.REFUSED: _repeat_alert,
    }

    @override
    def repeat(self) -> list[bytes]:
        # In CONFIRMING the caller repeats DONE; in REFUSED the initiator has to ask.
        return self.repeat_missing() if self.state is State.FLIGHTS else []
