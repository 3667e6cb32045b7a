"""Handing datagrams to `Inbound` as the driver does, and records to an `Opener`."""

from proxy.inbound import Inbound
from proxy.session.cookie import Endpoint
from proxy.session.pieces import piece_size
from proxy.session.record import Opener


def deliver(
    inbound: Inbound, data: bytes, source: Endpoint, now: float, ecn: int = 0, *, size: int = 0
) -> list[bytes]:
    """Let datagrams of ``size`` bytes (all of it: one) arrive in one receive; the frames for tenc0."""
    inbound.buffer[: len(data)] = data
    frames = inbound.datagrams(len(data), size or len(data), source, now, ecn)
    return [bytes(frame) for frame in frames]


def open_datagram(opener: Opener, data: bytes, now: float = 0.0) -> bytes:
    """Open one datagram; empty while pieces are missing."""
    plain = memoryview(bytearray(70_000))
    piece = piece_size(memoryview(data))
    return bytes(plain[: opener.open(memoryview(data), piece, plain, now)])
