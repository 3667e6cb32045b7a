"""The calling side: one call an address, made of attempts, until a session is confirmed or time is up.

An attempt may fail by what a stranger on the bridge injects, so a refusal ends the attempt and not the call:
another follows after a pause, until the call's time has run out.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

from policy.bucket import Bucket
from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.cookie import Endpoint
from proxy.session.events import CallFailed, HandshakeRefused, ServedByOurselves
from proxy.session.handshake import HANDSHAKE_LIFE, Initiator, State
from proxy.session.registry import Registry
from proxy.session.wire import Flight, Retry

PAUSE: Final = 0.25
"""Seconds to a call's second attempt, doubling: where everybody refuses us, as with a wrong clock, we must not burn."""

BUDGET: Final = (256.0, 200.0)
"""Attempts at once and a second: a fifth of a core."""

MOST_CALLS: Final = 1024


@dataclass(slots=True, eq=False)
class _Call:
    address: bytes
    deadline: float
    rendezvous: bool
    attempt: Initiator | None = None
    pause: float = PAUSE


class Calls:
    """Handshakes that we began."""

    def __init__(self, registry: Registry) -> None:
        """Work on ``registry``."""
        self._registry = registry
        self._by_address: dict[bytes, _Call] = {}
        self._by_id: dict[int, _Call] = {}
        self._budget = Bucket(*BUDGET)

    @property
    def under_way(self) -> int:
        """How many calls are not ended yet."""
        return len(self._by_address)

    def connect(self, address: bytes, now: float, *, rendezvous: bool = False) -> None:
        """Begin a call, unless one to this address is under way or too many are.

        With ``rendezvous`` any pod of the project may answer it, and not only one whose certificate names the address.
        """
        if address not in self._by_address and len(self._by_address) < MOST_CALLS:
            call = self._by_address[address] = _Call(address, now + HANDSHAKE_LIFE, rendezvous)
            self._attempt(call, now)

    def knows(self, handshake_id: int, source: Endpoint) -> bool:
        """Say whether a handshake id is that of an attempt of ours to call ``source``."""
        call = self._by_id.get(handshake_id)
        return call is not None and call.attempt is not None and call.attempt.endpoint == source

    def receive_retry(self, retry: Retry, source: Endpoint, now: float) -> None:
        """Take a RETRY; raises `Dropped`."""
        call, attempt = self._find(retry.handshake_id, source)
        self._registry.send(attempt.receive_retry(retry), source)
        self._look(call, attempt, now)

    def receive_flight(self, flight: Flight, source: Endpoint, now: float) -> None:
        """Take a responder's FLIGHT; raises `Dropped`."""
        call, attempt = self._find(flight.header.initiator_id, source)
        before = attempt.state
        self._registry.send(attempt.receive_flight(flight, now), source)
        if before is State.FLIGHTS and attempt.state is State.CONFIRMING:
            self._registry.establish(attempt, now)
        self._look(call, attempt, now)

    def confirmed(self, attempt: Initiator) -> None:
        """End the call whose attempt made a session."""
        call = self._by_id.pop(attempt.header.initiator_id, None)
        if call is not None:
            del self._by_address[call.address]

    def _find(self, handshake_id: int, source: Endpoint) -> tuple[_Call, Initiator]:
        call = self._by_id.get(handshake_id)
        if call is None or call.attempt is None or call.attempt.endpoint != source:
            raise Dropped(Drop.UNKNOWN_HANDSHAKE)
        return call, call.attempt

    def _attempt(self, call: _Call, now: float) -> None:
        registry = self._registry
        try:
            registry.check_able(now)
        except Dropped as dropped:
            self._later(call, dropped, now)
            return
        if not self._budget.has(now):
            self._later(call, Dropped(Drop.HANDSHAKES_PACED), now)
            return
        self._budget.take()
        attempt = call.attempt = Initiator(
            registry.new_tls(call.address, now, anybody=call.rendezvous),
            registry.endpoint_of(call.address),
            call.address,
            handshake_id=registry.random(8),
            index=registry.new_index(),
            generation=registry.next_generation(call.address),
            now=now,
        )
        self._by_id[attempt.header.initiator_id] = call
        registry.send(attempt.hello(), attempt.endpoint)
        registry.timers.at(attempt.timer, partial(self._due, call, attempt))

    def _due(self, call: _Call, attempt: Initiator, now: float) -> None:
        if self._by_id.get(attempt.header.initiator_id) is not call:
            return
        self._registry.send(attempt.handle_timer(now), attempt.endpoint)
        self._look(call, attempt, now)
        if attempt.refusal is None:
            self._registry.timers.at(attempt.timer, partial(self._due, call, attempt))

    def _look(self, call: _Call, attempt: Initiator, now: float) -> None:
        """End an attempt that was refused; try again while the call has time."""
        refusal = attempt.refusal
        if refusal is None:
            return
        del self._by_id[attempt.header.initiator_id]
        call.attempt = None
        session = self._registry.sessions.get(attempt.header.index)
        if session is not None:
            self._registry.remove(session, "not confirmed")
        if call.rendezvous and refusal.reason is Drop.OWN_ADDRESS:
            del self._by_address[call.address]
            self._registry.tell(ServedByOurselves(call.address))
            return
        self._registry.tell(HandshakeRefused(attempt.endpoint, refusal, is_initiator=True))
        self._later(call, refusal, now)

    def _later(self, call: _Call, refusal: Dropped, now: float) -> None:
        pause, call.pause = call.pause, 2 * call.pause
        if now + pause < call.deadline:
            self._registry.timers.at(now + pause, partial(self._again, call))
        else:
            del self._by_address[call.address]
            self._registry.tell(CallFailed(call.address, refusal))

    def _again(self, call: _Call, now: float) -> None:
        if self._by_address.get(call.address) is call:
            self._attempt(call, now)
