"""A packet's way in: UDP to TUN, the steps of `proxy.outbound` backwards.

1. `Inbound.datagrams`: what one receive brought, maybe many datagrams of one size. Is it a record? All else is the
   handshakes' (`SessionTable.receive_datagram`).
2. Lengths and receiver index find the session; counter, tokens and AEAD open the record: at once where it lies whole
   in the buffer (`_whole`), else when its last datagram has come (`_single`).
3. The first record confirms its session; control records are the table's.
4. `_check`: the sender's certificate names the packet's source, and its destination is ours; marks go inside, and
   tenc0 is told what the sender's kernel left to be done.
5. The driver writes the frame to tenc0.
"""

from collections.abc import Iterator
from typing import Final

from proxy.drops import Drop, Drops
from proxy.errors import Dropped
from proxy.packet.ecn import decapsulate
from proxy.packet.ip import parse_packet
from proxy.packet.virtio import VNET_HEADER, arrive
from proxy.session.cookie import Endpoint
from proxy.session.pieces import LARGEST_RECORD, Pieces, piece_size
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.session.wire import (
    CANONICAL_STRUCT,
    PACKET,
    PREFIX,
    PREFIX_STRUCT,
    RECORD,
    RECORD_HEADER,
)

# As in `proxy.outbound`: opened in place, the prefix where the virtio header's last bytes will be.
HEADROOM: Final = VNET_HEADER - PREFIX


class Inbound:
    """Datagrams of peers to packets for this pod."""

    def __init__(self, table: SessionTable, own: frozenset[bytes], drops: Drops, mtu: int) -> None:
        """Deliver to the packed addresses ``own`` only, what fits tenc0's ``mtu``."""
        self._table = table
        self._own = own
        self._drops = drops
        self._mtu = mtu
        self._frame = memoryview(bytearray(HEADROOM + LARGEST_RECORD))
        self._plain = self._frame[HEADROOM:]
        self._received = Pieces()
        self.buffer = self._received.buffer
        """Where the driver receives, and where `datagrams` reads."""

    def datagrams(
        self, total: int, size: int, source: Endpoint, now: float, ecn: int = 0
    ) -> Iterator[memoryview]:
        """Take the ``total`` bytes in `buffer`: datagrams of ``size`` bytes, the last may be shorter.

        Yields virtio header and packet to write to TUN; write each before asking for the next. ``ecn`` is the field
        outside (RFC 3168), which nobody has authenticated. Handshakes, control records, incomplete records and what
        is refused and counted yield nothing.
        """
        if not total:
            self._table.receive_datagram(self.buffer[:0], source, now)
        at = 0
        while at < total:
            end = min(at + size, total)
            datagram = self.buffer[at:end]
            try:
                if datagram[0] < RECORD:
                    self._table.receive_datagram(datagram, source, now)
                else:
                    piece = piece_size(datagram)
                    session = self._session(datagram, source, now)
                    whole = self._whole(session, at, size, total)
                    end = whole or end
                    length = (
                        session.open_whole(self._received, at, size, self._plain, now, ecn)
                        if whole
                        else session.open(datagram, piece, self._plain, now, ecn)
                    )
                    frame = length and self._opened(session, datagram, length, source, now)
                    if frame:
                        yield frame
            except Dropped as dropped:
                self._drops[dropped.reason] += 1
            at = end

    def _session(self, record_untrusted: memoryview, source: Endpoint, now: float) -> Session:
        """Return the session of a record's datagram, which may come from ``source`` and now."""
        _, _, _, index, counter = CANONICAL_STRUCT.unpack_from(record_untrusted)
        session = self._table.sessions.get(index)
        if session is None:
            self._table.hint(index, counter, source, now)
            raise Dropped(Drop.UNKNOWN_INDEX)
        if session.is_spent:
            self._table.remove(session, "ended")
            raise Dropped(Drop.SESSION_ENDED)
        session.check(source, now)
        return session

    def _whole(self, session: Session, at: int, size: int, total: int) -> int:
        """Return where a record of several datagrams ends that lies whole and in order at ``at``; 0 without one."""
        kind, segment, sealed, _, _ = CANONICAL_STRUCT.unpack_from(self.buffer, at)
        count = kind - RECORD + 1
        end = at + sealed + count * RECORD_HEADER
        shorter = at + count * size - end
        # Only the receive's last datagram may be shorter than the others.
        possible = count > 1 and not segment and end <= total and (not shorter or end == total)
        if not possible or not 0 <= shorter < size - RECORD_HEADER:
            return 0
        return end if session.opener.is_whole(self._received, at, size) else 0

    def _opened(
        self, session: Session, datagram: memoryview, length: int, source: Endpoint, now: float
    ) -> memoryview | None:
        """Take what opened: prefix and body in `_plain`."""
        plain = self._plain[:length]
        if length < PREFIX:
            raise Dropped(Drop.PACKET_MALFORMED, "record's prefix")
        kind, flags, segment = PREFIX_STRUCT.unpack_from(plain)
        if kind != PACKET and (flags or segment or datagram[0] != RECORD):
            raise Dropped(Drop.PACKET_MALFORMED, "control record's prefix, or several datagrams")
        if not session.confirmed:
            self._table.first_record(session, plain, now)
        if source != session.endpoint:
            self._table.heard_from(session, source, now)
        if kind != PACKET:
            self._table.control(session, plain, source, now)
            return None
        packet = plain[PREFIX:]
        self._check(session, packet)
        header, count = arrive(packet, flags, segment, self._mtu)
        decapsulate(packet, session.opener.ecn)
        session.packets_in += count
        session.bytes_in += len(packet)
        self._frame[:VNET_HEADER] = header
        return self._frame[: HEADROOM + length]

    def _check(self, session: Session, packet_untrusted: memoryview) -> None:
        source, destination = parse_packet(packet_untrusted)
        if source not in session.peer.addresses:
            raise Dropped(Drop.FOREIGN_SOURCE)
        if destination not in self._own:
            raise Dropped(Drop.FOREIGN_DESTINATION)
