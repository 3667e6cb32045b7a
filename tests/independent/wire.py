"""The datagrams of docs/protocol.md sections 2 and 8: bytes to fields and back, nothing else."""

import struct
from dataclasses import dataclass
from typing import Final

VERSION: Final = 1
HELLO, RETRY, FLIGHT, HINT, FIRST_RECORD = 1, 2, 3, 4, 128
PIECE: Final = 1140  # TLS bytes of one FLIGHT
COOKIE_BYTES: Final = 20
MOST_PIECES: Final = 64
LARGEST_SEALED: Final = 65_483

_HELLO: Final = struct.Struct("!BBBB4x8s1184x")
_RETRY: Final = struct.Struct("!BB6x8s20s")
_FLIGHT: Final = struct.Struct("!BBBBI8s8s20sIQHH")
_HINT: Final = struct.Struct("!B3xIQ")
_RECORD: Final = struct.Struct("!BBHIQ8s")
RECORD_HEADER: Final = _RECORD.size

PACKET, DONE, CONFIRM, CLOSE, PING, PONG = range(6)


class WireError(ValueError):
    """A datagram is not of its form, and is to be dropped."""


@dataclass(frozen=True)
class Hello:
    handshake: bytes
    newest: int = VERSION
    oldest: int = VERSION

    def encode(self) -> bytes:
        return _HELLO.pack(HELLO, 1, self.newest, self.oldest, self.handshake)


@dataclass(frozen=True)
class Retry:
    handshake: bytes
    cookie: bytes

    def encode(self) -> bytes:
        return _RETRY.pack(RETRY, VERSION, self.handshake, self.cookie)


@dataclass(frozen=True)
class Flight:
    """`index` is the sender's; `generation` is the initiator's proposal, 0 from a responder."""

    index: int
    initiator: bytes
    responder: bytes = bytes(8)
    cookie: bytes = bytes(COOKIE_BYTES)
    features: int = 0
    generation: int = 0
    offset: int = 0
    received: int = 0
    data: bytes = b""
    newest: int = VERSION
    oldest: int = VERSION

    def encode(self) -> bytes:
        ids = (self.initiator, self.responder, self.cookie)
        numbers = (self.features, self.generation, self.offset, self.received)
        kind = (FLIGHT, VERSION, self.newest, self.oldest, self.index)
        return _FLIGHT.pack(*kind, *ids, *numbers) + self.data

    @property
    def header(self) -> tuple[object, ...]:
        """What stays in a handshake, less the responder's id, which an initiator learns late."""
        versions = (self.newest, self.oldest)
        return (*versions, self.index, self.initiator, self.features, self.generation)


@dataclass(frozen=True)
class Hint:
    index: int
    counter: int

    def encode(self) -> bytes:
        return _HINT.pack(HINT, self.index, self.counter)


@dataclass(frozen=True)
class Record:
    """Datagram `segment` of `count`; `length` is that of all sealed bytes together."""

    count: int
    segment: int
    length: int
    index: int
    counter: int
    token: bytes = bytes(8)
    piece: bytes = b""

    def encode(self) -> bytes:
        kind = FIRST_RECORD + self.count - 1
        where = (kind, self.segment, self.length, self.index, self.counter, self.token)
        return _RECORD.pack(*where) + self.piece

    @property
    def piece_bytes(self) -> int:
        """F, the size of every piece but the last, as this piece has it or implies it.

        `WireError` if there is none: no whole number, or a last piece that is empty or too large.
        """
        if self.segment < self.count - 1:
            size, rest = len(self.piece), 0
        elif self.count == 1:
            size, rest = self.length, len(self.piece) - self.length
        else:
            size, rest = divmod(self.length - len(self.piece), self.count - 1)
        if rest or not 0 < self.length - (self.count - 1) * size <= size:
            raise WireError("length")
        return size

    @property
    def additional(self) -> bytes:
        """AD: the first 16 bytes of the header with segment number 0."""
        return _RECORD.pack(
            FIRST_RECORD + self.count - 1, 0, self.length, self.index, self.counter, b""
        )[:16]


def parse(data_untrusted: bytes) -> Hello | Retry | Flight | Hint | Record:
    """Return what a datagram is; `WireError` unless it is of its form."""
    try:
        parsed = _parse(data_untrusted)
    except (struct.error, IndexError):
        raise WireError("length") from None
    # Whatever the layout leaves zero was not read: it must come back when written again.
    if not isinstance(parsed, Hello) and parsed.encode() != data_untrusted:
        raise WireError("bytes other than zero, or another version")
    return parsed


def _parse(data: bytes) -> Hello | Retry | Flight | Hint | Record:
    match data[0]:
        case 1:
            return _hello(data)
        case 2:
            return Retry(*_RETRY.unpack(data)[2:])
        case 3:
            return _flight(data)
        case 4:
            return Hint(*_HINT.unpack(data)[1:])
        case kind if FIRST_RECORD <= kind < FIRST_RECORD + MOST_PIECES:
            return _record(data)
        case _:
            raise WireError("type")


def _hello(data: bytes) -> Hello:
    _, _, newest, oldest, handshake = _HELLO.unpack(data)
    if any(data[4:8]) or any(data[16:]) or handshake == bytes(8):
        raise WireError("zeros")
    if not newest >= VERSION >= oldest:
        raise WireError("version")
    return Hello(handshake, newest, oldest)


def _flight(data: bytes) -> Flight:
    kind, _, newest, oldest, index, *ids_and_more = _FLIGHT.unpack(data[: _FLIGHT.size])
    initiator, responder, cookie, features, generation, offset, received = ids_and_more
    if len(data) > _FLIGHT.size + PIECE or not newest >= VERSION >= oldest:
        raise WireError("length or version")
    if not index or initiator == bytes(8) or kind != FLIGHT:
        raise WireError("an id or index of 0")
    return Flight(
        *(index, initiator, responder, cookie, features, generation, offset, received),
        *(data[_FLIGHT.size :], newest, oldest),
    )


def _record(data: bytes) -> Record:
    kind, segment, length, index, counter, token = _RECORD.unpack(data[:RECORD_HEADER])
    count = kind - FIRST_RECORD + 1
    record = Record(count, segment, length, index, counter, token, data[RECORD_HEADER:])
    if segment >= count or not 16 < length <= LARGEST_SEALED or not record.piece_bytes:
        raise WireError("length")
    return record
