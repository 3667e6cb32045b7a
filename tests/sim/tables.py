"""Which entries of the state tables (docs/protocol.md section 11) stories use: all, or a test names the missing.

`counting` wraps the product's methods from outside: it pays nothing. The counter is the process's, since stories run
in blocks.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import wraps
from typing import Any, Final
from unittest import mock

from proxy.drops import Drop
from proxy.session.answers import Answers
from proxy.session.calls import Calls
from proxy.session.handshake import FIRST_REPEAT, Exchange, Initiator, Responder, State
from proxy.session.path_size import PathSize
from proxy.session.registry import Registry
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.session.trial import Outcome, Trial

USED: Final[Counter[str]] = Counter()

HANDSHAKES: Final = (
    "initiator ASKING, RETRY: FLIGHTS",
    "initiator ASKING, timer: ASKING",
    "initiator ASKING, time is up",
    "initiator FLIGHTS, RETRY: FLIGHTS",
    "initiator FLIGHTS, FLIGHT: FLIGHTS",
    "initiator FLIGHTS, FLIGHT: CONFIRMING",
    "initiator FLIGHTS, FLIGHT: REFUSED",
    "initiator FLIGHTS, timer: FLIGHTS",
    "initiator FLIGHTS, time is up",
    "initiator CONFIRMING, FLIGHT: CONFIRMING",
    "initiator CONFIRMING, FLIGHT: REFUSED",
    "initiator CONFIRMING, timer: CONFIRMING",
    "initiator CONFIRMING, time is up",
    "initiator CONFIRMING, DONE: confirmed",
    "responder (none), FLIGHT: FLIGHTS",
    "responder FLIGHTS, FLIGHT: FLIGHTS",
    "responder FLIGHTS, FLIGHT: CONFIRMING",
    "responder FLIGHTS, FLIGHT: REFUSED",
    "responder FLIGHTS, timer: FLIGHTS",
    "responder FLIGHTS, time is up",
    "responder CONFIRMING, FLIGHT: CONFIRMING",
    "responder CONFIRMING, timer: DONE",
    "responder CONFIRMING, time is up",
    "responder CONFIRMING, record: confirmed",
    "responder REFUSED, FLIGHT: REFUSED",
    "responder REFUSED, time is up",
)
SESSIONS: Final = (
    "session unconfirmed: confirmed",
    "session unconfirmed ends: not confirmed",
    "session unconfirmed ends: ended",
    f"session unconfirmed ends: {Drop.REVOKED}",
    f"session unconfirmed ends: {Drop.UNTRUSTED}",
    "session unconfirmed ends: stopped",
    "session confirmed: retired",
    "session confirmed ends: closed by peer",
    "session confirmed ends: ended",
    "session confirmed ends: peer silent",
    "session confirmed ends: stopped",
    f"session confirmed ends: {Drop.REVOKED}",
    f"session confirmed ends: {Drop.UNTRUSTED}",
    f"session confirmed ends: {Drop.CERTIFICATE_TIME}",
    "session retired ends: replaced",
    "session retired ends: closed by peer",
    "session retired ends: ended",
    "session retired ends: stopped",
    f"session retired ends: {Drop.REVOKED}",
    f"session retired ends: {Drop.UNTRUSTED}",
    f"session retired ends: {Drop.CERTIFICATE_TIME}",
)
PATHS: Final = (
    "trial: MOVE",
    "trial: STAY, the old address answers",
    "trial: STAY, time is up",
    "path size: proved",
    "path size: disproved",
    "path size: silent",
)
ENTRIES: Final = HANDSHAKES + SESSIONS + PATHS

SELDOM: Final = (f"session unconfirmed ends: {Drop.CERTIFICATE_TIME}",)
"""Right, and too seldom to be asked of a thousand stories: a clock jumps within milliseconds of a handshake."""

Watch = Callable[..., Generator[None, Any, None]]
"""Called as a method is; runs on after it, with what it returned."""


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Count in `USED` while the context lasts."""
    with contextlib.ExitStack() as stack:
        tables: tuple[tuple[type, str, str], ...] = (
            (Initiator, "_ON_RETRY", "RETRY"),
            (Initiator, "_ON_FLIGHT", "FLIGHT"),
            (Initiator, "_ON_TIMER", "timer"),
            (Responder, "_ON_FLIGHT", "FLIGHT"),
        )
        for owner, name, event in tables:
            table = {state: _step(step, event) for state, step in getattr(owner, name).items()}
            stack.enter_context(mock.patch.object(owner, name, table))
        for method, watch in _WATCHED.items():
            owner, name = method
            watched = _watched(getattr(owner, name), watch)
            stack.enter_context(mock.patch.object(owner, name, watched))
        yield


def missing() -> list[str]:
    """Return the entries that no story used."""
    return [entry for entry in ENTRIES if not USED[entry]]


def unknown() -> list[str]:
    """Return what stories did that stands in no table."""
    return sorted(USED.keys() - {*ENTRIES, *SELDOM})


def drawn() -> list[str]:
    """Return the table as lines."""
    width = max(map(len, ENTRIES))
    return [f"{entry:{width}} {USED[entry]:>9,}" for entry in (*ENTRIES, *SELDOM, *unknown())]


def _watched(method: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **named: Any) -> Any:
        watching = watch(*args, **named)
        next(watching)
        result = method(*args, **named)
        with contextlib.suppress(StopIteration):
            watching.send(result)
        return result

    return call


def _step(step: Callable[..., Any], event: str) -> Callable[..., Any]:
    def watch(exchange: Exchange, *_args: object) -> Generator[None, Any, None]:
        before = exchange.state
        yield
        USED[f"{_role(exchange)} {before.name}, {event}: {exchange.state.name}"] += 1

    return _watched(step, watch)


def _role(exchange: Exchange) -> str:
    return "initiator" if exchange.is_initiator else "responder"


def _exchange_timer(exchange: Exchange, _now: float) -> Generator[None, Any, None]:
    going = exchange.refusal is None
    yield
    if going and exchange.refusal is not None:
        USED[f"{_role(exchange)} {exchange.state.name}, time is up"] += 1


def _repeat(responder: Responder) -> Generator[None, Any, None]:
    yield
    if responder.state is State.FLIGHTS:
        USED["responder FLIGHTS, timer: FLIGHTS"] += 1


def _repeat_done(
    answers: Answers, session: Session, repeat_after: float, _now: float
) -> Generator[None, Any, None]:
    alive = not session.confirmed and session.index in answers._registry.sessions
    yield
    if alive and repeat_after > FIRST_REPEAT:
        USED["responder CONFIRMING, timer: DONE"] += 1


def _begin(*_args: object) -> Generator[None, Any, None]:
    yield
    USED["responder (none), FLIGHT: FLIGHTS"] += 1


def _expire(answers: Answers, key: Any, ours: int, _now: float) -> Generator[None, Any, None]:
    responder = answers._find(key, ours)
    yield
    if responder is not None:
        USED[f"responder {responder.state.name}, time is up"] += 1


def _responder_confirmed(
    _answers: Answers, responder: Responder, _now: float
) -> Generator[None, Any, None]:
    yield
    USED[f"responder {responder.state.name}, record: confirmed"] += 1


def _initiator_confirmed(_calls: Calls, attempt: Initiator) -> Generator[None, Any, None]:
    yield
    USED[f"initiator {attempt.state.name}, DONE: confirmed"] += 1


def _state(session: Session) -> str:
    if session.retired:
        return "retired"
    return "confirmed" if session.confirmed else "unconfirmed"


def _changes(_table: SessionTable, session: Session, *_args: object) -> Generator[None, Any, None]:
    before = _state(session)
    yield
    # A session that loses against a better one is retired at once; that is `_retire`'s to count.
    after = "confirmed" if before == "unconfirmed" else _state(session)
    if after != before:
        USED[f"session {before}: {after}"] += 1


def _ends(registry: Registry, session: Session, why: str) -> Generator[None, Any, None]:
    alive, state = session.index in registry.sessions, _state(session)
    yield
    if alive:
        USED[f"session {state} ends: {why}"] += 1


def _outcome(trial: Trial, _now: float) -> Generator[None, Any, None]:
    outcome = yield
    if outcome is Outcome.STAY:
        USED[
            f"trial: STAY, {'the old address answers' if trial.answered_here else 'time is up'}"
        ] += 1
    elif outcome is Outcome.MOVE:
        USED["trial: MOVE"] += 1


def _answered(path: PathSize, nonce: bytes, _now: float) -> Generator[None, Any, None]:
    asked = path._questions.get(nonce)
    yield
    if asked:
        USED["path size: proved"] += 1


def _give_up(path: PathSize, _now: float) -> Generator[None, Any, None]:
    narrow = path._small_answered
    yield
    USED[f"path size: {'disproved' if narrow else 'silent'}"] += 1


_WATCHED: Final[dict[tuple[type, str], Watch]] = {
    (Exchange, "handle_timer"): _exchange_timer,
    (Responder, "repeat"): _repeat,
    (Answers, "_repeat_done"): _repeat_done,
    (Answers, "_begin"): _begin,
    (Answers, "_expire"): _expire,
    (Answers, "confirmed"): _responder_confirmed,
    (Calls, "confirmed"): _initiator_confirmed,
    (SessionTable, "first_record"): _changes,
    (SessionTable, "_retire"): _changes,
    (Registry, "remove"): _ends,
    (Trial, "outcome"): _outcome,
    (PathSize, "answered"): _answered,
    (PathSize, "_give_up"): _give_up,
}
