"""How a record lies in its n datagrams: back to back in one buffer, all but the last of one size.

Between the datagrams' headers lie the pieces of the sealed bytes. Cutting and joining happen by views that are made
once for a buffer and a size, so that a record of 44 datagrams costs no Python object for each.
"""

from collections.abc import Iterator
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.keys import DirectionKeys
from proxy.session.wire import (
    CANONICAL_HEADER,
    CANONICAL_STRUCT,
    MOST_DATAGRAMS,
    RECORD,
    RECORD_HEADER,
    RECORD_STRUCT,
    TAG,
)

LARGEST_SEND: Final = 65_507
"""Bytes that one UDP send, or receive, holds at most (RFC 768 over IPv4)."""

LARGEST_RECORD: Final = LARGEST_SEND - RECORD_HEADER
"""Sealed bytes."""

_SEGMENT_AT: Final = 1
_TOKEN: Final = 8
_NUMBERS: Final = bytes(range(MOST_DATAGRAMS))
_MOST_JOINED: Final = 128
"""Datagrams that a kernel joins in one receive (UDP_MAX_SEGMENTS); those behind would be judged one by one."""

_MOST_SIZES: Final = 8
"""Sizes for which views are kept: those of paths, which are few."""


class Headers:
    """Makes and checks the headers of records' datagrams under one header key (``docs/protocol.md`` 8)."""

    __slots__ = ("_cipher",)

    def __init__(self, keys: DirectionKeys) -> None:
        """Use the header key of ``keys``."""
        # Blocks are distinct (counter and half segment number), so single blocks are AES in counter mode.
        self._cipher: CipherContext = Cipher(AES(keys.header_key), ECB()).encryptor()  # noqa: S305

    def token(self, header: bytes) -> bytes:
        """Return the token of segment 0 for the first 16 bytes of a header."""
        return self._cipher.update(header)[:_TOKEN]

    def check(self, header: bytes, segment: int, token: bytes) -> None:
        """Raise `Dropped` (TOKEN) unless ``token`` is that of a segment; ``header`` is segment 0's."""
        if segment:
            header = header[:_SEGMENT_AT] + bytes((segment >> 1,)) + header[_SEGMENT_AT + 1 :]
        block = self._cipher.update(header)
        # Compared as a whole by the interpreter: 64 bits that differ for each datagram give no time to learn from.
        if block[_TOKEN * (segment & 1) : _TOKEN * (segment & 1) + _TOKEN] != token:
            raise Dropped(Drop.TOKEN)

    def vouches(self, header_untrusted: bytes) -> bool:
        """Say whether the 24 bytes of a datagram's header were made under this key: its token is right."""
        kind, segment, total, index, counter, token = RECORD_STRUCT.unpack(header_untrusted)
        if not 0 <= kind - RECORD < MOST_DATAGRAMS or segment > kind - RECORD:
            return False
        try:
            self.check(CANONICAL_STRUCT.pack(kind, 0, total, index, counter), segment, token)
        except Dropped:
            return False
        return True

    def all(self, header: bytes, count: int) -> bytearray:
        """Return the headers of ``count`` datagrams back to back; ``header`` is the first 16 bytes of segment 0's."""
        half = (count + 1) // 2
        blocks = bytearray(header * half)
        blocks[_SEGMENT_AT::CANONICAL_HEADER] = _NUMBERS[:half]
        tokens = memoryview(self._cipher.update(blocks)).cast("Q")
        headers = bytearray((header + bytes(_TOKEN)) * count)
        headers[_SEGMENT_AT::RECORD_HEADER] = _NUMBERS[:count]
        # In words of 8 bytes: of a header's three the last is the token.
        memoryview(headers).cast("Q")[2::3] = tokens[:count]
        return headers


class Pieces:
    """A buffer that receives datagrams back to back, and views of the pieces between their headers."""

    __slots__ = ("_views", "buffer")

    def __init__(self) -> None:
        """Make the buffer."""
        self.buffer = memoryview(bytearray(LARGEST_SEND + RECORD_HEADER))
        self._views: dict[int, list[memoryview]] = {}

    def sealed(self, at: int, size: int, count: int, total: int) -> bytes:
        """Return the ``total`` bytes that lie in these datagrams; the last may be shorter."""
        first = at // size
        piece = size - RECORD_HEADER
        last = at + (count - 1) * size + RECORD_HEADER
        rest = total - (count - 1) * piece
        whole = self._of(size)[first : first + count - 1]
        whole.append(self.buffer[last : last + rest])
        return b"".join(whole)

    def _of(self, size: int) -> list[memoryview]:
        views = self._views.get(size)
        if views is None:
            starts = range(0, min(LARGEST_SEND - size + 1, _MOST_JOINED * size), size)
            views = [self.buffer[at + RECORD_HEADER : at + size] for at in starts]
            if len(self._views) == _MOST_SIZES:
                self._views.clear()
            self._views[size] = views
        return views


class SealingBuffer:
    """Where records are sealed: the first datagram whole, then sealed bytes, and the later datagrams' headers."""

    __slots__ = ("_headers", "_views", "record", "sealed", "view")

    def __init__(self) -> None:
        """Allocate once; a proxy needs one."""
        self.record = bytearray(RECORD_HEADER + LARGEST_RECORD)
        self.view = memoryview(self.record)
        self.sealed = self.view[RECORD_HEADER:]
        self._headers = memoryview(bytearray(RECORD_HEADER * MOST_DATAGRAMS))
        self._views: dict[int, list[memoryview]] = {}

    def cut(self, headers: bytearray, piece: int, total: int, count: int) -> bytes:
        """Return header and piece of each datagram back to back: ``count`` of ``piece`` sealed bytes, the last less."""
        self._headers[: len(headers)] = headers
        views = self._views.get(piece)
        if views is None:
            if len(self._views) == _MOST_SIZES:
                self._views.clear()
            views = self._views[piece] = list(self._make(piece))
        last = (count - 1) * piece
        parts = views[: 2 * count - 1]
        parts.append(self.sealed[last:total])
        return b"".join(parts)

    def _make(self, piece: int) -> Iterator[memoryview]:
        for segment in range(min(MOST_DATAGRAMS, -(-LARGEST_RECORD // piece))):
            yield self._headers[segment * RECORD_HEADER : (segment + 1) * RECORD_HEADER]
            yield self.sealed[segment * piece : (segment + 1) * piece]


def datagrams(data: memoryview | bytes, size: int) -> list[memoryview]:
    """Return each of the datagrams of ``size`` bytes, the last maybe less: for paths without UDP_SEGMENT, and tests."""
    view = memoryview(data)
    return [view[at : at + size] for at in range(0, len(view), size)]


def piece_size(datagram_untrusted: memoryview) -> int:
    """Return the size of a record's pieces, which each of its datagrams tells by its length; the last may be shorter.

    Raises `Dropped` (MALFORMED) unless the datagram has a header, one byte, and lengths that can be.
    """
    size = len(datagram_untrusted) - RECORD_HEADER
    if size <= 0 or not RECORD <= datagram_untrusted[0] < RECORD + MOST_DATAGRAMS:
        raise Dropped(Drop.MALFORMED, f"record of {len(datagram_untrusted)} bytes")
    total = datagram_untrusted[2] << 8 | datagram_untrusted[3]
    if not TAG < total <= LARGEST_RECORD:
        raise Dropped(Drop.MALFORMED, "record's length")
    others = datagram_untrusted[0] - RECORD
    segment = datagram_untrusted[_SEGMENT_AT]
    if segment < others:
        piece, rest = size, total - others * size
    elif segment == others:
        # Only the last may be shorter: what it leaves must be whole pieces.
        piece, uneven = divmod(total - size, others) if others else (size, total - size)
        rest = 0 if uneven else size
    else:
        raise Dropped(Drop.MALFORMED, "record's segment")
    if not 0 < rest <= piece:
        raise Dropped(Drop.MALFORMED, "record's lengths")
    return piece
