"""What a pod's frames show of it and one peer: canaries inside and outside, datagrams of sessions, anything else.

Functions of bytes that anybody may have sent: nothing here raises on account of a frame.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct
from typing import Final

from proxy.verify.messages import CANARY

ENTRY: Final = Struct(">?H24s")
"""A datagram of a session's ports: whether it left, its size (UDP payload), and its first 24 bytes (zeros behind)."""

MOST_ENTRIES: Final = 50_000
"""In each direction; what leaves behind them counts as missed, what comes is looked at for canaries alone."""

OUTGOING, UDP, IPV6 = 1, 2, 4
"""Bit ``OUTGOING + UDP + IPV6`` of `Tallies.inside` says that tenc0 showed the canary that belongs there."""

_HEADER: Final = 24
_MOST_TEXTS: Final = 8

_ETHERNET: Final = 14
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_V4: Final = Struct(">BxHxxHxB2x4s4s")
_V6: Final = Struct(">4xHBB16s16s")
_PORTS: Final = Struct(">HH4x")
_PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_WITH_PORTS: Final = frozenset({6, 17, 132})
_MORE_OR_LATER_FRAGMENT: Final = 0x3FFF
# Neighbour solicitation and advertisement, which no router has passed on (RFC 4861 section 7.1).
_NEIGHBOURS: Final = frozenset({135, 136})


@dataclass(slots=True)
class Tallies:
    """What was counted; what is not of the two pods is looked at for canaries alone."""

    inside: int = 0
    canaries_out: int = 0
    canaries_in: int = 0
    clear_out: int = 0
    clear_in: int = 0
    missed: int = 0
    """Frames that the kernel could not queue, or that did not fit."""
    unreadable: int = 0
    """Frames that the kernel could not describe: super-datagrams, before Linux 6.2."""


@dataclass(frozen=True, slots=True)
class _Packet:
    """What an IP header says; ``at`` and ``end`` enclose what is behind it."""

    version: int
    protocol: int
    source: bytes
    destination: bytes
    at: int
    end: int
    whole: bool
    hops: int = 0


class Watch:
    """Tallies of one pod's frames, with one peer in mind."""

    def __init__(
        self,
        own: Iterable[bytes],
        peer: Iterable[bytes],
        port: int,
        ends: Iterable[tuple[bytes, int]] = (),
    ) -> None:
        """Look at what passes between packed addresses; our sessions use UDP ``port``, the peer's also ``ends``."""
        self._own, self._peer = frozenset(own), frozenset(peer)
        self._port = port
        self._ends = frozenset({*((address, port) for address in self._peer), *ends})
        self._canaries = bytes(CANARY), bytes(CANARY)
        self._armed = False
        self.tallies = Tallies()
        self.entries = bytearray()
        """An `ENTRY` of each of the first `MOST_ENTRIES` datagrams of sessions with the peer, each way."""
        self._room = [MOST_ENTRIES, MOST_ENTRIES]
        self.texts: dict[str, None] = {}
        """What should not have been, in words: the first few that differ."""

    def arm(self, out: bytes, back: bytes) -> None:
        """Look for the canary that we send, and for the one that comes, from now on."""
        self._canaries, self._armed = (back, out), True

    def inside(self, buffer: bytearray, size: int, *, outgoing: bool) -> None:
        """Look at the packet in the first ``size`` bytes, on tenc0, for the canary of its direction."""
        if not self._armed or buffer.find(self._canaries[outgoing], 0, size) < 0:
            return
        packet = _read(buffer, 0, size, 4 if buffer[0] >> 4 == 4 else 6)
        if packet is not None and packet.protocol in {6, 17}:
            kind = outgoing * OUTGOING + (packet.protocol == 17) * UDP
            self.tallies.inside |= 1 << kind + (packet.version == 6) * IPV6

    def outside(self, buffer: bytearray, size: int, segment: int, *, outgoing: bool) -> None:
        """Look at a frame elsewhere; ``segment`` is the UDP payload of its datagrams, 0 for one."""
        kind = bytes(buffer[12:14])
        version = 4 if kind == _IPV4 else 6 if kind == _IPV6 else 0
        packet = _read(buffer, _ETHERNET, size, version) if version else None
        if self._armed and any(buffer.find(canary, 0, size) >= 0 for canary in self._canaries):
            self._leak("canary", buffer, packet, outgoing=outgoing)
        elif packet is not None:
            self._judge(buffer, packet, segment, outgoing=outgoing)

    def _judge(self, buffer: bytearray, packet: _Packet, segment: int, *, outgoing: bool) -> None:
        """Keep the headers of sessions' datagrams; count what else passes between the two pods."""
        if packet.protocol == 17 and packet.whole and packet.at + _PORTS.size <= packet.end:
            source, destination = _PORTS.unpack_from(buffer, packet.at)
            here, there = (source, destination) if outgoing else (destination, source)
            other = packet.destination if outgoing else packet.source
            if here == self._port and (other in self._peer or (other, there) in self._ends):
                self._keep(buffer, packet.at + _PORTS.size, packet.end, segment, outgoing=outgoing)
                return
        if packet.protocol == 58 and packet.hops == 255 and buffer[packet.at] in _NEIGHBOURS:
            return
        if outgoing:
            # Whatever source it bears: what leaves towards the peer leaves this pod.
            if packet.destination in self._peer:
                self._leak("clear", buffer, packet, outgoing=True)
        elif packet.source in self._peer and packet.destination in self._own:
            self._leak("clear", buffer, packet, outgoing=False)

    def _keep(self, buffer: bytearray, at: int, end: int, segment: int, *, outgoing: bool) -> None:
        for start in range(at, end, segment or max(end - at, 1)):
            if not self._room[outgoing]:
                # Nobody judges it: what leaves so proves nothing, what comes could be anybody's.
                self.tallies.missed += outgoing
                continue
            self._room[outgoing] -= 1
            stop = min(start + segment, end) if segment else end
            head = bytes(buffer[start : min(start + _HEADER, stop)])
            self.entries += ENTRY.pack(outgoing, (stop - start) & 0xFFFF, head)

    def _leak(
        self, what: str, buffer: bytearray, packet: _Packet | None, *, outgoing: bool
    ) -> None:
        tallies = self.tallies
        if what == "canary":
            tallies.canaries_out += outgoing
            tallies.canaries_in += not outgoing
        else:
            tallies.clear_out += outgoing
            tallies.clear_in += not outgoing
            if not outgoing:
                return  # anybody can send it
        if len(self.texts) < _MOST_TEXTS:
            concerns = packet is None or {packet.source, packet.destination} & self._peer
            way = _way(buffer, packet) if concerns else "a packet between others"
            self.texts[f"{what} {'left' if outgoing else 'came'}: {way}"] = None


def _read(buffer: bytearray, at: int, size: int, version: int) -> _Packet | None:
    """Read an IP header; None where none is."""
    if version == 4:
        if size < at + _V4.size:
            return None
        first, total, fragment, protocol, source, destination = _V4.unpack_from(buffer, at)
        behind = at + (first & 15) * 4
        # A super-packet above 65,535 bytes has no length.
        end = min(at + total, size) if total else size
        whole = not fragment & _MORE_OR_LATER_FRAGMENT
        return _Packet(4, protocol, source, destination, behind, end, whole)
    if size <= at + _V6.size:
        return None
    length, protocol, hops, source, destination = _V6.unpack_from(buffer, at)
    behind = at + _V6.size
    end = min(behind + length, size) if length else size
    return _Packet(6, protocol, source, destination, behind, end, whole=True, hops=hops)


def _way(buffer: bytearray, packet: _Packet | None) -> str:
    """Say who sends a packet to whom, as far as it says."""
    if packet is None:
        return f"a frame of type 0x{bytes(buffer[12:14]).hex()}"
    name = _PROTOCOLS.get(packet.protocol, f"protocol {packet.protocol}")
    one, other = str(ip_address(packet.source)), str(ip_address(packet.destination))
    if not packet.whole or packet.protocol not in _WITH_PORTS or packet.at + 4 > packet.end:
        return f"{name} {one} -> {other}"
    ports = memoryview(buffer)[packet.at : packet.at + 4].tobytes()
    source, destination = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
    return f"{name} {_joined(one, source)} -> {_joined(other, destination)}"


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
