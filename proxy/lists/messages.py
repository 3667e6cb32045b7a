"""What pods say to each other about the roster (``docs/protocol.md`` 8, LISTS): bodies of control records."""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped

LARGEST_BODY: Final = 1100
"""Bytes: with all headers it fits each path that a session may have (1,200 bytes of UDP payload)."""

_HEAD: Final = Struct(">BQQ")
_ASK: Final = Struct(">BQQI")
_PART: Final = Struct(">BQQII")
_VERSIONED, _ASKED, _PARTED = range(1, 4)

LARGEST_PIECE: Final = LARGEST_BODY - _PART.size
"""Bytes of an envelope that a PART carries at most."""

Age = tuple[int, int]
"""A roster's version, and the Unix second in which it was issued: which signature it is, and what is newer."""


@dataclass(frozen=True, slots=True)
class Version:
    """The sender has this one."""

    age: Age

    def encode(self) -> bytes:
        """Return the body."""
        return _HEAD.pack(_VERSIONED, *self.age)


@dataclass(frozen=True, slots=True)
class Ask:
    """Send of this one what begins at ``offset``."""

    age: Age
    offset: int

    def encode(self) -> bytes:
        """Return the body."""
        return _ASK.pack(_ASKED, *self.age, self.offset)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an envelope of ``total`` bytes; no piece is empty, and all but the last are `LARGEST_PIECE` long."""

    age: Age
    offset: int
    total: int
    piece: bytes

    def encode(self) -> bytes:
        """Return the body."""
        return _PART.pack(_PARTED, *self.age, self.offset, self.total) + self.piece


Message = Version | Ask | Part


def parse(body_untrusted: bytes) -> Message:
    """Return the message that a body is. Raises `Dropped` (PACKET_MALFORMED).

    What follows a VERSION or an ASK is ignored; a PART's piece ends with the body.
    """
    size, kind = len(body_untrusted), body_untrusted[:1]
    if kind == bytes((_VERSIONED,)) and size >= _HEAD.size:
        _, version, issued = _HEAD.unpack_from(body_untrusted)
        return Version((version, issued))
    if kind == bytes((_ASKED,)) and size >= _ASK.size:
        _, version, issued, offset = _ASK.unpack_from(body_untrusted)
        return Ask((version, issued), offset)
    if kind == bytes((_PARTED,)) and _PART.size < size <= LARGEST_BODY:
        _, version, issued, offset, total = _PART.unpack_from(body_untrusted)
        piece = body_untrusted[_PART.size :]
        if offset + len(piece) <= total:
            return Part((version, issued), offset, total, piece)
    raise Dropped(Drop.PACKET_MALFORMED, "LISTS")
