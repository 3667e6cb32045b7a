"""The virtio header that a TUN device with IFF_VNET_HDR puts in front of each packet (linux/virtio_net.h).

It says what the kernel left to hardware: a checksum to finish, a super-packet to cut. Two numbers of it travel,
sealed (``docs/decisions/0006``); the receiver makes the header anew from the packet itself.
"""

from struct import Struct
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.packet.checksum import CHECKSUM_AT, TCP, complete
from proxy.packet.ip import ip_header
from proxy.packet.transport import Transport, find_transport

VNET_HEADER: Final = 10
"""Bytes of struct virtio_net_hdr: flags, type, length of all headers, segment size, checksum's start and place."""

UNFINISHED: Final = 1
"""Flag of a sealed packet: its TCP or UDP checksum field holds the sum of the pseudo-header alone."""

MOST_SEGMENTS: Final = 128
"""Of a super-packet (Linux: UDP_MAX_SEGMENTS; tenc0's gso_max_segs for TCP)."""

_HEADER: Final = Struct("=BBHHHH")
_NEEDS_CHECKSUM: Final = 1
_NONE, _TCPV4, _TCPV6, _UDP = 0, 1, 4, 5
_ECN: Final = 0x80
_CWR: Final = 0x80
_SYN_RST: Final = 0x06
_PLAIN: Final = bytes(VNET_HEADER)


def leave(frame: memoryview) -> tuple[int, int]:
    """Return flags and segment size to seal with the packet of a frame that tenc0 gave (header and parsed packet).

    A checksum that the receiver could not finish is finished here, in place. Raises `Dropped` (PACKET_MALFORMED) for
    a header that contradicts its packet: an application may write one. A segment size without flags says that the
    super-packet is for the sender to cut (`segments.alone`).
    """
    flags, kind, _, size, start, at = _HEADER.unpack_from(frame)
    if not flags and not kind:
        return 0, 0
    packet = frame[VNET_HEADER:]
    transport = find_transport(packet)
    if kind == _NONE:
        if not flags & _NEEDS_CHECKSUM:
            return 0, 0
        if transport and start == transport[1] and at == CHECKSUM_AT[transport[0]]:
            return UNFINISHED, 0
        # Never in the IP header: what was read of it is judged already, and must stay as it is.
        if start < ip_header(packet) or start + at + 2 > len(packet):
            raise Dropped(Drop.PACKET_MALFORMED, "checksum outside the packet's payload")
        complete(packet, start, at)
        return 0, 0
    if not flags & _NEEDS_CHECKSUM or not size:
        raise Dropped(Drop.PACKET_MALFORMED, "super-packet")
    if transport is None and kind & ~_ECN == _TCPV6 and packet[0] >> 4 == 6:
        return 0, size  # behind extension headers, as IPV6_DSTOPTS asks for: no receiver would know
    if transport is None or (kind ^ _segmentation(packet, transport)) & ~_ECN:
        raise Dropped(Drop.PACKET_MALFORMED, "super-packet")
    # One segment alone is none; the kernel would not say so, but may.
    return UNFINISHED, size if len(packet) - transport[2] > size else 0


def arrive(packet: memoryview, flags: int, size: int, mtu: int) -> tuple[bytes, int]:
    """Return header and number of packets for a parsed packet that a peer sealed with ``flags`` and segment ``size``.

    Raises `Dropped` (PACKET_MALFORMED) unless each segment fits ``mtu`` and there are 2 to 128 of them.
    """
    if not flags and not size:
        return _PLAIN, 1
    transport = find_transport(packet)
    if flags != UNFINISHED or transport is None:
        raise Dropped(Drop.PACKET_MALFORMED, "flags")
    protocol, at, payload = transport
    kind, count = _NONE, 1
    if size:
        carried = len(packet) - payload
        if not size < carried <= MOST_SEGMENTS * size or payload + size > mtu:
            raise Dropped(Drop.PACKET_MALFORMED, "segment size")
        count = -(-carried // size)
        kind = _segmentation(packet, transport)
    return _HEADER.pack(_NEEDS_CHECKSUM, kind, payload, size, at, CHECKSUM_AT[protocol]), count


def place(frame: memoryview) -> tuple[int, int]:
    """Return segment size and checksum's start of a frame that tenc0 gave."""
    _, _, _, size, start, _ = _HEADER.unpack_from(frame)
    return size, start


def segment_size(header: memoryview) -> int:
    """Return the segment size that a header names, 0 for a single packet."""
    _, kind, _, size, _, _ = _HEADER.unpack(header)
    return size if kind != _NONE else 0


def _segmentation(packet: memoryview, transport: Transport) -> int:
    """Return the type of a super-packet; raises `Dropped` for one that begins or resets a connection: none does."""
    protocol, at, _ = transport
    if protocol != TCP:
        return _UDP
    if packet[at + 13] & _SYN_RST:
        raise Dropped(Drop.PACKET_MALFORMED, "SYN or RST of many segments")
    # Of segments with CWR only the first keeps it (RFC 3168 6.1.2); the kernel wants to be told.
    ecn = _ECN if packet[at + 13] & _CWR else 0
    return (_TCPV4 if packet[0] >> 4 == 4 else _TCPV6) | ecn
