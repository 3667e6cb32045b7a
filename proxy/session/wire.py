"""The five datagrams of wire version 1; layouts and reasons stand in ``docs/decisions/0003``.

Parsing takes untrusted bytes and raises `Dropped` (MALFORMED or VERSION) and nothing else.
"""

from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.cookie import COOKIE_SIZE

VERSION: Final = 1
HELLO, RETRY, FLIGHT, HINT = 1, 2, 3, 4
RECORD: Final = 128
"""Types 128 to 191: a datagram of a record of 1 to 64 datagrams."""

MOST_DATAGRAMS: Final = 64
HELLO_SIZE: Final = 1200
FLIGHT_TLS: Final = 1140
"""TLS bytes a FLIGHT carries at most: it fits 1,280 bytes of IPv6 with all headers (RFC 8200 5)."""

RECORD_HEADER: Final = 24
CANONICAL_HEADER: Final = 16
TAG: Final = 16
PREFIX: Final = 4
"""Sealed in front of each body: kind, flags and inner segment size (both 0 but for packets)."""

RECORD_OVERHEAD: Final = RECORD_HEADER + PREFIX + TAG
"""What a record of one datagram adds to its body."""

NONCE: Final = 8
"""Random bytes at the beginning of a PING's body, which its PONG repeats."""

PONG_STRUCT: Final = Struct(f">{NONCE}sII")
"""Body of a PONG: the PING's bytes, records of several datagrams that opened, and that were given up incomplete."""

PONG_SIZE: Final = PONG_STRUCT.size

PACKET, DONE, CONFIRM, CLOSE, PING, PONG, VERIFY, LISTS = range(8)
"""Kinds of records."""

_HELLO = Struct(">BBBBIQ")
_PADDING: Final = bytes(HELLO_SIZE - _HELLO.size)
_RETRY = Struct(f">BBHIQ{COOKIE_SIZE}s")
_FLIGHT = Struct(f">BBBBIQQ{COOKIE_SIZE}sIQHH")
_HINT = Struct(">BBHIQ")
RECORD_STRUCT: Final = Struct(">BBHIQ8s")
CANONICAL_STRUCT: Final = Struct(">BBHIQ")
PREFIX_STRUCT: Final = Struct(">BBH")

FLIGHT_HEADER: Final = _FLIGHT.size
HINT_SIZE: Final = _HINT.size


@dataclass(frozen=True, slots=True)
class Hello:
    """An initiator asks for a cookie and says which versions it speaks."""

    handshake_id: int
    newest: int = VERSION
    oldest: int = VERSION

    def encode(self) -> bytes:
        """Return the datagram, padded so that a RETRY never amplifies."""
        head = _HELLO.pack(HELLO, VERSION, self.newest, self.oldest, 0, self.handshake_id)
        return head.ljust(HELLO_SIZE, b"\0")


@dataclass(frozen=True, slots=True)
class Retry:
    """A responder hands out a cookie and forgets the initiator."""

    handshake_id: int
    cookie: bytes
    version: int = VERSION

    def encode(self) -> bytes:
        """Return the datagram."""
        return _RETRY.pack(RETRY, self.version, 0, 0, self.handshake_id, self.cookie)


@dataclass(frozen=True, slots=True)
class FlightHeader:
    """What each FLIGHT of one direction repeats unchanged; the exporter's context binds all but the cookie."""

    index: int
    initiator_id: int
    responder_id: int
    cookie: bytes = field(compare=False)  # proves an address, says nothing about the handshake
    generation: int = 0  # the initiator's proposal; the responder's choice travels sealed, in DONE
    features: int = 0
    version: int = VERSION
    newest: int = VERSION
    oldest: int = VERSION

    def encode(self, offset: int, received: int, tls: bytes) -> bytes:
        """Return the datagram with a piece of the TLS stream and the acknowledgement of the other's."""
        return (
            _FLIGHT.pack(
                FLIGHT,
                self.version,
                self.newest,
                self.oldest,
                self.index,
                self.initiator_id,
                self.responder_id,
                self.cookie,
                self.features,
                self.generation,
                offset,
                received,
            )
            + tls
        )


@dataclass(frozen=True, slots=True)
class Flight:
    """One received FLIGHT: its header, its place in the sender's TLS stream, what the sender has of ours."""

    header: FlightHeader
    offset: int
    received: int
    tls: bytes


@dataclass(frozen=True, slots=True)
class Hint:
    """A peer knows no session for a record that we sent."""

    index: int
    counter: int

    def encode(self) -> bytes:
        """Return the datagram."""
        return _HINT.pack(HINT, 0, 0, self.index, self.counter)


def parse_handshake(data_untrusted: memoryview) -> Hello | Retry | Flight | Hint:
    """Return the message that the datagram is; records (types of 128 and more) are not handled here."""
    kind = data_untrusted[0] if data_untrusted else 0
    size = len(data_untrusted)
    if kind == HELLO and size == HELLO_SIZE:
        return _parse_hello(data_untrusted)
    if kind == RETRY and size == _RETRY.size:
        _, version, zero, zeros, handshake_id, cookie = _RETRY.unpack(data_untrusted)
        if zero or zeros:
            raise Dropped(Drop.MALFORMED, "RETRY")
        if version != VERSION:
            raise Dropped(Drop.VERSION, "RETRY")
        return Retry(handshake_id, cookie)
    if kind == FLIGHT and FLIGHT_HEADER <= size <= FLIGHT_HEADER + FLIGHT_TLS:
        return _parse_flight(data_untrusted)
    if kind == HINT and size == HINT_SIZE:
        _, zero, zeros, index, counter = _HINT.unpack(data_untrusted)
        if zero or zeros:
            raise Dropped(Drop.MALFORMED, "HINT")
        return Hint(index, counter)
    raise Dropped(Drop.MALFORMED, f"type {kind}, {size} bytes")


def _parse_hello(data: memoryview) -> Hello:
    _, _, newest, oldest, zeros, handshake_id = _HELLO.unpack_from(data)
    if zeros or not handshake_id or bytes(data[_HELLO.size :]) != _PADDING:
        raise Dropped(Drop.MALFORMED, "HELLO")
    if not oldest <= VERSION <= newest:
        raise Dropped(Drop.VERSION, "HELLO")
    return Hello(handshake_id, newest, oldest)


def _parse_flight(data: memoryview) -> Flight:
    (
        _,
        version,
        newest,
        oldest,
        index,
        initiator_id,
        responder_id,
        cookie,
        features,
        generation,
        offset,
        received,
    ) = _FLIGHT.unpack_from(data)
    if version != VERSION or not oldest <= VERSION <= newest:
        raise Dropped(Drop.VERSION, "FLIGHT")
    if not index or not initiator_id:
        raise Dropped(Drop.MALFORMED, "FLIGHT")
    header = FlightHeader(
        index, initiator_id, responder_id, cookie, generation, features, version, newest, oldest
    )
    return Flight(header, offset, received, bytes(data[FLIGHT_HEADER:]))
