"""A packet's way out: TUN to UDP.

1. `Outbound.packets`: tenc0 gave a packet, or a super-packet of many segments; what does its header say?
2. `_translate`: a Service's address becomes that of an endpoint (`proxy.flow.translation`), which may be ourselves.
   `_check`: is it ours, and does it go to a member? An address that nobody has named waits (4) for a lookup.
3. The rules let it go to that peer, and the session of its destination seals it, if the path carries its size; without
   one it waits (4) and the destination is called. A super-packet is one record, or a few where the path wants small
   ones (`_parts`), or one for each of its packets where no receiver would know its shape (`_seal_alone`).
5. The driver sends the datagrams, and writes `Outbound.replies` to tenc0: what the application must be told.
   `Outbound.heard` lets the waiting go once a session is there.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NoReturn

from proxy.drops import Drop, Drops
from proxy.errors import Dropped, Unusable
from proxy.flow.lookups import Lookups
from proxy.flow.membership import Kind, Membership
from proxy.flow.policy import Policy
from proxy.flow.target_ports import TargetPorts
from proxy.flow.translation import Translation
from proxy.flow.waiting import WaitingPackets
from proxy.packet.ecn import inner_ecn
from proxy.packet.ip import parse_packet
from proxy.packet.refusal import refuse
from proxy.packet.segments import alone, returned, split
from proxy.packet.too_big import may_split, too_big
from proxy.packet.transport import find_transport
from proxy.packet.virtio import MOST_SEGMENTS, UNFINISHED, VNET_HEADER, leave
from proxy.session.cookie import Endpoint
from proxy.session.events import (
    CallFailed,
    Event,
    RendezvousDone,
    ServedByOurselves,
    SessionClosed,
    SessionOpened,
)
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

_MOST_WAYS: Final = 4096

_TOLD: Final = frozenset({Drop.NOT_A_MEMBER, Drop.UNKNOWN_ADDRESS, Drop.NO_ENDPOINT})
"""What an application hears of at once; other refusals are its own mistakes, or pass."""

Sending = tuple[memoryview | bytes, int, Endpoint, int]
"""Datagrams back to back, the size of each but the last, where they go, and the ECN field that they get."""


class Outbound:
    """Packets of this pod to sealed datagrams."""

    def __init__(  # noqa: PLR0913 - what decides about a packet
        self,
        table: SessionTable,
        own: frozenset[bytes],
        members: Membership,
        drops: Drops,
        *,
        lookups: Lookups | None = None,
        policy: Policy | None = None,
        translation: Translation | None = None,
        target_ports: TargetPorts | None = None,
    ) -> None:
        """Take packets from the packed addresses ``own`` to ``members``; ``lookups`` of who may be one.

        ``policy`` says what of it may go to whom, ``translation`` where Services' addresses lead, ``target_ports`` by
        which ports peers know ours.
        """
        self._table = table
        self._own = own
        self._members = members
        self.lookups = lookups or Lookups(possible=False)
        self._policy = policy
        self._translation = Translation(own) if translation is None else translation
        self._target_ports = target_ports
        self._ways: set[tuple[bytes, bytes]] = set()
        members.changed.append(self._ways.clear)
        self._waiting = WaitingPackets()
        self._drops = drops
        self.replies: list[bytes] = []
        """Frames for tenc0, one a packet refused at most; whoever calls us takes them."""

    def packets(self, frame: memoryview, now: float) -> Iterable[Sending]:
        """Take virtio header and packet as read from TUN; give what to send, if anything can be sent now.

        The frame's header is overwritten. Send each before asking for the next. Refusals are counted.
        """
        try:
            way = parse_packet(frame[VNET_HEADER:])
            flags, segment = leave(frame)
            if way[1] in self._translation.addresses and way[0] in self._own:
                way = way[0], self._translate(frame, flags, segment, now)
                if way[1] in self._own:
                    return ()
            known = way in self._ways or self._check(way)
            session = self._table.current.get(way[1]) if known else None
            if segment and not flags:
                return self._seal_alone(session, way[1], frame, now)
            PREFIX_STRUCT.pack_into(frame, HEADROOM, PACKET, flags, segment)
            plain = frame[HEADROOM:]
            if session is not None:
                try:
                    return self._seal(session, plain, now)
                except Unusable:
                    self._table.remove(session, "ended")
            self._wait(way[1], plain, now)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1
            if dropped.reason in _TOLD:
                self._refuse(frame[VNET_HEADER:], dropped.reason)
        return ()

    def heard(self, event: Event, now: float) -> Iterable[Sending]:
        """Give what an event of the sessions lets go; send each before asking for the next."""
        match event:
            case SessionOpened(session):
                return self._flush(session, now)
            case CallFailed(address):
                self.give_up(address)
            case RendezvousDone(address, session):
                return self._met(address, session.peer.addresses, now)
            case ServedByOurselves(address):
                return self._met(address, self._own, now)
            case SessionClosed(session):
                self._closed(session)
            case _:
                pass
        return ()

    def _flush(self, session: Session, now: float) -> Iterator[Sending]:
        """Yield what waited for a session's peer."""
        for address in session.peer.addresses:
            if self._table.current.get(address) is not session:
                if address not in self._table.current and address in self._waiting:
                    self._call(address, now)  # closed before its packets could go
                continue
            for plain in self._waiting.take(address):
                try:
                    yield from self._seal(session, memoryview(bytearray(plain)), now)
                except Dropped as dropped:
                    self._drops[dropped.reason] += 1
                except Unusable:
                    self._table.remove(session, "ended")
                    self._drops[Drop.NO_SESSION] += 1

    def _met(self, virtual: bytes, pod: Iterable[bytes], now: float) -> Iterator[Sending]:
        """Have a pod, by its packed addresses, serve a virtual address, and yield what waited for that.

        If it is this one, nothing is yielded, and `replies` has it.
        """
        self._translation.rendezvous(virtual, pod, now)
        for waited in self._waiting.take(virtual):
            frame = memoryview(bytearray(bytes(HEADROOM) + waited))
            _, flags, segment = PREFIX_STRUCT.unpack_from(waited)
            try:
                destination = self._translate(frame, flags, segment, now)
                if destination in self._own:
                    continue
                serving = self._table.current.get(destination)
                if serving is not None:
                    yield from self._seal(serving, frame[HEADROOM:], now)
                elif destination != virtual:
                    self._wait(destination, frame[HEADROOM:], now)
                else:  # whoever serves it can be no endpoint of this flow
                    self._drops[Drop.NO_ENDPOINT] += 1
                    self._refuse(frame[VNET_HEADER:], Drop.NO_ENDPOINT)
            except Dropped as dropped:
                self._drops[dropped.reason] += 1
                if dropped.reason in _TOLD:
                    self._refuse(frame[VNET_HEADER:], dropped.reason)
            except Unusable:
                self._drops[Drop.NO_SESSION] += 1

    def _closed(self, session: Session) -> None:
        """Have a peer serve no virtual address any longer, if this was its last session."""
        if not any(address in self._table.current for address in session.peer.addresses):
            self._translation.gone(session.peer.addresses)

    def give_up(self, address: bytes, reason: Drop = Drop.NO_SESSION) -> None:
        """Refuse what waits for an address that could not be called, and tell the applications."""
        for plain in self._waiting.take(address):
            self._drops[reason] += 1
            self._refuse(memoryview(plain)[PREFIX:], reason)

    def looked_up(self, address: bytes, now: float) -> None:
        """Go on with what waited for a lookup: call a member, refuse what goes to nobody's."""
        is_member = address in self._members
        self.lookups.ended(address, now, in_vain=not is_member)
        if not is_member:
            self.give_up(address, Drop.UNKNOWN_ADDRESS)
        elif address in self._waiting:
            self._call(address, now)

    @property
    def waiting(self) -> int:
        """How many packets wait for a session."""
        return len(self._waiting)

    def _translate(self, frame: memoryview, flags: int, segment: int, now: float) -> bytes:
        """Translate a frame's packet; return where it goes, an own address where it was delivered."""
        packet = frame[VNET_HEADER:]
        destination = self._translation.outgoing(packet, now, unfinished=bool(flags))
        if destination in self._own:
            self.replies += returned(frame, flags, segment)
        return destination

    def _check(self, way: tuple[bytes, bytes]) -> bool:
        """Say whether a packet goes to a member, which is remembered; False where nobody knows. Refuse all others."""
        source, destination = way
        if source not in self._own:
            raise Dropped(Drop.FOREIGN_SOURCE)
        if destination in self._own:
            raise Dropped(Drop.OWN_ADDRESS)
        kind = self._members.judge(destination).kind
        if kind is Kind.UNKNOWN:
            return False
        if kind is not Kind.MEMBER:
            raise Dropped(Drop.NOT_A_MEMBER)
        if len(self._ways) == _MOST_WAYS:
            self._ways.clear()
        self._ways.add(way)
        return True

    def _wait(self, destination: bytes, plain: memoryview, now: float) -> None:
        # First the call: a full queue must not keep an address from being called.
        if destination in self._members:
            self._call(destination, now)
        else:
            self.lookups.begin(destination, now)
        self._waiting.add(destination, bytes(plain))

    def _call(self, address: bytes, now: float) -> None:
        self._table.connect(address, now, rendezvous=self._translation.may_meet(address))

    def send_back(self, session: Session, packet: bytes, now: float) -> Iterable[Sending]:
        """Give what tells a peer that its packet was refused; no rule asks about it."""
        plain = memoryview(bytearray(bytes((PACKET, 0, 0, 0)) + packet))
        if self._target_ports is not None:
            self._target_ports.leaving(plain[PREFIX:], now)
        try:
            sealed = session.seal(plain, session.path.size, now)
        except Unusable:
            self._table.remove(session, "ended")
            return ()
        return ((sealed, session.path.size, session.endpoint, 0),)

    def _judge(self, policy: Policy, session: Session, packet: memoryview, now: float) -> None:
        if not policy.outgoing(session.peer.identity, packet, now):
            self._refuse(packet)
            raise Dropped(Drop.POLICY_OUT)

    def _refuse(self, packet: memoryview, reason: Drop = Drop.POLICY_OUT) -> None:
        """Tell the application that sent a parsed packet."""
        prohibited, passes = reason is not Drop.NO_ENDPOINT, reason is not Drop.POLICY_OUT
        self._reply(refuse(packet, prohibited=prohibited, passes=passes))

    def _reply(self, packet: bytes | None) -> None:
        """Write to tenc0 what speaks of a packet as it would have left, in the addresses that its application knows."""
        if packet is None:
            return
        frame = bytearray(VNET_HEADER) + packet
        told = memoryview(frame)[VNET_HEADER:]
        self._translation.back(told)
        if self._target_ports is not None:
            self._target_ports.back(told)
        self.replies.append(bytes(frame))

    def _seal(self, session: Session, plain: memoryview, now: float) -> Iterable[Sending]:
        """Give the record of a packet behind its prefix, or the few of a super-packet; refuse what rules refuse."""
        policy = self._policy
        if policy is not None and not policy.idle:
            self._judge(policy, session, plain[PREFIX:], now)
        if self._target_ports is not None:
            self._target_ports.leaving(plain[PREFIX:], now, unfinished=bool(plain[1]))
        if plain[2] or plain[3]:
            return self._seal_super(session, plain, now)
        size = session.path.size
        if len(plain) + (RECORD_OVERHEAD - PREFIX) > size and not may_split(plain[PREFIX:]):
            self._refuse_size(plain[PREFIX:], size - RECORD_OVERHEAD)
        sealed = session.seal(plain, size, now)
        session.packets_out += 1
        session.bytes_out += len(plain) - PREFIX
        return ((sealed, size, session.endpoint, inner_ecn(plain[PREFIX:])),)

    def _seal_alone(
        self, session: Session | None, destination: bytes, frame: memoryview, now: float
    ) -> Iterator[Sending]:
        """Give the records of a super-packet that no receiver would know: one for each of its packets."""
        try:
            for part in alone(frame):
                plain = memoryview(bytearray(PREFIX) + part)
                if session is None:
                    self._wait(destination, plain, now)
                    continue
                try:
                    yield from self._seal(session, plain, now)
                except Unusable:
                    self._table.remove(session, "ended")
                    session = None
                    self._wait(destination, plain, now)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1

    def _seal_super(self, session: Session, plain: memoryview, now: float) -> Iterator[Sending]:
        try:
            if now >= session.limit.due:
                self._table.ask_loss(session, now)
            size, ecn = session.path.size, inner_ecn(plain[PREFIX:])
            for part in self._parts(session, plain, size):
                yield session.seal(part, size, now), size, session.endpoint, ecn
        except Dropped as dropped:
            self._drops[dropped.reason] += 1
        except Unusable:
            self._table.remove(session, "ended")
            self._drops[Drop.NO_SESSION] += 1

    def _parts(
        self, session: Session, plain: memoryview, size: int
    ) -> Iterator[memoryview | bytes]:
        """Yield a super-packet behind its prefix as what one record each may carry."""
        packet, segment = plain[PREFIX:], plain[2] << 8 | plain[3]
        transport = find_transport(packet)
        if transport is None:
            raise RuntimeError("a super-packet has a transport header: `leave` looked")
        payload = transport[2]
        session.packets_out += -(-(len(packet) - payload) // segment)
        session.bytes_out += len(packet)
        most = min(session.limit.most, LARGEST_SEND // size)
        room = most * (size - RECORD_HEADER) - TAG
        fits = payload + segment + RECORD_OVERHEAD <= size
        if fits and len(plain) <= room and len(packet) - payload <= MOST_SEGMENTS * segment:
            yield plain
            return
        segments = min(MOST_SEGMENTS, (room - PREFIX - payload) // segment) if fits else 1
        for part, part_segment in split(packet, transport, segment, max(1, segments)):
            if not fits and len(part) + RECORD_OVERHEAD > size and not may_split(memoryview(part)):
                self._refuse_size(memoryview(part), size - RECORD_OVERHEAD)
            yield PREFIX_STRUCT.pack(PACKET, UNFINISHED, part_segment) + part

    def _refuse_size(self, packet: memoryview, fits: int) -> NoReturn:
        self._reply(too_big(packet, fits))
        raise Dropped(Drop.TOO_BIG, f"{len(packet)} bytes where {fits} fit")
