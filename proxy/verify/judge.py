"""Which datagrams seen outside belong to authenticated sessions: those whose token their session's header key gives."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Final

from proxy.session.cookie import COOKIE_SIZE
from proxy.session.session import Session
from proxy.session.wire import (
    FLIGHT,
    FLIGHT_HEADER,
    FLIGHT_TLS,
    HELLO,
    HELLO_SIZE,
    HINT,
    HINT_SIZE,
    RECORD,
    RECORD_HEADER,
    RECORD_STRUCT,
    RETRY,
)
from proxy.verify.frames import ENTRY, Tallies
from proxy.verify.messages import Seen

_RETRY_SIZE: Final = 16 + COOKIE_SIZE
_HANDSHAKE_SIZES: Final = {
    HELLO: range(HELLO_SIZE, HELLO_SIZE + 1),
    RETRY: range(_RETRY_SIZE, _RETRY_SIZE + 1),
    FLIGHT: range(FLIGHT_HEADER, FLIGHT_HEADER + FLIGHT_TLS + 1),
    HINT: range(HINT_SIZE, HINT_SIZE + 1),
}


class Judge:
    """Counts a watcher's `ENTRY`s by what this pod's sessions say to them."""

    def __init__(self, live: Mapping[int, Session]) -> None:
        """Know who is in ``live`` whenever something is to be judged; who has gone before that is told by `know`."""
        self._live = live
        self._in: dict[int, list[Session]] = {}
        self._out: dict[int, list[Session]] = {}
        self._known: set[int] = set()
        self._sealed = self._sealed_bytes = self._foreign_out = self._foreign_in = 0

    def know(self, sessions: Iterable[Session]) -> None:
        """Count datagrams of these sessions too, with whomever they are; once known, always known."""
        for session in sessions:
            if id(session) not in self._known:
                self._known.add(id(session))
                self._in.setdefault(session.index, []).append(session)
                self._out.setdefault(session.peer_index, []).append(session)

    def take(self, entries: bytes) -> None:
        """Judge whole `ENTRY`s back to back, without any change to a session."""
        self.know(self._live.values())
        for outgoing, size, header in ENTRY.iter_unpack(entries):
            if size in _HANDSHAKE_SIZES.get(header[0], ()):
                continue
            if self._vouched(header, size, outgoing=outgoing):
                self._sealed += 1
                self._sealed_bytes += size
            elif outgoing:
                self._foreign_out += 1
            else:
                self._foreign_in += 1

    def seen(self, tallies: Tallies) -> Seen:
        """Return all that one pod has seen."""
        return Seen(
            **asdict(tallies),
            foreign_out=self._foreign_out,
            foreign_in=self._foreign_in,
            sealed=self._sealed,
            sealed_bytes=self._sealed_bytes,
        )

    def _vouched(self, header: bytes, size: int, *, outgoing: bool) -> bool:
        kind, _, sealed, index, _, _ = RECORD_STRUCT.unpack(header)
        if size > RECORD_HEADER + sealed or (kind == RECORD and size != RECORD_HEADER + sealed):
            return False
        if outgoing:
            return any(session.sealer.vouches(header) for session in self._out.get(index, ()))
        return any(session.opener.vouches(header) for session in self._in.get(index, ()))
