"""What keeps a confirmed session good: signs of life, renewal, the size of its path, an address that changes.

Everything is asked by PING, whose 8 random bytes the PONG repeats (``docs/decisions/0005``).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from proxy.session.cookie import Endpoint
from proxy.session.events import SessionMoved
from proxy.session.path_size import PathSize
from proxy.session.record import REKEY_BLOCKS
from proxy.session.registry import Registry
from proxy.session.session import RENEW_AFTER, Session
from proxy.session.trial import ASK_AGAIN, GIVE_UP, JUDGE, PAUSE, Outcome, Trial
from proxy.session.wire import NONCE, PING, RECORD_OVERHEAD

KEEP_ALIVE: Final = 20.0
"""Seconds of silence after which a peer is asked for a sign of life: below a NAT's usual 30 s for UDP."""

PING_PACE: Final = 2.0
PINGS_TO_CALL: Final = 3
PINGS_TO_END: Final = 6
"""Unanswered PINGs after which the peer is called beside the session, and after which the session ends."""

RENEW_AGAIN: Final = 30.0
"""Seconds between tries to renew a session that has begun to grow old."""

SPREAD: Final = 30.0
"""Seconds over which handshakes with a new certificate are spread."""

_SMALL: Final = NONCE + RECORD_OVERHEAD


class Upkeep:
    """Timers of confirmed sessions, and what their PONGs say."""

    def __init__(self, registry: Registry, connect: Callable[[bytes, float], None]) -> None:
        """Work on ``registry``; ``connect`` calls a packed address."""
        self._registry = registry
        self._connect = connect

    def begin(self, session: Session, now: float) -> None:
        """Look after a session that was just confirmed."""
        later = self._registry.timers.at
        renew_after = RENEW_AFTER if session.is_initiator else RENEW_AFTER * 1.1
        later(now + renew_after, partial(self._renew, session.index))
        later(now + KEEP_ALIVE, partial(self._check_alive, session.index))
        self._check_size(session.index, now)

    def call(self, session: Session, now: float) -> None:
        """Begin a handshake with a session's peer, at an address for which the session seals."""
        current = self._registry.current
        sealing = [a for a in session.peer.addresses if current.get(a) is session]
        # The address that answered before, where there are two.
        sealing.sort(key=lambda address: self._registry.endpoint_of(address) != session.endpoint)
        if sealing:
            self._connect(sealing[0], now)

    def renew_now(self, now: float, pod: str | None = None) -> list[Session]:
        """Call the peer of each session that seals, or of those with ``pod``; return them."""
        renewed = [s for s in self._sealing() if pod in {None, s.peer.pod}]
        for session in renewed:
            self.call(session, now)
        return renewed

    def renew_all_soon(self, now: float) -> None:
        """Call each peer within `SPREAD`, not all at once: others have new certificates at the same time."""
        for session in self._sealing():
            self.renew_soon(session, now)

    def renew_soon(self, session: Session, now: float) -> None:
        """Call a session's peer within `SPREAD`."""
        when = now + SPREAD * self._registry.fraction()
        self._registry.timers.at(when, partial(self._renew_once, session.index))

    def answered(self, session: Session, nonce: bytes, now: float) -> None:
        """Take a PONG's body."""
        session.path.answered(nonce, now)
        self._ask_size(session, now)
        if session.trial is not None:
            session.trial.answered(nonce)
            self._judge_trial(session, session.trial, now)

    def heard_from(self, session: Session, source: Endpoint, now: float) -> None:
        """Try the address from which a record of this session came, which is not the one in use."""
        if session.trial is not None or now < session.trial_after or session.retired:
            return
        trial = Trial(source, self._registry.nonce(), self._registry.nonce(), now)
        session.trial = trial
        self._ask_both(session, trial, now)
        later = self._registry.timers.at
        later(now + ASK_AGAIN, partial(self._ask_again, session.index, trial))
        later(now + JUDGE, partial(self._check_trial, session.index, trial))
        later(now + GIVE_UP, partial(self._check_trial, session.index, trial))

    def _sealing(self) -> list[Session]:
        return list(dict.fromkeys(self._registry.current.values()))

    def _renew_once(self, index: int, now: float) -> None:
        session = self._live(index)
        if session is not None:
            self.call(session, now)

    def _renew(self, index: int, now: float) -> None:
        session = self._live(index)
        if session is not None:
            self.call(session, now)
            self._registry.timers.at(now + RENEW_AGAIN, partial(self._renew, index))

    def _check_alive(self, index: int, now: float) -> None:
        session = self._live(index)
        if session is None:
            return
        if max(session.sealer.blocks, session.opener.blocks) > REKEY_BLOCKS:
            self.call(session, now)
        # The responder waits a little longer: one PING and its PONG keep both ends alive.
        due = session.heard + KEEP_ALIVE + (0 if session.is_initiator else PING_PACE)
        if now < due:
            session.pings = 0
        elif session.pings == PINGS_TO_END:
            self._registry.remove(session, "peer silent")
            return
        else:
            if session.pings == PINGS_TO_CALL:
                self.call(session, now)
            session.pings += 1
            self._ping(session, self._registry.nonce(), now)
            due = now + PING_PACE
        self._registry.timers.at(due, partial(self._check_alive, index))

    def _check_size(self, index: int, now: float) -> None:
        session = self._live(index)
        if session is not None:
            self._ask_size(session, now)
            self._registry.timers.at(max(session.path.due, now), partial(self._check_size, index))

    def _ask_size(self, session: Session, now: float) -> None:
        sizes = session.path.ask(now, busy=session.packets_out != session.packets_asked)
        if sizes:
            session.packets_asked = session.packets_out
        for size in sizes:
            nonce = self._registry.nonce()
            session.path.note(nonce, size)
            self._ping(session, nonce, now, size=size)

    def _ask_again(self, index: int, trial: Trial, now: float) -> None:
        session = self._live(index)
        if session is not None and session.trial is trial:
            self._ask_both(session, trial, now)

    def _check_trial(self, index: int, trial: Trial, now: float) -> None:
        session = self._live(index)
        if session is not None and session.trial is trial:
            self._judge_trial(session, trial, now)

    def _judge_trial(self, session: Session, trial: Trial, now: float) -> None:
        outcome = trial.outcome(now)
        if outcome is Outcome.OPEN:
            return
        session.trial, session.trial_after = None, now + PAUSE
        if outcome is Outcome.MOVE:
            before = session.endpoint
            self._registry.move(session, trial.endpoint)
            session.path = PathSize(self._registry.largest, now)
            self._ask_size(session, now)
            self._registry.tell(SessionMoved(session, before))

    def _ask_both(self, session: Session, trial: Trial, now: float) -> None:
        here, there = trial.pings
        self._ping(session, here, now)
        self._ping(session, there, now, endpoint=trial.endpoint)

    def _ping(
        self,
        session: Session,
        nonce: bytes,
        now: float,
        *,
        size: int = 0,
        endpoint: Endpoint | None = None,
    ) -> None:
        body = nonce + bytes(max(0, size - _SMALL))
        self._registry.seal_control(session, PING, now, body, endpoint)

    def _live(self, index: int) -> Session | None:
        # Timers hold indices, not sessions: what is gone must not keep its memory until then.
        session = self._registry.sessions.get(index)
        return None if session is None or session.retired else session
