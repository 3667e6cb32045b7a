"""Fuzz targets of the data path: records, inner packets, super-packets, what one receive brings."""

import contextlib
from ipaddress import ip_address
from struct import pack

from support.arrivals import deliver
from support.check_vectors import PEER, receiver
from support.segmentation import TCP, UDP, Connection

from proxy.errors import Dropped
from proxy.packet.ecn import decapsulate, inner_ecn
from proxy.packet.ip import parse_packet
from proxy.packet.segments import alone, split
from proxy.packet.too_big import may_split, too_big
from proxy.packet.transport import find_transport
from proxy.packet.virtio import VNET_HEADER, arrive, leave
from proxy.session.keys import DirectionKeys
from proxy.session.pieces import SealingBuffer, datagrams, piece_size
from proxy.session.record import Opener, Sealer

GCM = "TLS_AES_256_GCM_SHA384"
KEYS = DirectionKeys(b"k" * 32, b"i" * 12, b"h" * 32, GCM)
SHOWN = {"suite": GCM, "key": "6b" * 32, "iv": "69" * 12, "header_key": "68" * 32, "index": 7}
CASE = {"receiving": SHOWN, "sending": SHOWN, "role": "responder", "confirmed": True}
V4 = ip_address("10.0.0.2").packed, ip_address("10.0.0.1").packed
V6 = ip_address("fd00::2").packed, ip_address("fd00::1").packed
MTU = 1408


def open_record(data: bytes) -> None:
    datagram, opener = memoryview(data), Opener(KEYS)
    opener.open(datagram, piece_size(datagram), memoryview(bytearray(70_000)), 0.0)


def record_seeds() -> list[bytes]:
    sealer = Sealer(KEYS, 7, SealingBuffer())
    small, large = bytes(sealer.seal(bytes(60), 1452)), bytes(sealer.seal(bytes(3000), 1452))
    return [small, *map(bytes, datagrams(large, 1452))]


def packet(data: bytes) -> None:
    """All that the data path does with an inner packet, on its way in and out."""
    parse_packet(memoryview(data))
    may_split(memoryview(data))
    inner_ecn(memoryview(data))
    error = too_big(memoryview(data), 1200)
    if error is not None:
        parse_packet(memoryview(error))
    for outer in range(4):
        arrived = memoryview(bytearray(data))
        with contextlib.suppress(Dropped):
            decapsulate(arrived, outer)
        parse_packet(arrived)


def packet_seeds() -> list[bytes]:
    v4 = bytes.fromhex("4500001c000000004011000000000000") + bytes(4)
    return [
        v4 + bytes(8),
        b"\x60\0\0\0\0\x08\x11\x40" + bytes(40),
        b"\x60\0\0\0\0\x08\0\x40" + bytes(32) + b"\x11" + bytes(7),
    ]


def frame(data: bytes) -> None:
    """What tenc0 may hand over: virtio header and packet; what is taken must cut, and come back as it was."""
    view = memoryview(bytearray(data))
    if len(view) < VNET_HEADER:
        return
    inner = view[VNET_HEADER:]
    parse_packet(inner)
    flags, size = leave(view)
    parse_packet(inner)  # nothing that was judged has changed
    if size and not flags:
        for part in alone(view):
            parse_packet(memoryview(part))
        return
    arrived(bytes((flags,)) + size.to_bytes(2, "big") + bytes(inner))


def arrived(data: bytes) -> None:
    """What a peer may have sealed: flags, segment size, packet; what is taken must cut into whole packets."""
    inner = memoryview(data)[3:]
    if not inner:
        return
    parse_packet(inner)
    size = int.from_bytes(data[1:3], "big")
    _, count = arrive(inner, data[0], size, MTU)
    transport = find_transport(inner)
    if not size or transport is None:
        return
    parts = list(split(inner, transport, size, 1))
    if len(parts) != count or any(one for _, one in parts):
        raise AssertionError("as many packets as were counted")
    for part, _ in parts:
        parse_packet(memoryview(part))
        if len(part) > MTU or find_transport(memoryview(part)) is None:
            raise AssertionError("each a packet that fits")


def frame_seeds() -> list[bytes]:
    flows = (Connection(*V4, TCP), Connection(*V6, TCP), Connection(*V4, UDP), Connection(*V6, UDP))
    kinds = (1, 4, 5, 5)
    starts = ((20, 16), (40, 16), (20, 6), (40, 6))
    odd = pack("=BBHHHH", 1, 4, 0, 100, 48, 16) + behind_options(flows[1].packet(bytes(300)))
    return [odd] + [
        pack("=BBHHHH", 1, kind, 0, size, *start) + flow.packet(bytes(300))
        for flow, some, start in zip(flows, kinds, starts, strict=True)
        for kind, size in ((0, 0), (some, 100))
    ]


def behind_options(packet: bytes) -> bytes:
    length = (len(packet) - 32).to_bytes(2, "big")
    return (
        packet[:4]
        + length
        + b"\x3c"
        + packet[7:40]
        + bytes((TCP, 0, 1, 4, 0, 0, 0, 0))
        + packet[40:]
    )


def arrived_seeds() -> list[bytes]:
    flows = (Connection(*V4, TCP), Connection(*V6, UDP))
    return [b"\1\0\x64" + flow.packet(bytes(300)) for flow in flows]


def joined(data: bytes) -> None:
    """What one receive may bring: a size, then datagrams of that size; nothing may escape."""
    if len(data) < 3:
        return
    size = int.from_bytes(data[:2], "big") or 1
    _, inbound, _, _ = receiver(CASE)
    deliver(inbound, data[2:65_000], PEER, 0.0, size=size)


def joined_seeds() -> list[bytes]:
    sealer = Sealer(KEYS, 7, SealingBuffer())
    body = bytes(4) + Connection(*V4, UDP).packet(bytes(500))
    return [b"\0\xc8" + bytes(sealer.seal(body, 200)) for _ in range(2)]
