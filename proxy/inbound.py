"""A packet's way in: UDP to TUN, the steps of `proxy.outbound` backwards.

1. `Inbound.datagrams`: what one receive brought, maybe many datagrams of one size.
   What is no record goes to the handshakes (`SessionTable.receive_datagram`).
2. A record that lies whole among them is opened at once (`_open_whole`), else each datagram by itself (`_record`):
   lengths and receiver index find the session; counter, token and AEAD open the record when its last one has come.
3. `_deliver`: the first record confirms its session; control records are the table's.
4. `_packet`: the sender's certificate names the packet's source, its destination is ours, its port becomes ours where
   peers know another (`proxy.flow.target_ports`), and the rules let it in; marks go inside, an endpoint that we called
   by a Service's address gets that back, and tenc0 is told what the sender's kernel left to be done.
5. The driver writes the frame to tenc0.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from proxy.drops import Drop, Drops
from proxy.errors import Dropped
from proxy.flow.policy import Policy
from proxy.flow.target_ports import TargetPorts
from proxy.flow.translation import Translation
from proxy.packet.ecn import decapsulate
from proxy.packet.ip import parse_packet
from proxy.packet.quote import quotes_another
from proxy.packet.refusal import refuse
from proxy.packet.virtio import VNET_HEADER, arrive
from proxy.session.cookie import Endpoint
from proxy.session.pieces import LARGEST_RECORD, Pieces, piece_size
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.session.wire import (
    CANONICAL_STRUCT,
    MOST_DATAGRAMS,
    PACKET,
    PREFIX,
    PREFIX_STRUCT,
    RECORD,
    RECORD_HEADER,
    TAG,
)

# As in `proxy.outbound`: opened in place, the prefix where the virtio header's last bytes will be.
HEADROOM: Final = VNET_HEADER - PREFIX

_OTHER_FAMILY: Final = 20
"""Bytes by which the tunnel's MTU of a pod with IPv4 alone is larger, on the same network."""


class Inbound:
    """Datagrams of peers to packets for this pod."""

    def __init__(  # noqa: PLR0913 - what decides about a packet
        self,
        table: SessionTable,
        own: frozenset[bytes],
        drops: Drops,
        mtu: int,
        policy: Policy | None = None,
        *,
        translation: Translation | None = None,
        target_ports: TargetPorts | None = None,
    ) -> None:
        """Deliver to the packed addresses ``own`` only, what fits tenc0's ``mtu`` and ``policy`` lets in.

        ``translation`` and ``target_ports`` are those of `proxy.outbound`.
        """
        self._policy = policy
        self._translation = Translation(own) if translation is None else translation
        self._target_ports = target_ports
        self.refusals: list[tuple[Session, bytes]] = []
        """What tells peers that their packets were refused, one for each at most; whoever calls us takes them."""
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
    ) -> Iterable[memoryview]:
        """Take the ``total`` bytes in `buffer`: datagrams of ``size`` bytes, the last may be shorter.

        Gives virtio header and packet to write to TUN; write each before asking for the next. ``ecn`` is the field
        outside (RFC 3168), which nobody has authenticated. Handshakes, control records, incomplete records and what
        is refused and counted give nothing.
        """
        if total > size:
            return self._many(total, size, source, now, ecn)
        if not total or self.buffer[0] < RECORD:
            self._table.receive_datagram(self.buffer[:total], source, now)
            return ()
        frame = self._record(self.buffer[:total], source, now, ecn)
        return () if frame is None else (frame,)

    def _many(
        self, total: int, size: int, source: Endpoint, now: float, ecn: int
    ) -> Iterator[memoryview]:
        # Records alone: the kernel sorts by the first byte of what it joined, and handshakes have a queue of their own.
        at, whole = 0, True
        while at < total:
            several = whole and self.buffer[at] != RECORD
            end = self._whole_end(at, size, total) if several else 0
            session, length = self._open_whole(at, size, source, now, ecn) if end else (None, 0)
            if session is not None and length:
                frame = self._deliver(session, length, source, now, several=True)
            else:
                # No whole record, or not what it seemed: each datagram is judged alone, and all behind it.
                whole = not end
                end = min(at + size, total)
                frame = self._record(self.buffer[at:end], source, now, ecn)
            if frame is not None:
                yield frame
            at = end

    def _whole_end(self, at: int, size: int, total: int) -> int:
        """Return where a record of several datagrams ends that may lie whole and in order at ``at``; 0 without one."""
        if total - at <= RECORD_HEADER:
            return 0
        kind, segment, sealed, _, _ = CANONICAL_STRUCT.unpack_from(self.buffer, at)
        count = kind - RECORD + 1
        end: int = at + sealed + count * RECORD_HEADER
        shorter = at + count * size - end
        # Only the receive's last datagram may be shorter than the others.
        if end > total or segment or (shorter and end != total):
            return 0
        possible = 1 < count <= MOST_DATAGRAMS and 0 <= shorter < size - RECORD_HEADER
        return end if possible and sealed > TAG else 0

    def _open_whole(
        self, at: int, size: int, source: Endpoint, now: float, ecn: int
    ) -> tuple[Session | None, int]:
        """Open what may be a whole record; a length of 0 where it is none, and then nothing has changed."""
        _, _, _, index, _ = CANONICAL_STRUCT.unpack_from(self.buffer, at)
        session = self._table.sessions.get(index)
        if session is None or not session.may_receive(source, now):
            return None, 0
        return session, session.open_whole(self._received, at, size, self._plain, now, ecn)

    def _record(
        self, data_untrusted: memoryview, source: Endpoint, now: float, ecn: int
    ) -> memoryview | None:
        try:
            piece = piece_size(data_untrusted)
            session = self._session(data_untrusted, source, now)
            length = session.open(data_untrusted, piece, self._plain, now, ecn)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1
            return None
        several = data_untrusted[0] != RECORD
        return self._deliver(session, length, source, now, several=several) if length else None

    def _session(self, record_untrusted: memoryview, source: Endpoint, now: float) -> Session:
        """Return the session of a record's datagram, which may come from ``source`` and now."""
        _, _, _, index, counter = CANONICAL_STRUCT.unpack_from(record_untrusted)
        session = self._table.sessions.get(index)
        if session is None:
            self._table.hint(index, counter, source, now)
            raise Dropped(Drop.UNKNOWN_INDEX)
        if session.opener.is_spent:
            self._table.remove(session, "ended")
        elif session.may_receive(source, now):
            return session
        elif now < session.ends:
            raise Dropped(Drop.WRONG_ENDPOINT)
        raise Dropped(Drop.SESSION_ENDED)

    def _deliver(
        self, session: Session, length: int, source: Endpoint, now: float, *, several: bool
    ) -> memoryview | None:
        """Take what opened, prefix and body in `_plain`; return the frame of a packet."""
        plain = self._plain[:length]
        try:
            kind, flags, segment = _parse_prefix(plain, several=several)
            if not session.confirmed:
                self._table.first_record(session, plain, now)
            if source != session.endpoint:
                self._table.heard_from(session, source, now)
            if kind != PACKET:
                self._table.control(session, plain, source, now)
                return None
            self._frame[:VNET_HEADER] = self._packet(session, plain[PREFIX:], flags, segment, now)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1
            return None
        return self._frame[: HEADROOM + length]

    def _packet(
        self, session: Session, packet_untrusted: memoryview, flags: int, segment: int, now: float
    ) -> bytes:
        """Judge a packet that the peer sealed; return the virtio header for it."""
        source, destination = parse_packet(packet_untrusted)
        if source not in session.peer.addresses:
            raise Dropped(Drop.FOREIGN_SOURCE)
        if destination not in self._own:
            raise Dropped(Drop.FOREIGN_DESTINATION)
        if quotes_another(packet_untrusted, self._own, session.peer.addresses):
            raise Dropped(Drop.FOREIGN_QUOTE)
        if self._target_ports is not None:
            self._target_ports.arriving(packet_untrusted, now, unfinished=bool(flags))
        policy = self._policy
        if policy is not None and not policy.idle:
            self._judge(policy, session, packet_untrusted, now)
        header, count = arrive(packet_untrusted, flags, segment, self._mtu + _OTHER_FAMILY)
        if session.opener.ecn:
            decapsulate(packet_untrusted, session.opener.ecn)
        if source in self._translation.answering:
            self._translation.incoming(packet_untrusted, now, unfinished=bool(flags))
        session.packets_in += count
        session.bytes_in += len(packet_untrusted)
        return header

    def _judge(self, policy: Policy, session: Session, packet: memoryview, now: float) -> None:
        if not policy.incoming(session.peer.identity, packet, now):
            refusal = refuse(packet)
            if refusal is not None:
                self.refusals.append((session, refusal))
            raise Dropped(Drop.POLICY_IN)


def _parse_prefix(plain_untrusted: memoryview, *, several: bool) -> tuple[int, int, int]:
    """Return kind, flags and segment size; only packets have the latter two, and records of several datagrams."""
    if len(plain_untrusted) < PREFIX:
        raise Dropped(Drop.PACKET_MALFORMED, "record's prefix")
    prefix: tuple[int, int, int] = PREFIX_STRUCT.unpack_from(plain_untrusted)
    if prefix[0] != PACKET and (prefix[1] or prefix[2] or several):
        raise Dropped(Drop.PACKET_MALFORMED, "control record's prefix, or datagrams")
    return prefix
