"""Cutting a super-packet into smaller ones, as the kernel's own segmentation does (net/ipv4/tcp_offload.c's rules).

For a path that loses datagrams, and for a tenc0 that does not take what a peer may send.
"""

from collections.abc import Iterator

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.packet.checksum import CHECKSUM_AT, TCP, add, complete, pseudo_header
from proxy.packet.ip import IPV6_HEADER
from proxy.packet.transport import LEAST_TCP, Transport, find_transport
from proxy.packet.virtio import (
    MOST_SEGMENTS,
    UNFINISHED,
    VNET_HEADER,
    arrive,
    place,
    segment_size,
)

_FIN, _PSH, _CWR = 0x01, 0x08, 0x80


def split(
    packet: memoryview, transport: Transport, size: int, most: int
) -> Iterator[tuple[bytearray, int]]:
    """Yield packets of up to ``most`` segments of ``size`` bytes, and the segment size of each: 0 for a single one.

    Their TCP or UDP checksums stay unfinished. ``packet`` is a super-packet that `leave` or `arrive` took.
    """
    _, _, carries = transport
    head, payload = packet[:carries], packet[carries:]
    step = most * size
    for at in range(0, len(payload), step):
        part = bytearray(head) + payload[at : at + step]
        last = at + step >= len(payload)
        _number(part, transport, at, size, last=last)
        _measure(part, transport)
        yield part, size if len(part) - carries > size else 0


def alone(frame: memoryview) -> Iterator[bytes]:
    """Yield the single packets of a TCP super-packet over IPv6 with extension headers, as tenc0 gave it; finished.

    Raises `Dropped` (PACKET_MALFORMED) where the header that tenc0 gave contradicts the packet.
    """
    size, start = place(frame)
    packet = frame[VNET_HEADER:]
    if not IPV6_HEADER < start <= len(packet) - LEAST_TCP:
        raise Dropped(Drop.PACKET_MALFORMED, "super-packet's TCP header")
    payload = start + (packet[start + 12] >> 4) * 4
    carried = len(packet) - payload
    if payload < start + LEAST_TCP or not 0 < carried <= MOST_SEGMENTS * size:
        raise Dropped(Drop.PACKET_MALFORMED, "super-packet's segments")
    for part, _ in split(packet, (TCP, start, payload), size, 1):
        complete(memoryview(part), start, CHECKSUM_AT[TCP])
        yield bytes(part)


def cut(frame: memoryview) -> Iterator[bytes]:
    """Yield the single packets of a frame that `arrive` made, each behind a header: for a tenc0 that takes no other.

    Nothing for a frame that is a single packet already.
    """
    header, packet = frame[:VNET_HEADER], frame[VNET_HEADER:]
    size = segment_size(header)
    transport = find_transport(packet) if size else None
    if transport is not None:
        for part, _ in split(packet, transport, size, 1):
            yield arrive(memoryview(part), UNFINISHED, 0, len(part))[0] + part


def returned(frame: memoryview, flags: int, size: int) -> list[bytes]:
    """Return frames that give tenc0 back a packet that it gave; ``flags`` and ``size`` are what `leave` returned."""
    if size and not flags:
        return [bytes(VNET_HEADER) + part for part in alone(frame)]
    packet = frame[VNET_HEADER:]
    header, _ = arrive(packet, flags, size, len(packet))
    return [header + bytes(packet)]


def _number(part: bytearray, transport: Transport, at: int, size: int, *, last: bool) -> None:
    """Give a part the identification, sequence number and flags of its place."""
    protocol, upper, _ = transport
    if part[0] >> 4 == 4:
        _increase(part, 4, 2, at // size)
    if protocol == TCP:
        _increase(part, upper + 4, 4, at)
        # FIN and PSH belong to the last byte, CWR (RFC 3168 6.1.2) to the first segment.
        drop = (0 if last else _FIN | _PSH) | (_CWR if at else 0)
        part[upper + 13] &= ~drop & 0xFF


def _measure(part: bytearray, transport: Transport) -> None:
    """Set lengths, the IPv4 header's checksum, and the unfinished one of TCP or UDP."""
    protocol, at, _ = transport
    size = len(part)
    if part[0] >> 4 == 4:
        part[2:4] = size.to_bytes(2, "big")
        part[10:12] = bytes(2)
        part[10:12] = (~add(part[:at]) & 0xFFFF).to_bytes(2, "big")
    else:
        part[4:6] = (size - IPV6_HEADER).to_bytes(2, "big")
    upper = size - at
    if protocol != TCP:
        part[at + 4 : at + 6] = upper.to_bytes(2, "big")
    where = at + CHECKSUM_AT[protocol]
    pseudo = pseudo_header(memoryview(part), protocol, upper)
    part[where : where + 2] = pseudo.to_bytes(2, "big")


def _increase(part: bytearray, at: int, width: int, amount: int) -> None:
    value = int.from_bytes(part[at : at + width], "big") + amount
    part[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "big")
