"""A packet's way out: TUN to UDP.

1. `Outbound.packet`: tenc0 gave a packet; what does its header say?
2. `_check`: is it ours, and does it go to a member?
3. The session of its destination seals it, if the path carries its size; without one it waits (4) and the
   destination is called.
5. The driver sends the datagrams, and writes `Outbound.replies` to tenc0: what the application must be told.
   `Outbound.flush` lets the waiting go once a session is there.
"""

from collections.abc import Iterator
from typing import Final, NoReturn

from proxy.drops import Drop, Drops
from proxy.errors import Dropped, Unusable
from proxy.flow.members import Members
from proxy.flow.waiting import WaitingPackets
from proxy.packet.ecn import inner_ecn
from proxy.packet.ip import parse_packet
from proxy.packet.too_big import may_split, too_big
from proxy.packet.virtio import VNET_HEADER
from proxy.session.cookie import Endpoint
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.session.wire import PREFIX, RECORD_OVERHEAD

# The sealed prefix takes the place of the virtio header's last bytes: sealing copies nothing.
HEADROOM: Final = VNET_HEADER - PREFIX

_NO_PREFIX: Final = bytes(PREFIX)

Sending = tuple[list[memoryview], Endpoint, int]
"""Pieces of datagrams (see `Sealer.seal`), where they go, and the ECN field that they get."""


class Outbound:
    """Packets of this pod to sealed datagrams."""

    def __init__(
        self, table: SessionTable, own: frozenset[bytes], members: Members, drops: Drops
    ) -> None:
        """Take packets from the packed addresses ``own`` to ``members``."""
        self._table = table
        self._own = own
        self._members = members
        self._waiting = WaitingPackets()
        self._drops = drops
        self.replies: list[bytes] = []
        """Frames for tenc0, one a packet refused at most; whoever calls us takes them."""

    def packet(self, frame: memoryview, now: float) -> Sending | None:
        """Take virtio header and packet as read from TUN; return what to send, if anything can be sent now.

        The frame's header is overwritten. The pieces are good until the next call. Refusals are counted.
        """
        try:
            source, destination = parse_packet(frame[VNET_HEADER:])
            session = self._table.current.get(destination)
            self._check(source, destination, known=session is not None)
            frame[HEADROOM:VNET_HEADER] = _NO_PREFIX
            plain = frame[HEADROOM:]
            if session is not None:
                sending = self._seal(session, plain, now)
                if sending is not None:
                    return sending
            self._wait(destination, plain, now)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1
        return None

    def flush(self, session: Session, now: float) -> Iterator[Sending]:
        """Yield what waited for a session's peer; send each before asking for the next."""
        for address in session.peer.addresses:
            if self._table.current.get(address) is not session:
                if address not in self._table.current and address in self._waiting:
                    self._table.connect(address, now)  # closed before its packets could go
                continue
            for plain in self._waiting.take(address):
                try:
                    sending = self._seal(session, plain, now)
                except Dropped as dropped:
                    self._drops[dropped.reason] += 1
                    continue
                if sending is not None:
                    yield sending
                else:
                    self._drops[Drop.NO_SESSION] += 1

    def give_up(self, address: bytes) -> None:
        """Drop what waits for an address that could not be called."""
        self._drops[Drop.NO_SESSION] += len(self._waiting.take(address))

    @property
    def waiting(self) -> int:
        """How many packets wait for a session."""
        return len(self._waiting)

    def _check(self, source: bytes, destination: bytes, *, known: bool) -> None:
        if source not in self._own:
            raise Dropped(Drop.FOREIGN_SOURCE)
        if destination not in self._members:
            raise Dropped(Drop.NOT_A_MEMBER)
        if destination in self._own and not known:
            raise Dropped(Drop.OWN_ADDRESS)

    def _wait(self, destination: bytes, plain: memoryview, now: float) -> None:
        # First the call: a full queue must not keep an address from being called.
        self._table.connect(destination, now)
        self._waiting.add(destination, bytes(plain))

    def _seal(self, session: Session, plain: memoryview | bytes, now: float) -> Sending | None:
        size = session.path.size
        packet = memoryview(plain)[PREFIX:]
        if len(packet) + RECORD_OVERHEAD > size and not may_split(packet):
            self._refuse_size(packet, size - RECORD_OVERHEAD)
        try:
            pieces = session.seal(plain, size, now)
        except Unusable:
            self._table.remove(session, "ended")
            return None
        session.packets_out += 1
        session.bytes_out += len(packet)
        return pieces, session.endpoint, inner_ecn(packet)

    def _refuse_size(self, packet: memoryview, fits: int) -> NoReturn:
        error = too_big(packet, fits)
        if error is not None:
            self.replies.append(bytes(VNET_HEADER) + error)
        raise Dropped(Drop.TOO_BIG, f"{len(packet)} bytes where {fits} fit")
