"""What sessions and handshakes add up to since the start; nothing here is touched per packet.

A session counts for itself while it lives. Its counts are added here once, when it ends: so no total ever goes
backwards.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from proxy.drops import Drop
from proxy.session.events import CallFailed, Event, HandshakeRefused, SessionClosed, SessionOpened
from proxy.session.session import Session


@dataclass(slots=True)
class Volume:
    """Inner packets, their bytes, and records given up because pieces of them never came."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    incomplete: int = 0

    def add(self, session: Session) -> None:
        """Add what a session has counted so far."""
        self.packets_in += session.packets_in
        self.packets_out += session.packets_out
        self.bytes_in += session.bytes_in
        self.bytes_out += session.bytes_out
        self.incomplete += session.opener.incomplete


class Totals:
    """Counts events as they are told."""

    def __init__(self) -> None:
        """Begin with none."""
        self._ended = Volume()
        self.opened: Counter[bool] = Counter()
        """Handshakes that made a session, by whether we began them."""
        self.refused: Counter[tuple[bool, Drop]] = Counter()
        """Handshakes that made none, by whether we began them, and the reason."""
        self.calls_failed = 0

    def hear(self, event: Event) -> None:
        """Count an event; a session that is told closed must be counted nowhere else from then on."""
        match event:
            case SessionOpened(session):
                self.opened[session.is_initiator] += 1
            case SessionClosed(session):
                self._ended.add(session)
            case HandshakeRefused(_, refusal, is_initiator):
                self.refused[is_initiator, refusal.reason] += 1
            case CallFailed():
                self.calls_failed += 1
            case _:
                pass

    def volume(self, live: Iterable[Session]) -> Volume:
        """Return what all sessions ever counted, given those that live."""
        volume = replace(self._ended)
        for session in live:
            volume.add(session)
        return volume
