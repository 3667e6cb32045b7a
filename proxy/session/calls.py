"""The calling side: one call an address, made of attempts, until a session is confirmed or time is up.

An attempt may fail by what a stranger on the bridge injects, so a refusal ends the attempt and not the call:
another follows after a pause, until the call's time has run out.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.cookie import Endpoint
from proxy.session.events import CallFailed, HandshakeRefused
from proxy.session.handshake import HANDSHAKE_LIFE, Initiator, State
from proxy.session.registry import Registry
from proxy.session.wire import Flight, Retry

PAUSE: Final = 0.25
"""Seconds between the attempts of a call."""

MOST_CALLS: Final = 1024


@dataclass(slots=True, eq=False)
class _Call:
    address: bytes
    deadline: float
    attempt: Initiator


class Calls:
    """Handshakes that we began."""

    def __init__(self, registry: Registry) -> None:
        """Work on ``registry``."""
        self._registry = registry
        self._by_address: dict[bytes, _Call] = {}
        self._by_id: dict[int, _Call] = {}

    def connect(self, address: bytes, now: float) -> None:
        """Begin a call, unless one to this address is under way or too many are."""
        if address not in self._by_address and len(self._by_address) < MOST_CALLS:
            self._begin(address, now + HANDSHAKE_LIFE, now)

    def knows(self, handshake_id: int) -> bool:
        """Say whether a handshake id is that of an attempt of ours."""
        return handshake_id in self._by_id

    def receive_retry(self, retry: Retry, source: Endpoint, now: float) -> None:
        """Take a RETRY; raises `Dropped`."""
        call = self._find(retry.handshake_id, source)
        self._registry.send(call.attempt.receive_retry(retry), source)
        self._look(call, now)

    def receive_flight(self, flight: Flight, source: Endpoint, now: float) -> None:
        """Take a responder's FLIGHT; raises `Dropped`."""
        call = self._find(flight.header.initiator_id, source)
        before = call.attempt.state
        self._registry.send(call.attempt.receive_flight(flight, now), source)
        if before is State.FLIGHTS and call.attempt.state is State.CONFIRMING:
            self._registry.establish(call.attempt, now)
        self._look(call, now)

    def confirmed(self, attempt: Initiator) -> None:
        """End the call whose attempt made a session."""
        call = self._by_id.pop(attempt.header.initiator_id, None)
        if call is not None:
            del self._by_address[call.address]

    def _find(self, handshake_id: int, source: Endpoint) -> _Call:
        call = self._by_id.get(handshake_id)
        if call is None or call.attempt.endpoint != source:
            raise Dropped(Drop.UNKNOWN_HANDSHAKE)
        return call

    def _begin(self, address: bytes, deadline: float, now: float) -> None:
        registry = self._registry
        attempt = Initiator(
            registry.new_tls(address, now),
            registry.endpoint_of(address),
            address,
            handshake_id=registry.random(8),
            index=registry.new_index(),
            generation=registry.next_generation(address),
            now=now,
        )
        call = _Call(address, deadline, attempt)
        self._by_address[address] = self._by_id[attempt.header.initiator_id] = call
        registry.send(attempt.hello(), attempt.endpoint)
        registry.timers.at(attempt.timer, partial(self._due, call))

    def _due(self, call: _Call, now: float) -> None:
        if self._by_id.get(call.attempt.header.initiator_id) is not call:
            return
        self._registry.send(call.attempt.handle_timer(now), call.attempt.endpoint)
        self._look(call, now)
        if call.attempt.refusal is None:
            self._registry.timers.at(call.attempt.timer, partial(self._due, call))

    def _look(self, call: _Call, now: float) -> None:
        """End an attempt that was refused; try again while the call has time."""
        refusal = call.attempt.refusal
        if refusal is None:
            return
        del self._by_id[call.attempt.header.initiator_id]
        session = self._registry.sessions.get(call.attempt.header.index)
        if session is not None:
            self._registry.remove(session, "not confirmed")
        self._registry.tell(HandshakeRefused(call.attempt.endpoint, refusal, is_initiator=True))
        if now + PAUSE < call.deadline:
            self._registry.timers.at(now + PAUSE, partial(self._again, call))
        else:
            del self._by_address[call.address]
            self._registry.tell(CallFailed(call.address, refusal))

    def _again(self, call: _Call, now: float) -> None:
        if self._by_address.get(call.address) is call:
            self._begin(call.address, call.deadline, now)
