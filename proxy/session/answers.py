"""The answering side: cookies for everybody, state only for a proved address, and both bounded."""

from collections import Counter
from functools import partial
from ipaddress import IPv6Network, ip_address
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.budget import Budget
from proxy.session.cookie import CookieJar, Endpoint
from proxy.session.events import HandshakeRefused
from proxy.session.handshake import FIRST_REPEAT, LAST_REPEAT, Responder, State
from proxy.session.registry import Registry
from proxy.session.session import Session
from proxy.session.wire import Flight, Hello, Retry

MOST_HALF_OPEN: Final = 256
MOST_FROM_ONE: Final = 16
MOST_FROM_NETWORK: Final = 128
"""Half-open handshakes in all (50 KB of OpenSSL each), from one address, and from one IPv6 /64.

A node's pods share a /64, so a stranger among them must not use all of it up with one address of his own. Peers of
live sessions count against their address alone, and have as many again in all.
"""

REFUSED_LIFE: Final = 1.0

TOMBSTONE_LIFE: Final = 30.0
"""Seconds for which a finished handshake's late datagrams begin no other: longer than a cookie is good."""

_Key = tuple[Endpoint, int]


class Answers:
    """Handshakes that others began."""

    def __init__(self, registry: Registry, secret: bytes) -> None:
        """Work on ``registry``; ``secret`` is for cookies."""
        self._registry = registry
        self._jar = CookieJar(secret)
        self._half_open: dict[_Key, Responder] = {}
        self._from: Counter[str] = Counter()
        self._tombstones: set[_Key] = set()
        self._budget = Budget()

    @property
    def half_open(self) -> int:
        """How many are under way, or were refused less than `REFUSED_LIFE` ago."""
        return len(self._half_open)

    def receive_hello(self, hello: Hello, source: Endpoint, now: float) -> None:
        """Answer with a cookie: one HMAC, 36 bytes for 1,200, nothing kept."""
        cookie = self._jar.bake(source, hello.handshake_id, now)
        self._registry.send([Retry(hello.handshake_id, cookie).encode()], source)

    def receive_flight(self, flight: Flight, source: Endpoint, now: float) -> None:
        """Take an initiator's FLIGHT; raises `Dropped`."""
        key = (source, flight.header.initiator_id)
        responder = self._half_open.get(key)
        if responder is None:
            responder = self._begin(key, flight, now)
        before = responder.state
        self._registry.send(responder.receive_flight(flight, now), source)
        if responder.state is State.CONFIRMING:
            session = self._registry.sessions.get(responder.header.index)
            if session is None and before is State.FLIGHTS:
                session = self._registry.establish(responder, now)
                self._repeat_done(session, FIRST_REPEAT, now)
            elif session is not None and flight.tls:
                self._registry.seal_done(session, now)
        elif before is State.FLIGHTS and responder.refusal is not None:
            # Time enough for its alert to be asked for again; then others need the place more.
            ours = responder.header.responder_id
            self._registry.timers.at(now + REFUSED_LIFE, partial(self._expire, key, ours))
            self._registry.tell(HandshakeRefused(source, responder.refusal, is_initiator=False))

    def confirmed(self, responder: Responder, now: float) -> None:
        """End a handshake whose session is confirmed; what comes late of it starts nothing."""
        key = (responder.endpoint, responder.header.initiator_id)
        self._forget(key, now)

    def _begin(self, key: _Key, flight: Flight, now: float) -> Responder:
        header, source = flight.header, key[0]
        if header.responder_id or key in self._tombstones:
            raise Dropped(Drop.UNKNOWN_HANDSHAKE, "late")
        if not self._jar.is_good(header.cookie, source, header.initiator_id, now):
            raise Dropped(Drop.COOKIE)
        if not flight.tls:
            raise Dropped(Drop.UNKNOWN_HANDSHAKE, "without TLS")
        self._registry.check_able(now)
        self._make_room(source, now)
        responder = Responder.answer(
            self._registry.new_tls(None, now),
            source,
            header,
            responder_id=self._registry.random(8),
            index=self._registry.new_index(),
            now=now,
        )
        self._half_open[key] = responder
        self._from.update(_networks(source))
        # Timers hold ids: what made room for others must not keep its 50 KB until then.
        ours = responder.header.responder_id
        self._registry.timers.at(responder.timer, partial(self._due, key, ours))
        self._registry.timers.at(responder.deadline, partial(self._expire, key, ours))
        return responder

    def _find(self, key: _Key, ours: int) -> Responder | None:
        responder = self._half_open.get(key)
        return responder if responder and responder.header.responder_id == ours else None

    def _due(self, key: _Key, ours: int, now: float) -> None:
        responder = self._find(key, ours)
        if responder is None or now >= responder.deadline:
            return
        self._registry.send(responder.handle_timer(now), responder.endpoint)
        self._registry.timers.at(responder.timer, partial(self._due, key, ours))

    def _repeat_done(self, session: Session, repeat_after: float, now: float) -> None:
        if session.confirmed or session.index not in self._registry.sessions:
            return
        self._registry.seal_done(session, now)
        repeat_after = min(2 * repeat_after, LAST_REPEAT)
        self._registry.timers.at(
            now + repeat_after,
            lambda later: self._repeat_done(session, repeat_after, later),
        )

    def _expire(self, key: _Key, ours: int, now: float) -> None:
        responder = self._find(key, ours)
        if responder is None:
            return
        self._forget(key, now)
        session = self._registry.sessions.get(responder.header.index)
        if session is not None:
            self._registry.remove(session, "not confirmed")
        elif responder.refusal is None:
            refusal = Dropped(Drop.HANDSHAKE_TIMEOUT)
            self._registry.tell(HandshakeRefused(responder.endpoint, refusal, is_initiator=False))

    def _make_room(self, source: Endpoint, now: float) -> None:
        """See that one more may begin: there is a place for it, and time. Raises `Dropped`."""
        known = ip_address(source[0]).packed in self._registry.current
        # Strangers, were it in the peer's own /64, must not keep it from renewing its session.
        networks = source[:1] if known else _networks(source)
        for network, most in zip(networks, (MOST_FROM_ONE, MOST_FROM_NETWORK), strict=False):
            if self._from[network] >= most:
                raise Dropped(Drop.HANDSHAKES_FULL, network)
        short = self._budget.take(networks, now, known=known)
        if short is not None:
            raise Dropped(Drop.HANDSHAKES_PACED, short)
        if len(self._half_open) >= MOST_HALF_OPEN * (1 + known):
            self._close(self._oldest_silent())

    def _oldest_silent(self) -> _Key:
        # Whoever sees cookies go by can open many and finish none: the oldest that never spoke TLS goes.
        silent = (key for key, one in self._half_open.items() if not one.has_spoken)
        oldest = next(silent, None)
        if oldest is None:
            raise Dropped(Drop.HANDSHAKES_FULL)
        return oldest

    def _forget(self, key: _Key, now: float) -> None:
        """End a handshake for good: while its cookie is good, copies of its datagrams begin no other."""
        if key in self._half_open:
            self._close(key)
            self._tombstones.add(key)
            self._registry.timers.at(
                now + TOMBSTONE_LIFE, lambda _now: self._tombstones.discard(key)
            )

    def _close(self, key: _Key) -> None:
        del self._half_open[key]
        for network in _networks(key[0]):
            self._from[network] -= 1
            if not self._from[network]:
                del self._from[network]


def _networks(source: Endpoint) -> tuple[str, ...]:
    """Return whose source it is: the address, and the /64 that one IPv6 host can draw on."""
    host = source[0]
    return (host, str(IPv6Network((host, 64), strict=False))) if ":" in host else (host,)
