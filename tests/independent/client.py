"""A pod's end of the session protocol, written from docs/protocol.md alone: blocking, one socket.

It calls and is called, sends and receives inner packets, and answers what it must:

    pod = Client(socket, credential)
    session = pod.call("10.77.0.11")
    pod.send(session, PACKET, inner_packet)
    pod.wait_for("the answer", lambda: bool(session.packets))

It keeps no timers but those of handshakes: no keep-alive, renewal or path search of its own. It
answers about loss and does not ask. It counts no blocks under a key, limits neither HINTs nor
handshakes, and hands inner packets to nobody who would obey them: it filters by address alone.
"""

import hashlib
import hmac
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from independent.handshake import ANSWER_SECONDS, ATTEMPT_SECONDS, Answer, Attempt
from independent.identity import Credential, Peer, Refused
from independent.packets import ecn, packet_addresses, packets_of
from independent.records import Dropped, Opened, Opener, Sealer
from independent.wire import (
    CLOSE,
    CONFIRM,
    COOKIE_BYTES,
    DONE,
    PACKET,
    PING,
    PONG,
    Flight,
    Hello,
    Hint,
    Record,
    Retry,
    WireError,
    parse,
)

CALL_SECONDS: Final = 5.0
COOKIE_SECONDS: Final = 10.0
LEAST_SIZE: Final = 1200
TUNNEL_MTU: Final = 1408  # of an interface of 1,500: less 48, a record's header, prefix and tag
FIRST_PAUSE: Final = 0.25
WAIT_SECONDS: Final = 15.0
TICK: Final = 0.02
LAST_GENERATION: Final = (1 << 63) - 1

TYPE_OF_SERVICE: Final = (socket.IPPROTO_IP, socket.IP_TOS)
TRAFFIC_CLASS: Final = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)

Endpoint = tuple[str, int]


@dataclass
class Session:
    """What both ends share, and what came over it: packets and bodies of PINGs and PONGs.

    A super-packet comes as the packets that it stands for. `marks` are the ECN fields outside each
    packet, not yet combined with the one inside; `prefixes` are flags and segment size of each
    PACKET record.
    """

    peer: Peer
    endpoint: Endpoint
    initiator: bool
    generation: int
    id: bytes
    sealer: Sealer
    opener: Opener
    confirmed: bool = False
    closed: bool = False
    packets: list[bytes] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    prefixes: list[tuple[int, int]] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)


class Client:
    """One pod on `bound`, a UDP socket at the session port."""

    def __init__(
        self, bound: socket.socket, credential: Credential, size: int = LEAST_SIZE
    ) -> None:
        self.credential = credential
        self.own = credential.own
        self.size = size
        self.mtu = TUNNEL_MTU
        # What a call offers, and what is chosen when called: version 1 knows no feature.
        self.offer = Flight(0, bytes(8))
        self.choice = 0
        self.sessions: dict[int, Session] = {}
        self.hints: list[Hint] = []
        self.dropped: Counter[str] = Counter()
        # What a network may do: which datagrams reach us, and which leave, in what order.
        self.takes: Callable[[bytes], bool] = lambda _: True
        self.arrange: Callable[[list[bytes]], Iterable[bytes]] = list
        self.move(bound)
        self._secret = os.urandom(32)
        self._calls: dict[bytes, tuple[Endpoint, Attempt]] = {}
        self._answers: dict[tuple[Endpoint, bytes], Answer] = {}
        self._ended: set[tuple[Endpoint, bytes]] = set()

    # What a program asks for.

    def call(
        self, address: str, generation: int | None = None, seconds: float = CALL_SECONDS
    ) -> Session:
        """Make a session with the pod at `address`, in attempts; `Refused` or `TimeoutError`."""
        endpoint = (address, int(self._socket.getsockname()[1]))
        if generation is None:
            of = [s.generation for s in self.sessions.values() if address in s.peer.addresses]
            generation = 1 + max(of, default=0)
        offer = replace(self.offer, generation=generation)
        give_up, pause = _now() + seconds, FIRST_PAUSE
        while True:
            attempt = Attempt(self.credential, address, offer, _now())
            session = self._try(attempt, endpoint)
            if session:
                return session
            if _now() + pause > give_up:
                raise Refused(attempt.refused) if attempt.refused else TimeoutError(address)
            self.listen(pause)
            pause *= 2

    def accept(self, seconds: float = WAIT_SECONDS) -> Session:
        """Wait until somebody has called us and return that session, confirmed."""
        known = set(self.sessions)

        def fresh() -> list[Session]:
            return [s for i, s in self.sessions.items() if i not in known and s.confirmed]

        self.wait_for("a call", lambda: bool(fresh()), seconds)
        return fresh()[0]

    def send(
        self,
        session: Session,
        kind: int,
        body: bytes = b"",
        flags: int = 0,
        segment_size: int = 0,
    ) -> list[bytes]:
        """Seal one record to the session's peer, and return its datagrams as they left."""
        datagrams = session.sealer.seal(kind, body, self.size, flags, segment_size)
        self.transmit(datagrams, session.endpoint, ecn(body) if kind == PACKET else 0)
        return datagrams

    def close(self, session: Session) -> None:
        self.send(session, CLOSE)
        self.forget(session)

    def move(self, bound: socket.socket) -> None:
        """Go on from another address."""
        self._socket = bound
        self._mark = 0
        wide = bound.family == socket.AF_INET6
        bound.setsockopt(
            socket.IPPROTO_IPV6 if wide else socket.IPPROTO_IP,
            socket.IPV6_RECVTCLASS if wide else socket.IP_RECVTOS,
            1,
        )

    def forget(self, session: Session) -> None:
        """Lose a session without a word, as a restarted pod does."""
        self.sessions = {i: s for i, s in self.sessions.items() if s is not session}

    def wait_for(self, what: str, holds: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """Serve until `holds()`; `TimeoutError` after so many seconds."""
        give_up = _now() + seconds
        while not holds():
            if _now() > give_up:
                raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
            self._repeat_what_is_due()
            self._receive_one()

    def listen(self, seconds: float) -> None:
        """Serve for so long."""
        until = _now() + seconds
        self.wait_for("time to pass", lambda: _now() >= until, seconds + 1)

    # Handshakes (sections 3, 4 and 7).

    def _try(self, attempt: Attempt, endpoint: Endpoint) -> Session | None:
        def over() -> bool:
            session = self.sessions.get(attempt.header.index)
            late = _now() > attempt.heard_at + ATTEMPT_SECONDS
            return late or bool(attempt.refused) or (session is not None and session.confirmed)

        self._calls[attempt.header.initiator] = (endpoint, attempt)
        self.transmit(attempt.hello(), endpoint)
        self.wait_for("the end of an attempt", over, CALL_SECONDS)
        del self._calls[attempt.header.initiator]
        session = self.sessions.get(attempt.header.index)
        if session and not session.confirmed:
            self.forget(session)
            return None
        return session

    def _on_hello(self, hello: Hello, source: Endpoint) -> None:
        cookie = self._cookie(hello.handshake, source, 0)
        self.transmit([Retry(hello.handshake, cookie).encode()], source)

    def _cookie(self, handshake: bytes, source: Endpoint, age: int) -> bytes:
        """Ours: an HMAC over source, id and a count of 10 s, this one or `age` before it."""
        slot = int(_now() / COOKIE_SECONDS) - age
        text = f"{source[0]} {source[1]} {slot} {handshake.hex()}".encode("ascii")
        return hmac.digest(self._secret, text, hashlib.sha256)[:COOKIE_BYTES]

    def _on_retry(self, retry: Retry, source: Endpoint) -> None:
        endpoint, attempt = self._calls.get(retry.handshake, (None, None))
        if attempt and endpoint == source:
            self.transmit(attempt.retry(retry, _now()), source)

    def _on_flight(self, flight: Flight, source: Endpoint) -> None:
        if flight.initiator in self._calls:
            endpoint, attempt = self._calls[flight.initiator]
            if endpoint == source:
                self.transmit(attempt.take(flight, _now()), source)
                self._begin_session(attempt, source, attempt.header.generation)
            return
        key = (source, flight.initiator)
        if flight.cookie not in {self._cookie(flight.initiator, source, age) for age in (0, 1)}:
            return
        if key not in self._answers:
            if not flight.data or flight.responder != bytes(8) or key in self._ended:
                return
            self._answers[key] = Answer(self.credential, flight, self.choice, _now())
        answer = self._answers[key]
        answers = answer.take(flight, _now())
        self._begin_session(answer, source, self._generation(answer, flight.generation))
        if answer.keys and not flight.data:
            return
        self.transmit(self._done(answer) if answer.keys else answers, source)

    def _begin_session(self, talk: Attempt | Answer, source: Endpoint, generation: int) -> None:
        if talk.keys is None or talk.peer is None or talk.begun:
            return
        talk.begun = True
        calling = isinstance(talk, Attempt)
        ways = (talk.keys.initiator, talk.keys.responder)
        seals, opens = ways if calling else reversed(ways)
        assert talk.theirs is not None
        self.sessions[talk.header.index] = Session(
            *(talk.peer, source, calling, generation, talk.keys.session),
            *(Sealer(seals, talk.theirs.index), Opener(opens)),
        )

    def _generation(self, answer: Answer, proposed: int) -> int:
        """Choose as responder. A session of ours that is not confirmed yet counts as proposed."""
        ours = [s.generation for s in self.sessions.values() if s.peer.same_pod(answer.peer)]
        return max(proposed if proposed < LAST_GENERATION else 0, 1, *(1 + n for n in ours))

    def _done(self, answer: Answer) -> list[bytes]:
        session = self.sessions.get(answer.header.index)
        if session is None:  # closed or forgotten meanwhile
            return []
        return session.sealer.seal(DONE, session.generation.to_bytes(8, "big"))

    def _repeat_what_is_due(self) -> None:
        now = _now()
        for endpoint, attempt in self._calls.values():
            if attempt.pace.passed(now):
                self.transmit(attempt.repeat(), endpoint)
        for key, answer in list(self._answers.items()):
            session = self.sessions.get(answer.header.index)
            over = session.confirmed if session else answer.begun
            if over or now > answer.began + ANSWER_SECONDS:
                del self._answers[key]
                self._ended.add(key)
                if session and not session.confirmed:
                    self.forget(session)
            elif answer.pace.passed(now):
                self.transmit(self._done(answer) if answer.keys else answer.missing(), key[0])

    # Records (sections 7 to 9).

    def _on_record(self, record: Record, source: Endpoint) -> None:
        session = self.sessions.get(record.index)
        if session is None:
            self.transmit([Hint(record.index, record.counter).encode()], source)
            return
        if not session.confirmed and source != session.endpoint:
            raise Dropped("source")
        opened = session.opener.open(record, _now())
        if opened:
            self._on_opened(session, opened, source)

    def _on_opened(self, session: Session, opened: Opened, source: Endpoint) -> None:
        kind, body = opened.kind, opened.body
        if session.initiator and not session.confirmed:
            generation = int.from_bytes(body[:8], "big")
            if kind != DONE or not 0 < generation <= LAST_GENERATION:
                raise Dropped("generation")
            session.generation = generation
        session.confirmed = True
        if kind in (PING, PONG) and len(body) < 8:
            raise Dropped("PING or PONG")
        if kind == DONE and session.initiator:
            self.send(session, CONFIRM)
        elif kind == PACKET:
            self._on_packet(session, opened)
        elif kind == CLOSE:
            session.closed = True
            self.forget(session)
        elif kind == PING:
            session.pings.append(body)
            self._pong(session, body[:8], source)
        elif kind == PONG:
            session.pongs.append(body)

    def _pong(self, session: Session, asked: bytes, source: Endpoint) -> None:
        session.opener.give_up(_now())
        counts = (session.opener.whole, session.opener.given_up)
        body = asked + b"".join((count & 0xFFFF_FFFF).to_bytes(4, "big") for count in counts)
        for endpoint in dict.fromkeys((source, session.endpoint)):
            self.transmit(session.sealer.seal(PONG, body), endpoint)

    def _on_packet(self, session: Session, opened: Opened) -> None:
        source, destination = packet_addresses(opened.body)
        if source not in session.peer.addresses or destination not in self.own.addresses:
            raise Dropped("address")
        packets = packets_of(opened.body, opened.flags, opened.segment_size, self.mtu)
        session.prefixes.append((opened.flags, opened.segment_size))
        session.packets += packets
        session.marks += [self._mark] * len(packets)

    # The socket.

    def transmit(self, datagrams: list[bytes], endpoint: Endpoint, mark: int = 0) -> None:
        """Let datagrams leave as they are, with `mark` as the ECN field of their IP headers."""
        field = TRAFFIC_CLASS if self._socket.family == socket.AF_INET6 else TYPE_OF_SERVICE
        marked = [(*field, struct.pack("i", mark))]
        for datagram in self.arrange(datagrams):
            self._socket.sendmsg([datagram], marked, 0, endpoint)

    def _receive_one(self) -> None:
        self._socket.settimeout(TICK)
        try:
            data, marks, _, (host, port, *_) = self._socket.recvmsg(1 << 16, 64)
        except TimeoutError:
            return
        self._mark = marks[0][2][0] & 3 if marks else 0
        if not self.takes(data):
            return
        try:
            self._on_datagram(data, (host, port))
        except (WireError, Dropped) as reason:
            self.dropped[str(reason)] += 1

    def _on_datagram(self, data_untrusted: bytes, source: Endpoint) -> None:
        match parse(data_untrusted):
            case Hello() as hello:
                self._on_hello(hello, source)
            case Retry() as retry:
                self._on_retry(retry, source)
            case Flight() as flight:
                self._on_flight(flight, source)
            case Record() as record:
                self._on_record(record, source)
            case Hint() as hint:
                self.hints.append(hint)


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - a program of its own, with its own clock
