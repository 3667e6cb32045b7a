"""What handshakes and sessions share: who lives, what is to be sent, told and done later, and who we are.

`proxy.session.table` is the only door to it from outside; calls and answers work on it.
"""

from collections import Counter, deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from proxy.credentials.certificate import PodCertificate
from proxy.credentials.credential import Credential
from proxy.credentials.judge import judge_chain
from proxy.credentials.trust import NONE_REVOKED, Revocations, verify_again
from proxy.drops import Drop, Drops
from proxy.errors import Dropped, Unusable
from proxy.session.cookie import Endpoint
from proxy.session.events import Event, HandshakeRefused, SessionClosed
from proxy.session.handshake import Exchange
from proxy.session.pair import LAST_GENERATION, Pair, PairKey, pair_key
from proxy.session.path_size import PathSize
from proxy.session.pieces import SealingBuffer
from proxy.session.profile import TlsProfile
from proxy.session.session import Session
from proxy.session.timers import Timers
from proxy.session.tls import TlsEnd, make_context
from proxy.session.totals import Totals
from proxy.session.wire import DONE, FLIGHT, HELLO, HINT, NONCE, RECORD_OVERHEAD, RETRY

Entropy = Callable[[int], bytes]
"""Gives that many random bytes: the kernel's in a pod, seeded in a simulation."""

KINDS: Final = {HELLO: "hello", RETRY: "retry", FLIGHT: "flight", HINT: "hint"}
CONTROL: Final = "control"

MOST_SESSIONS: Final = 4096
"""In all, about 20 KB each: a project of a thousand pods, each of which may hold four (`MOST_RETIRED` and one)."""


class Registry:
    """Live sessions by receiver index, by peer's index and by pod; outbox, events and timers."""

    def __init__(  # noqa: PLR0913 - as `SessionTable`
        self,
        credential: Credential,
        port: int,
        entropy: Entropy,
        drops: Drops,
        *,
        wall_offset: float,
        largest: int,
        profile: TlsProfile,
    ) -> None:
        """Begin without sessions; see `SessionTable` for the parameters."""
        self.largest = largest
        self.sessions: dict[int, Session] = {}
        self.by_peer: dict[tuple[Endpoint, int], Session] = {}
        self.pairs: dict[PairKey, Pair] = {}
        self.confirming: dict[int, Exchange] = {}
        """By receiver index: handshakes whose session has opened no record yet."""
        self.current: dict[bytes, Session] = {}
        """By packed address: the session that seals for it."""
        self.wall_offset = wall_offset
        self.timers = Timers()
        self.outbox: list[tuple[bytes, Endpoint]] = []
        self.events: deque[Event] = deque()
        self.sent: Counter[str] = Counter()
        self.totals = Totals()
        self.drops = drops
        self._credential = credential
        self._profile = profile
        self._context = make_context(credential, profile)
        self.revoked = NONE_REVOKED
        self.informed_until = float("inf")
        self._era = 0  # how often roots or revocations have changed
        self._port = port
        self._entropy = entropy
        self._buffer = SealingBuffer()

    def send(self, datagrams: list[bytes], endpoint: Endpoint) -> None:
        """Queue handshake datagrams and control records."""
        for datagram in datagrams:
            self.sent[KINDS.get(datagram[0], CONTROL)] += 1
            self.outbox.append((datagram, endpoint))

    def tell(self, event: Event) -> None:
        """Queue an event, and count it; a refusal is a drop too."""
        self.totals.hear(event)
        if isinstance(event, HandshakeRefused):
            self.drops[event.refusal.reason] += 1
        self.events.append(event)

    def new_tls(self, called: bytes | None, now: float, *, anybody: bool = False) -> TlsEnd:
        """Return a TLS end for one handshake: to the packed address ``called``, or as a responder.

        ``anybody`` of the project may answer, whose certificate need not name the address.
        """
        own, wall = self._credential.own, now + self.wall_offset
        return TlsEnd(
            self._context,
            own,
            called=called,
            anybody=anybody,
            wall=wall,
            revoked=self.revoked,
            profile=self._profile,
            era=self._era,
        )

    def adopt(self, credential: Credential, now: float) -> bool:
        """Prove ourselves by ``credential`` and believe its roots from now on; say whether the certificate is new."""
        former = self._credential.own
        self._context = make_context(credential, self._profile)
        self._credential = credential
        self._era += 1
        self._close_refused(now)
        return self.has_newer(former)

    def has_newer(self, own: PodCertificate) -> bool:
        """Say whether a certificate of ours, which a handshake began with, is no longer the one in use."""
        return own.fingerprint != self._credential.own.fingerprint

    def can_prove(self, now: float) -> bool:
        """Say whether our own certificate is good now: with one that has ended, every handshake is in vain."""
        own = self._credential.own
        return own.not_before <= now + self.wall_offset < own.not_after

    def check_able(self, now: float) -> None:
        """Raise `Dropped` where a handshake would be in vain, or might let in who is withdrawn."""
        if not self.can_prove(now):
            raise Dropped(Drop.CERTIFICATE_TIME, "our own")
        if now >= self.informed_until:
            raise Dropped(Drop.LIST_STALE)

    def revoke(self, revoked: Revocations, now: float) -> None:
        """Believe nobody of this list, which stands in the place of the former."""
        self.revoked = revoked
        self._era += 1
        self._close_refused(now)

    def new_index(self) -> int:
        """Return a random receiver index that no session of ours has."""
        while (index := self.random(4)) in self.sessions:
            pass
        return index

    def random(self, size: int) -> int:
        """Return a random number of ``size`` bytes, never 0."""
        return int.from_bytes(self._entropy(size), "big") or 1

    def fraction(self) -> float:
        """Return a random number from 0 up to 1."""
        return int.from_bytes(self._entropy(4), "big") / (1 << 32)

    def nonce(self) -> bytes:
        """Return what a PING asks to be repeated."""
        return self._entropy(NONCE)

    def next_generation(self, address: bytes) -> int:
        """Return what to propose to the pod at a packed address: more than any session that names it has."""
        named = (s.generation for s in self.sessions.values() if address in s.peer.addresses)
        return max(named, default=0) + 1

    def endpoint_of(self, address: bytes) -> Endpoint:
        """Return where the pod at a packed address listens."""
        return str(ip_address(address)), self._port

    def establish(self, exchange: Exchange, now: float) -> Session:
        """Make the session of a proven handshake: it opens records, and seals nothing but DONE until confirmed.

        Raises `Dropped` where two handshakes drew one receiver index (2^-32): another attempt follows; where the peer
        has been withdrawn since; or where there are too many sessions.
        """
        proven, theirs = exchange.proven, exchange.theirs
        if proven is None or theirs is None:
            raise RuntimeError("only a proven handshake makes a session")
        if (
            exchange.header.index in self.sessions
            or (exchange.endpoint, theirs.index) in self.by_peer
        ):
            raise Dropped(Drop.HANDSHAKE_MISMATCH, "receiver index taken")
        if len(self.sessions) >= MOST_SESSIONS:
            raise Dropped(Drop.SESSIONS_FULL)
        if exchange.era != self._era:  # roots or revocations have changed since it began
            self._judge_again(proven.chain, now)
        pair = self.pairs.setdefault(pair_key(proven.peer), Pair())
        if exchange.is_initiator:
            generation = exchange.header.generation
        else:
            # An impossible proposal may stem from another pod that had the address: it counts for nothing.
            proposed = theirs.generation if theirs.generation < LAST_GENERATION else 0
            generation = max(proposed, pair.highest_generation() + 1)
        session = Session(
            exchange.keys(),
            proven.peer,
            proven.chain,
            index=exchange.header.index,
            peer_index=theirs.index,
            endpoint=exchange.endpoint,
            generation=generation,
            group=proven.group,
            is_initiator=exchange.is_initiator,
            now=now,
            ends=min(exchange.own.not_after, proven.peer.not_after) - self.wall_offset,
            path=PathSize(self.largest, now),
            buffer=self._buffer,
        )
        pair.sessions.append(session)
        self.sessions[session.index] = session
        self.by_peer[session.endpoint, session.peer_index] = session
        self.confirming[session.index] = exchange
        return session

    def seal_control(
        self,
        session: Session,
        kind: int,
        now: float,
        body: bytes = b"",
        endpoint: Endpoint | None = None,
    ) -> None:
        """Seal a control record, which is one datagram, and queue it for ``endpoint`` or the session's."""
        try:
            sealed = session.seal(bytes((kind, 0, 0, 0)) + body, len(body) + RECORD_OVERHEAD, now)
        except Unusable:
            self.remove(session, "ended")
            return
        self.send([bytes(sealed)], endpoint or session.endpoint)

    def seal_done(self, session: Session, now: float) -> None:
        """Tell the initiator, under the new keys, that it is judged, and which generation we chose."""
        self.seal_control(session, DONE, now, session.generation.to_bytes(8, "big"))

    def move(self, session: Session, endpoint: Endpoint) -> None:
        """Send a session's datagrams to another address from now on."""
        if self.by_peer.get((session.endpoint, session.peer_index)) is session:
            del self.by_peer[session.endpoint, session.peer_index]
        session.endpoint = endpoint
        self.by_peer.setdefault((endpoint, session.peer_index), session)

    def remove(self, session: Session, why: str) -> None:
        """Forget a session."""
        if self.sessions.pop(session.index, None) is None:
            return
        if self.by_peer.get((session.endpoint, session.peer_index)) is session:
            del self.by_peer[session.endpoint, session.peer_index]
        self.confirming.pop(session.index, None)
        for address in session.peer.addresses:
            if self.current.get(address) is session:
                del self.current[address]
        key = pair_key(session.peer)
        pair = self.pairs[key]
        pair.remove(session)
        if not pair.sessions:
            del self.pairs[key]
        self.tell(SessionClosed(session, why))

    def _close_refused(self, now: float) -> None:
        """Judge the chain of each session again; those that fail end, and nothing happens to others."""
        for session in list(self.sessions.values()):
            try:
                self._judge_again(session.chain, now)
            except Dropped as refusal:
                self.drops[refusal.reason] += 1
                self.remove(session, str(refusal.reason))

    def _judge_again(self, chain: tuple[bytes, ...], now: float) -> None:
        verified = verify_again(chain, self._credential.roots)
        judge_chain(verified, self._credential.own, None, now + self.wall_offset, self.revoked)
