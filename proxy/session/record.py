"""Sealed records: one AEAD call over a whole record, cut into n >= 1 datagrams (``docs/decisions/0003``).

The hot path of the proxy. `Sealer` writes into one buffer that all sessions share, because what it returns
is sent before the next record is sealed; `Opener` reads a datagram where the socket put it and writes the
plaintext where the TUN device takes it.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from proxy.drops import Drop
from proxy.errors import Dropped, Unusable
from proxy.session.keys import DirectionKeys
from proxy.session.reassembly import Reassembly, piece_size
from proxy.session.replay import ReplayWindow
from proxy.session.wire import (
    CANONICAL_HEADER,
    CANONICAL_STRUCT,
    MOST_DATAGRAMS,
    RECORD,
    RECORD_HEADER,
    RECORD_STRUCT,
    TAG,
)

LARGEST_RECORD: Final = 65_507 - RECORD_HEADER
"""Sealed bytes: one UDP send with segmentation takes no more."""

REKEY_BLOCKS: Final = 1 << 33
LAST_BLOCK: Final = 1 << 34
"""16-byte blocks under one key: ask for a new session, and refuse (well under RFC 8446 5.5's bound)."""

_SEGMENT_AT: Final = 1
_TOKEN: Final = 8


def _token_cipher(keys: DirectionKeys) -> CipherContext:
    # Blocks are distinct (counter and half segment number), so single blocks are AES in counter mode.
    return Cipher(AES(keys.header_key), ECB()).encryptor()  # noqa: S305


class SealingBuffer:
    """Where records are sealed: the first datagram whole, then payload, and the later datagrams' headers."""

    __slots__ = ("headers", "record", "sealed", "view")

    def __init__(self) -> None:
        """Allocate once; a proxy needs one."""
        self.record = bytearray(RECORD_HEADER + LARGEST_RECORD)
        self.view = memoryview(self.record)
        self.sealed = self.view[RECORD_HEADER:]
        self.headers = memoryview(bytearray(RECORD_HEADER * MOST_DATAGRAMS))


class Sealer:
    """Seals one session's records; the only writer under its key."""

    __slots__ = ("_aead", "_buffer", "_iv", "_peer_index", "_tokens", "blocks", "counter")

    def __init__(self, keys: DirectionKeys, peer_index: int, buffer: SealingBuffer) -> None:
        """Seal under ``keys`` for the peer's receiver index; ``buffer`` is shared and overwritten at each call."""
        self._aead = keys.aead()
        self._iv = int.from_bytes(keys.iv, "big")
        self._tokens = _token_cipher(keys)
        self._peer_index = peer_index
        self._buffer = buffer
        self.counter = 0
        self.blocks = 0

    def seal(self, plain: memoryview | bytes, datagram_size: int) -> list[memoryview]:
        """Seal ``plain`` (prefix and body) as datagrams of at most ``datagram_size`` bytes of UDP payload.

        Returns the pieces in sending order: the first datagram whole, then header and payload of each further
        one; all datagrams but the last have one size, as UDP_SEGMENT wants them. They are good until the next
        call. Raises `Dropped` (TOO_BIG) for what fits no record and `Unusable` at the key's limit.
        """
        total = len(plain) + TAG
        piece = datagram_size - RECORD_HEADER
        count = 1 if total <= piece else -(-total // piece)
        if count > MOST_DATAGRAMS or total > LARGEST_RECORD:
            raise Dropped(Drop.TOO_BIG, f"{len(plain)} bytes")
        self.blocks += (total >> 4) + 1
        if self.blocks > LAST_BLOCK:
            raise Unusable
        self.counter = counter = self.counter + 1
        buffer = self._buffer
        record = buffer.record
        CANONICAL_STRUCT.pack_into(
            record, 0, RECORD + count - 1, 0, total, self._peer_index, counter
        )
        header = bytes(buffer.view[:CANONICAL_HEADER])
        record[CANONICAL_HEADER:RECORD_HEADER] = self._tokens.update(header)[:_TOKEN]
        nonce = (self._iv ^ counter).to_bytes(12, "big")
        self._aead.encrypt_into(nonce, plain, header, buffer.sealed[:total])
        if count == 1:
            return [buffer.view[: RECORD_HEADER + total]]
        return self._cut(header, total, piece_size(total, count), count)

    def _cut(self, header: bytes, total: int, piece: int, count: int) -> list[memoryview]:
        buffer = self._buffer
        tokens = _tokens(self._tokens, header, count)
        pieces = [buffer.view[: RECORD_HEADER + piece]]
        for segment in range(1, count):
            at = segment * RECORD_HEADER
            head = buffer.headers[at : at + RECORD_HEADER]
            head[:CANONICAL_HEADER] = header
            head[_SEGMENT_AT] = segment
            head[CANONICAL_HEADER:] = tokens[segment * _TOKEN : (segment + 1) * _TOKEN]
            pieces += (head, buffer.sealed[segment * piece : min((segment + 1) * piece, total)])
        return pieces


class Opener:
    """Opens one session's records: order of checks as in the decision, state last, window after the AEAD."""

    __slots__ = ("_aead", "_iv", "_partial", "_tokens", "_window", "blocks", "ecn")

    def __init__(self, keys: DirectionKeys) -> None:
        """Open under ``keys``."""
        self._aead = keys.aead()
        self._iv = int.from_bytes(keys.iv, "big")
        self._tokens = _token_cipher(keys)
        self._window = ReplayWindow()
        self._partial = Reassembly()
        self.blocks = 0
        self.ecn = 0  # outside the record that opened last

    @property
    def incomplete(self) -> int:
        """Records given up because pieces of them never came."""
        return self._partial.given_up

    def expire(self, now: float) -> None:
        """Free the buffers of records whose pieces never came."""
        self._partial.expire(now)

    def open(
        self, datagram_untrusted: memoryview, plain: memoryview, now: float, ecn: int = 0
    ) -> int:
        """Open the record that this datagram completes into ``plain``; return its length (prefix and body).

        Returns 0 while pieces are missing. Raises `Dropped`; then ``plain`` holds unauthenticated bytes that
        must not be read. Length, index and source were checked by the caller.
        """
        total: int
        kind, segment, total, index, counter, token = RECORD_STRUCT.unpack_from(datagram_untrusted)
        if not self._window.is_fresh(counter):
            raise Dropped(Drop.REPLAY)
        header = CANONICAL_STRUCT.pack(kind, 0, total, index, counter)
        self._check_token(header, segment, token)
        sealed: memoryview = datagram_untrusted[RECORD_HEADER:]
        if kind != RECORD:
            whole = self._partial.add(counter, kind - RECORD + 1, segment, total, sealed, now, ecn)
            if whole is None:
                return 0
            sealed, ecn = whole, self._partial.ecn
        if self.blocks > LAST_BLOCK:
            raise Unusable
        nonce = (self._iv ^ counter).to_bytes(12, "big")
        size = total - TAG
        try:
            self._aead.decrypt_into(nonce, sealed, header, plain[:size])
        except InvalidTag:
            raise Dropped(Drop.FORGED) from None
        self.blocks += (total >> 4) + 1
        self._window.commit(counter)
        self.ecn = ecn
        return size

    def _check_token(self, header: bytes, segment: int, token: bytes) -> None:
        if segment:
            header = header[:_SEGMENT_AT] + bytes((segment >> 1,)) + header[_SEGMENT_AT + 1 :]
        block = self._tokens.update(header)
        # Compared as a whole by the interpreter: 64 bits that differ for each datagram give no time to learn from.
        if block[_TOKEN * (segment & 1) : _TOKEN * (segment & 1) + _TOKEN] != token:
            raise Dropped(Drop.TOKEN)


def _tokens(cipher: CipherContext, header: bytes, count: int) -> bytes:
    first, rest = header[:_SEGMENT_AT], header[_SEGMENT_AT + 1 :]
    return cipher.update(
        b"".join(first + bytes((half,)) + rest for half in range((count + 1) // 2))
    )


def datagrams(pieces: list[memoryview]) -> list[bytes]:
    """Return the datagrams that `Sealer.seal`'s pieces make, copied: for paths without UDP_SEGMENT, and tests."""
    later = (
        bytes(head) + bytes(body) for head, body in zip(pieces[1::2], pieces[2::2], strict=True)
    )
    return [bytes(pieces[0]), *later]


def check_record_length(datagram_untrusted: memoryview) -> None:
    """Raise `Dropped` (MALFORMED) unless a record's datagram has a header, one byte, and lengths that can be."""
    size = len(datagram_untrusted)
    if size <= RECORD_HEADER or not RECORD <= datagram_untrusted[0] < RECORD + MOST_DATAGRAMS:
        raise Dropped(Drop.MALFORMED, f"record of {size} bytes")
    count = datagram_untrusted[0] - RECORD + 1
    total = datagram_untrusted[2] << 8 | datagram_untrusted[3]
    segment = datagram_untrusted[_SEGMENT_AT]
    piece = piece_size(total, count)
    last = total - (count - 1) * piece
    expected = last if segment == count - 1 else piece
    # A record too small for so many pieces would leave nothing for the last, and never be complete.
    possible = segment < count and last > 0 and TAG < total <= LARGEST_RECORD
    if not possible or size - RECORD_HEADER != expected:
        raise Dropped(Drop.MALFORMED, "record's lengths")
