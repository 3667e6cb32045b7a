"""What keeps a confirmed session good: signs of life, renewal, the size of its path, an address that changes.

Everything is asked by PING, whose 8 random bytes the PONG repeats (``docs/decisions/0005``).
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from proxy.session.cookie import Endpoint
from proxy.session.events import SessionMoved
from proxy.session.path_size import PathSize
from proxy.session.record import REKEY_BLOCKS
from proxy.session.record_limit import RecordLimit
from proxy.session.registry import Registry
from proxy.session.session import Session
from proxy.session.trial import PAUSE, Outcome, Trial
from proxy.session.wire import NONCE, PING, PONG_SIZE, PONG_STRUCT, RECORD_OVERHEAD

KEEP_ALIVE: Final = 20.0
"""Seconds of silence after which a peer is asked for a sign of life: below a NAT's usual 30 s for UDP."""

PING_PACE: Final = 2.0
PINGS_TO_CALL: Final = 3
PINGS_TO_END: Final = 6
"""Unanswered PINGs after which the peer is called beside the session, and after which the session ends."""

RENEW_AGAIN: Final = 30.0
"""Seconds between tries to renew a session that has begun to grow old."""

SPREAD: Final = 30.0
"""Seconds over which handshakes with a new certificate are spread; half a session's rest where that is less."""

_SMALL: Final = NONCE + RECORD_OVERHEAD


class Upkeep:
    """Timers of confirmed sessions, and what their PONGs say."""

    def __init__(self, registry: Registry, connect: Callable[[bytes, float], None]) -> None:
        """Work on ``registry``; ``connect`` calls a packed address."""
        self._registry = registry
        self._connect = connect

    def begin(self, session: Session, now: float) -> None:
        """Look after a session that was just confirmed."""
        due = min(now + KEEP_ALIVE, session.ends)
        self._registry.timers.at(due, partial(self._look_after, session.index))
        self._check_size(session.index, session.path, now)
        self._try_named(session, now)

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
        sealing = dict.fromkeys(self._registry.current.values())
        renewed = [session for session in sealing if pod in {None, session.peer.pod}]
        for session in renewed:
            self.call(session, now)
        return renewed

    def renew_soon(self, sessions: Iterable[Session], now: float) -> None:
        """Call each peer within `SPREAD`, not all at once: others have new certificates at the same time."""
        for session in dict.fromkeys(sessions):
            spread = min(SPREAD, (session.ends - now) / 2)
            when = now + spread * self._registry.fraction()
            self._registry.timers.at(when, partial(self._renew_once, session.index))

    def ask_loss(self, session: Session, now: float) -> None:
        """Ask how many records of several datagrams have opened."""
        nonce = self._registry.nonce()
        session.limit.relax(now)
        if session.limit.ask(nonce, session.sealer.large, now):
            self._ping(session, nonce, now)

    def answered(self, session: Session, body: bytes, now: float) -> None:
        """Take a PONG's body; without counts, as one of version 1 may be, it says nothing about loss."""
        nonce = body[:NONCE]
        if len(body) == PONG_SIZE:
            _, opened, incomplete = PONG_STRUCT.unpack(body)
            session.limit.answered(nonce, opened, incomplete, now)
        else:
            session.limit.heard(nonce)
        session.path.answered(nonce, now)
        self._ask_size(session, now)
        if session.trial is not None:
            session.trial.answered(nonce)
            self._judge_trial(session, session.trial, now)

    def heard_from(self, session: Session, source: Endpoint, now: float) -> None:
        """Try the address from which a record of this session came, which is not the one in use."""
        if session.trial is not None or now < session.trial_after or session.retired:
            return
        named = self._named(session)
        preferred = source in named and session.endpoint not in named
        nonces = self._registry.nonce(), self._registry.nonce()
        trial = Trial(source, *nonces, now, preferred=preferred)
        session.trial = trial
        self._ask_both(session, trial, now)
        later = self._registry.timers.at
        later(trial.ask_again_at, partial(self._ask_again, session.index, trial))
        later(trial.judge_at, partial(self._check_trial, session.index, trial))
        later(trial.give_up_at, partial(self._check_trial, session.index, trial))

    def _renew_once(self, index: int, now: float) -> None:
        session = self._live(index)
        if session is not None:
            self.call(session, now)

    def _look_after(self, index: int, now: float) -> None:
        # One timer, for a short time: those of sessions that are gone add up while a peer makes many.
        session = self._live(index)
        if session is None:
            return
        session.opener.expire(now)
        if now >= session.ends:
            self._registry.remove(session, "ended")
        elif session.pings == PINGS_TO_END and now >= _silent_at(session):
            self._registry.remove(session, "peer silent")
        else:
            self._renew(session, now)
            self._try_named(session, now)
            due = min(self._check_alive(session, now), session.ends)
            self._registry.timers.at(due, partial(self._look_after, index))

    def _renew(self, session: Session, now: float) -> None:
        blocks = max(session.sealer.blocks, session.opener.blocks)
        if now >= session.renew_at or blocks > REKEY_BLOCKS:
            self.call(session, now)
            session.renew_at = now + RENEW_AGAIN

    def _check_alive(self, session: Session, now: float) -> float:
        """Ask a peer for a sign of life where it is time; return when to look again."""
        silent_at = _silent_at(session)
        if now < silent_at:
            session.pings = 0
            return min(silent_at, session.renew_at)
        if session.pings == PINGS_TO_CALL:
            self.call(session, now)
        session.pings += 1
        self._ping(session, self._registry.nonce(), now)
        return now + PING_PACE

    def _check_size(self, index: int, path: PathSize, now: float) -> None:
        session = self._live(index)
        if session is not None and session.path is path:
            self._ask_size(session, now)
            self._registry.timers.at(max(path.due, now), partial(self._check_size, index, path))

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
            session.limit = RecordLimit()
            self._check_size(session.index, session.path, now)
            self._registry.tell(SessionMoved(session, before))

    def _try_named(self, session: Session, now: float) -> None:
        """Try the peer's own address where another is in use: a NAT's, or a thief's who passed a handshake on."""
        named = self._named(session)
        if named and session.endpoint not in named:
            self.heard_from(session, named[0], now)

    def _named(self, session: Session) -> list[Endpoint]:
        """Return where the peer listens by its certificate, of the address family in use."""
        endpoints = map(self._registry.endpoint_of, sorted(session.peer.addresses))
        return [e for e in endpoints if (":" in e[0]) == (":" in session.endpoint[0])]

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


def _silent_at(session: Session) -> float:
    # The responder waits a little longer: one PING and its PONG keep both ends alive.
    return session.heard + KEEP_ALIVE + (0 if session.is_initiator else PING_PACE)
