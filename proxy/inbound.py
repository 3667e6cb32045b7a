"""A packet's way in: UDP to TUN, the steps of `proxy.outbound` backwards.

1. `Inbound.datagram`: is it a record? Everything else is the handshakes' (`SessionTable.receive_datagram`).
2. Length and receiver index find the session; source, counter, token and AEAD open the record.
3. The first record confirms its session; control records are the table's.
4. `_check`: the sender's certificate names the packet's source, and its destination is ours; marks go inside.
5. The driver writes the frame to tenc0.
"""

from typing import Final

from proxy.drops import Drop, Drops
from proxy.errors import Dropped, Unusable
from proxy.packet.ecn import decapsulate
from proxy.packet.ip import parse_packet
from proxy.packet.virtio import VNET_HEADER
from proxy.session.cookie import Endpoint
from proxy.session.record import LARGEST_RECORD, check_record_length
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.session.wire import CANONICAL_STRUCT, PACKET, PREFIX, RECORD

# As in `proxy.outbound`: opened in place, the prefix where the virtio header's last bytes will be.
HEADROOM: Final = VNET_HEADER - PREFIX

_NO_HEADER: Final = bytes(VNET_HEADER)


class Inbound:
    """Datagrams of peers to packets for this pod."""

    def __init__(self, table: SessionTable, own: frozenset[bytes], drops: Drops) -> None:
        """Deliver to the packed addresses ``own`` only."""
        self._table = table
        self._own = own
        self._drops = drops
        self._frame = memoryview(bytearray(HEADROOM + LARGEST_RECORD))
        self._plain = self._frame[HEADROOM:]

    def datagram(
        self, data_untrusted: memoryview, source: Endpoint, now: float, ecn: int = 0
    ) -> memoryview | None:
        """Take one datagram; return virtio header and packet to write to TUN, good until the next call.

        ``ecn`` is the field outside (RFC 3168), which nobody has authenticated.
        Returns None for handshakes, control records, incomplete records and all that is refused and counted.
        """
        if not data_untrusted or data_untrusted[0] < RECORD:
            self._table.receive_datagram(data_untrusted, source, now)
            return None
        try:
            return self._record(data_untrusted, source, now, ecn)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1
        return None

    def _record(
        self, datagram_untrusted: memoryview, source: Endpoint, now: float, ecn: int
    ) -> memoryview | None:
        check_record_length(datagram_untrusted)
        _, _, _, index, counter = CANONICAL_STRUCT.unpack_from(datagram_untrusted)
        session = self._table.sessions.get(index)
        if session is None:
            self._table.hint(index, counter, source, now)
            raise Dropped(Drop.UNKNOWN_INDEX)
        try:
            size = session.open(datagram_untrusted, source, self._plain, now, ecn)
        except Unusable:
            self._table.remove(session, "ended")
            raise Dropped(Drop.SESSION_ENDED) from None
        if not size:
            return None
        if size < PREFIX or self._plain[1] or self._plain[2] or self._plain[3]:
            # The last two are the inner segment size, which nobody was offered.
            raise Dropped(Drop.PACKET_MALFORMED, "record's prefix")
        if self._plain[0] != PACKET and datagram_untrusted[0] != RECORD:
            raise Dropped(Drop.PACKET_MALFORMED, "control record of several datagrams")
        if not session.confirmed:
            self._table.first_record(session, self._plain[:size], now)
        if source != session.endpoint:
            self._table.heard_from(session, source, now)
        if self._plain[0] != PACKET:
            self._table.control(session, self._plain[:size], source, now)
            return None
        packet = self._plain[PREFIX:size]
        self._check(session, packet)
        decapsulate(packet, session.opener.ecn)
        session.packets_in += 1
        session.bytes_in += len(packet)
        self._frame[:VNET_HEADER] = _NO_HEADER
        return self._frame[: HEADROOM + size]

    def _check(self, session: Session, packet_untrusted: memoryview) -> None:
        source, destination = parse_packet(packet_untrusted)
        if source not in session.peer.addresses:
            raise Dropped(Drop.FOREIGN_SOURCE)
        if destination not in self._own:
            raise Dropped(Drop.FOREIGN_DESTINATION)
