"""What `tencrypt rekey` shows: which sessions a new one has replaced, as plain data and as text."""

from collections.abc import Iterable

from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.status import JsonObject, draw_table


def replaced(table: SessionTable, former: Iterable[Session]) -> list[Session]:
    """Return those of the former sessions that seal for no address any more."""
    sealing = set(map(id, table.current.values()))
    return [session for session in former if id(session) not in sealing]


def report(table: SessionTable, former: Iterable[Session]) -> JsonObject:
    """Return for each former session its peer and both generations; ``after`` is null where nothing replaced it."""
    return {"sessions": [_one(table, session) for session in former]}


def _one(table: SessionTable, former: Session) -> JsonObject:
    sealing = (table.current.get(address) for address in sorted(former.peer.addresses))
    later = next((s for s in sealing if s is not None and s is not former), None)
    return {
        "peer": former.peer.pod,
        "identity": former.peer.identity.uri,
        "before": former.generation,
        "after": later.generation if later else None,
    }


def draw(answer_untrusted: JsonObject) -> tuple[str, bool]:
    """Return the answer as text, and whether all were replaced; KeyError or TypeError where it is none."""
    sessions = answer_untrusted["sessions"]
    if not isinstance(sessions, list) or not all(isinstance(one, dict) for one in sessions):
        raise TypeError("not an answer to rekey")
    if not sessions:
        return "no sessions", True
    rows = [
        (str(one["peer"]), str(one["identity"]), str(one["before"]), _after(one["after"]))
        for one in sessions
    ]
    done = all(one["after"] is not None for one in sessions)
    return "\n".join(draw_table([("PEER", "IDENTITY", "BEFORE", "AFTER"), *rows])), done


def _after(generation: object) -> str:
    return "no new session" if generation is None else str(generation)
