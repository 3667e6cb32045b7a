"""Sealed records: one AEAD call over a whole record, which lies in n >= 1 datagrams (``docs/decisions`` 0003, 0006).

The hot path of the proxy. `Sealer` writes into one buffer that all sessions share, because what it returns
is sent before the next record is sealed; `Opener` reads datagrams where the socket put them and writes the
plaintext where the TUN device takes it.
"""

from typing import Final

from cryptography.exceptions import InvalidTag

from proxy.drops import Drop
from proxy.errors import Dropped, Unusable
from proxy.session.keys import DirectionKeys
from proxy.session.pieces import LARGEST_RECORD, Headers, Pieces, SealingBuffer
from proxy.session.reassembly import Reassembly
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

REKEY_BLOCKS: Final = 1 << 33
LAST_BLOCK: Final = 1 << 34
"""16-byte blocks under one key: ask for a new session, and refuse (well under RFC 8446 5.5's bound)."""


class Sealer:
    """Seals one session's records; the only writer under its key."""

    __slots__ = ("_aead", "_buffer", "_headers", "_iv", "_peer_index", "blocks", "counter", "large")

    def __init__(self, keys: DirectionKeys, peer_index: int, buffer: SealingBuffer) -> None:
        """Seal under ``keys`` for the peer's receiver index; ``buffer`` is shared and overwritten at each call."""
        self._aead = keys.aead()
        self._iv = int.from_bytes(keys.iv, "big")
        self._headers = Headers(keys)
        self._peer_index = peer_index
        self._buffer = buffer
        self.counter = 0
        self.blocks = 0
        self.large = 0  # records of several datagrams

    def vouches(self, header_untrusted: bytes) -> bool:
        """Say whether a datagram's header of 24 bytes was made by us under this session's key."""
        return self._headers.vouches(header_untrusted)

    def seal(self, plain: memoryview | bytes, datagram_size: int) -> memoryview | bytes:
        """Seal ``plain`` (prefix and body) as datagrams of ``datagram_size`` bytes of UDP payload, the last less.

        Returns them back to back, as UDP_SEGMENT wants them, good until the next call.
        Raises `Dropped` (TOO_BIG) for what fits no record and `Unusable` at the key's limit.
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
        header = CANONICAL_STRUCT.pack(RECORD + count - 1, 0, total, self._peer_index, counter)
        nonce = (self._iv ^ counter).to_bytes(12, "big")
        self._aead.encrypt_into(nonce, plain, header, buffer.sealed[:total])
        if count == 1:
            record = buffer.record
            record[:CANONICAL_HEADER] = header
            record[CANONICAL_HEADER:RECORD_HEADER] = self._headers.token(header)
            return buffer.view[: RECORD_HEADER + total]
        self.large += 1
        return buffer.cut(self._headers.all(header, count), piece, total, count)


class Opener:
    """Opens one session's records: order of checks as in the decisions, state last, window after the AEAD."""

    __slots__ = ("_aead", "_headers", "_iv", "_partial", "_window", "blocks", "ecn", "large")

    def __init__(self, keys: DirectionKeys) -> None:
        """Open under ``keys``."""
        self._aead = keys.aead()
        self._iv = int.from_bytes(keys.iv, "big")
        self._headers = Headers(keys)
        self._window = ReplayWindow()
        self._partial = Reassembly()
        self.blocks = 0
        self.large = 0  # records of several datagrams that have opened
        self.ecn = 0  # outside the record that opened last

    @property
    def incomplete(self) -> int:
        """Records given up because pieces of them never came."""
        return self._partial.given_up

    def vouches(self, header_untrusted: bytes) -> bool:
        """Say whether a datagram's header of 24 bytes was made by the peer under this session's key."""
        return self._headers.vouches(header_untrusted)

    def expire(self, now: float) -> None:
        """Free the buffers of records whose pieces never came."""
        self._partial.expire(now)

    @property
    def is_spent(self) -> bool:
        """Say whether the key has opened as much as it may."""
        return self.blocks > LAST_BLOCK

    def open(
        self,
        datagram_untrusted: memoryview,
        piece: int,
        plain: memoryview,
        now: float,
        ecn: int = 0,
    ) -> int:
        """Open the record that this datagram completes into ``plain``; return its length (prefix and body).

        Returns 0 while pieces are missing. Raises `Dropped`; then ``plain`` holds unauthenticated bytes that
        must not be read. Lengths (`piece_size` gave ``piece``), index and source were checked by the caller.
        """
        total: int
        kind, segment, total, index, counter, token = RECORD_STRUCT.unpack_from(datagram_untrusted)
        if not self._window.is_fresh(counter):
            raise Dropped(Drop.REPLAY)
        header = CANONICAL_STRUCT.pack(kind, 0, total, index, counter)
        self._headers.check(header, segment, token)
        sealed: memoryview | bytes = datagram_untrusted[RECORD_HEADER:]
        if kind != RECORD:
            place = kind - RECORD + 1, piece, total
            whole = self._partial.add(counter, place, segment, datagram_untrusted, now, ecn)
            if whole is None:
                return 0
            sealed, ecn = whole, self._partial.ecn
        try:
            return self._open(header, counter, sealed, plain, ecn)
        except Dropped:
            if kind != RECORD:
                self._partial.given_up += 1  # as good as lost: its sender shall make smaller ones
            raise

    def open_whole(
        self, received: Pieces, at: int, size: int, plain: memoryview, ecn: int = 0
    ) -> int:
        """Open the record whose datagrams of ``size`` bytes lie in order at ``at``; return its length.

        Returns 0, and has changed nothing, where they are not what the first one's header says: then each is to be
        judged alone. The other headers need no look: the AEAD vouches for the bytes between them. The caller has seen
        that the lengths agree.
        """
        head = received.buffer[at : at + RECORD_HEADER]
        kind, _, total, _, counter, token = RECORD_STRUCT.unpack(head)
        header = bytes(head[:CANONICAL_HEADER])
        if self.is_spent or not self._window.is_fresh(counter):
            return 0
        if self._headers.token(header) != token:
            return 0
        sealed = received.sealed(at, size, kind - RECORD + 1, total)
        try:
            length = self._open(header, counter, sealed, plain, ecn)
        except Dropped:
            return 0
        # What came of it alone before waits no longer.
        self._partial.forget(counter)
        return length

    def _open(
        self, header: bytes, counter: int, sealed: memoryview | bytes, plain: memoryview, ecn: int
    ) -> int:
        nonce = (self._iv ^ counter).to_bytes(12, "big")
        size = len(sealed) - TAG
        try:
            self._aead.decrypt_into(nonce, sealed, header, plain[:size])
        except InvalidTag:
            raise Dropped(Drop.FORGED) from None
        self.blocks += (len(sealed) >> 4) + 1
        self._window.commit(counter)
        self.large += header[0] != RECORD
        self.ecn = ecn
        return size
