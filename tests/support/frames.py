"""What a capture holds: pcap files, Ethernet frames, IP packets and UDP datagrams, read only as
far as the tests ask. Sources: pcap-savefile(5), RFC 791, RFC 8200 sections 3 and 4.5, RFC 768.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

ETHERNET: Final = 14
MARKER_ETHERTYPE: Final = 0x88B5  # IEEE 802, local experimental: ends a capture, see capture.py
UDP: Final = 17
FRAGMENT_HEADER: Final = 44

_ETHERTYPES: Final = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6"}
_PROTOCOLS: Final = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_ICMPV6_NEIGHBOUR: Final = range(133, 138)  # RFC 4861 section 4
_MLD: Final = (130, 131, 132, 143)  # RFC 2710, RFC 3810
_SESSION_TYPES: Final = {1: "HELLO", 2: "RETRY", 3: "FLIGHT", 4: "HINT"}
_RECORD_TYPES: Final = range(128, 192)

_PCAP_HEADER = struct.Struct("=IHHiIII")
_PCAP_RECORD = struct.Struct("=IIII")
_PCAP_MAGIC: Final = 0xA1B2C3D4
_LINKTYPE_ETHERNET: Final = 1


class FrameError(Exception):
    """A capture file or a frame that is not what it should be."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One IP packet; `payload` follows the IP header (and IPv6's fragment header, if first)."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    protocol: int
    payload: bytes
    fragment_offset: int = 0

    def udp(self) -> Datagram | None:
        """Give the UDP datagram that it carries; None for anything else and later fragments."""
        if self.protocol != UDP or self.fragment_offset or len(self.payload) < 8:
            return None
        source_port, destination_port = struct.unpack_from("!HH", self.payload)
        return Datagram(self, source_port, destination_port, self.payload[8:])


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram, or what offloading shows as one."""

    packet: Packet
    source_port: int
    destination_port: int
    payload: bytes


def write_pcap(frames: list[bytes]) -> bytes:
    """Write frames as a capture file holds them; all of time zero."""
    header = _PCAP_HEADER.pack(_PCAP_MAGIC, 2, 4, 0, 0, 262144, _LINKTYPE_ETHERNET)
    records = (_PCAP_RECORD.pack(0, 0, len(frame), len(frame)) + frame for frame in frames)
    return header + b"".join(records)


def parse_pcap(file_untrusted: bytes) -> list[bytes]:
    """Read a capture file of this machine's byte order into frames, in order.

    Raises `FrameError` for another format, a cut file and frames that were not captured whole.
    """
    try:
        magic, _, _, _, _, _, linktype = _PCAP_HEADER.unpack_from(file_untrusted)
        if magic != _PCAP_MAGIC or linktype != _LINKTYPE_ETHERNET:
            raise FrameError(
                f"magic {magic:#x}, link type {linktype}: not a capture of Ethernet frames"
            )
        frames: list[bytes] = []
        at = _PCAP_HEADER.size
        while at < len(file_untrusted):
            _, _, held, length = _PCAP_RECORD.unpack_from(file_untrusted, at)
            at += _PCAP_RECORD.size
            if held != length or at + held > len(file_untrusted):
                raise FrameError(
                    f"frame {len(frames)}: {length} bytes on the wire, not all in the file"
                )
            frames.append(file_untrusted[at : at + held])
            at += held
    except struct.error as error:
        raise FrameError(f"the file ends within a header: {error}") from error
    return frames


def parse_packet(frame_untrusted: bytes) -> Packet | None:
    """Read the IP packet in an Ethernet frame; None if it holds another protocol.

    Does not verify checksums (offloading leaves them open). Raises `FrameError`.
    """
    try:
        (ethertype,) = struct.unpack_from("!H", frame_untrusted, 12)
        match _ETHERTYPES.get(ethertype):
            case "IPv4":
                return _parse_ipv4(frame_untrusted[ETHERNET:])
            case "IPv6":
                return _parse_ipv6(frame_untrusted[ETHERNET:])
            case _:
                return None
    except struct.error as error:
        raise FrameError(f"a frame of {len(frame_untrusted)} bytes ends within a header") from error


def _parse_ipv4(packet_untrusted: bytes) -> Packet:
    version_length, length, fragment, protocol, source, destination = struct.unpack_from(
        "!BxH2xHxB2x4s4s", packet_untrusted
    )
    header = 4 * (version_length & 15)
    if version_length >> 4 != 4 or not 20 <= header <= length <= len(packet_untrusted):
        raise FrameError(f"IPv4: header {header}, length {length} in {len(packet_untrusted)} bytes")
    return Packet(
        IPv4Address(source),
        IPv4Address(destination),
        protocol,
        packet_untrusted[header:length],
        8 * (fragment & 0x1FFF),
    )


def _parse_ipv6(packet_untrusted: bytes) -> Packet:
    first, length, protocol, source, destination = struct.unpack_from(
        "!B3xHBx16s16s", packet_untrusted
    )
    if first >> 4 != 6 or 40 + length > len(packet_untrusted):
        raise FrameError(f"IPv6: length {length} in {len(packet_untrusted)} bytes")
    payload = packet_untrusted[40 : 40 + length]
    offset = 0
    if protocol == 0 and payload:  # hop-by-hop options, which MLD carries
        protocol, payload = payload[0], payload[8 * (payload[1:2] or b"\0")[0] + 8 :]
    if protocol == FRAGMENT_HEADER:
        protocol, offset_flags = struct.unpack_from("!BxH4x", payload)
        offset, payload = offset_flags & 0xFFF8, payload[8:]
    return Packet(IPv6Address(source), IPv6Address(destination), protocol, payload, offset)


def kind_of(frame_untrusted: bytes, session_port: int) -> str:
    """Name what a listener sees in a frame: `session RECORD`, `TCP`, `neighbour discovery`, ..."""
    try:
        packet = parse_packet(frame_untrusted)
    except FrameError:
        return "malformed"
    if packet is None:
        ethertype = int.from_bytes(frame_untrusted[12:14], "big")
        return _ETHERTYPES.get(ethertype, f"ethertype {ethertype:#06x}")
    datagram = packet.udp()
    if datagram and datagram.source_port == datagram.destination_port == session_port:
        return f"session {_session_type(datagram.payload)}"
    kind = _PROTOCOLS.get(packet.protocol, f"protocol {packet.protocol}")
    if packet.fragment_offset:
        return f"{kind} fragment"
    if kind == "ICMPv6" and packet.payload[:1]:
        if packet.payload[0] in _ICMPV6_NEIGHBOUR:
            return "neighbour discovery"
        if packet.payload[0] in _MLD:
            return "multicast listener discovery"
    return kind


def _session_type(payload_untrusted: bytes) -> str:
    if not payload_untrusted:
        return "empty"
    kind = payload_untrusted[0]
    if kind in _RECORD_TYPES:
        return "RECORD"
    return _SESSION_TYPES.get(kind, f"type {kind}")
