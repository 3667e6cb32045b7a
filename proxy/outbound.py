"""A packet's way out: TUN to UDP.

1. `Outbound.packets`: tenc0 gave a packet, or a super-packet of many segments; what does its header say?
2. `_check`: is it ours, and does it go to a member?
3. The session of its destination seals it, if the path carries its size; without one it waits (4) and the
   destination is called. A super-packet is one record, or a few where the path wants small ones (`_parts`).
5. The driver sends the datagrams, and writes `Outbound.replies` to tenc0: what the application must be told.
   `Outbound.flush` lets the waiting go once a session is there.
"""

from collections.abc import Generator, Iterator
from typing import Final, NoReturn

from proxy.drops import Drop, Drops
from proxy.errors import Dropped, Unusable
from proxy.flow.members import Members
from proxy.flow.waiting import WaitingPackets
from proxy.packet.ecn import inner_ecn
from proxy.packet.ip import parse_packet
from proxy.packet.segments import split
from proxy.packet.too_big import may_split, too_big
from proxy.packet.transport import Transport, find_transport
from proxy.packet.virtio import UNFINISHED, VNET_HEADER, leave
from proxy.session.cookie import Endpoint
from proxy.session.pieces import LARGEST_SEND
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.session.wire import (
    PACKET,
    PREFIX,
    PREFIX_STRUCT,
    RECORD_HEADER,
    RECORD_OVERHEAD,
    TAG,
)

# The sealed prefix takes the place of the virtio header's last bytes: sealing copies nothing.
HEADROOM: Final = VNET_HEADER - PREFIX

Sending = tuple[memoryview | bytes, int, Endpoint, int]
"""Datagrams back to back, the size of each but the last, where they go, and the ECN field that they get."""


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

    def packets(self, frame: memoryview, now: float) -> Iterator[Sending]:
        """Take virtio header and packet as read from TUN; yield what to send, if anything can be sent now.

        The frame's header is overwritten. Send each before asking for the next. Refusals are counted.
        """
        try:
            packet = frame[VNET_HEADER:]
            source, destination = parse_packet(packet)
            session = self._table.current.get(destination)
            self._check(source, destination, known=session is not None)
            PREFIX_STRUCT.pack_into(frame, HEADROOM, PACKET, *leave(frame))
            plain = frame[HEADROOM:]
            if session is None or (yield from self._seal(session, plain, now)):
                self._wait(destination, plain, now)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1

    def flush(self, session: Session, now: float) -> Iterator[Sending]:
        """Yield what waited for a session's peer; send each before asking for the next."""
        for address in session.peer.addresses:
            if self._table.current.get(address) is not session:
                if address not in self._table.current and address in self._waiting:
                    self._table.connect(address, now)  # closed before its packets could go
                continue
            for plain in self._waiting.take(address):
                try:
                    if (yield from self._seal(session, memoryview(plain), now)):
                        self._drops[Drop.NO_SESSION] += 1
                except Dropped as dropped:
                    self._drops[dropped.reason] += 1

    def give_up(self, address: bytes) -> None:
        """Drop what waits for an address that could not be called."""
        self._drops[Drop.NO_SESSION] += len(self._waiting.take(address))

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

    def _seal(
        self, session: Session, plain: memoryview, now: float
    ) -> Generator[Sending, None, bool]:
        """Yield the records of a packet behind its prefix; return whether the session had ended instead."""
        size = session.path.size
        packet = plain[PREFIX:]
        segment = plain[2] << 8 | plain[3]
        ecn = inner_ecn(packet)
        try:
            if not segment:
                if len(packet) + RECORD_OVERHEAD > size and not may_split(packet):
                    self._refuse_size(packet, size - RECORD_OVERHEAD)
                yield session.seal(plain, size, now), size, session.endpoint, ecn
                session.packets_out += 1
            else:
                if now >= session.limit.due:
                    self._table.ask_loss(session, now)
                transport = _transport(packet)
                for part in self._parts(session, plain, transport, size):
                    yield session.seal(part, size, now), size, session.endpoint, ecn
                session.packets_out += -(-(len(packet) - transport.payload) // segment)
        except Unusable:
            self._table.remove(session, "ended")
            return True
        session.bytes_out += len(packet)
        return False

    def _parts(
        self, session: Session, plain: memoryview, transport: Transport, size: int
    ) -> Iterator[memoryview | bytes]:
        """Yield a super-packet behind its prefix as what one record each may carry."""
        packet, segment = plain[PREFIX:], plain[2] << 8 | plain[3]
        if transport.payload + segment + RECORD_OVERHEAD > size:
            self._refuse_size(packet, size - RECORD_OVERHEAD)
        most = min(session.limit.most, LARGEST_SEND // size)
        room = most * (size - RECORD_HEADER) - TAG
        if len(plain) <= room:
            yield plain
            return
        segments = max(1, (room - PREFIX - transport.payload) // segment)
        for part, part_segment in split(packet, transport, segment, segments):
            yield PREFIX_STRUCT.pack(PACKET, UNFINISHED, part_segment) + part

    def _refuse_size(self, packet: memoryview, fits: int) -> NoReturn:
        error = too_big(packet, fits)
        if error is not None:
            self.replies.append(bytes(VNET_HEADER) + error)
        raise Dropped(Drop.TOO_BIG, f"{len(packet)} bytes where {fits} fit")


def _transport(packet: memoryview) -> Transport:
    found = find_transport(packet)
    if found is None:
        raise RuntimeError("a super-packet has a transport header: `leave` looked")
    return found
