"""Sealing and opening records, sections 6 and 8. A client of its own; shares nothing with ours."""

from dataclasses import dataclass, field, replace
from math import ceil
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from independent.wire import MOST_PIECES, PACKET, RECORD_HEADER, Record

WINDOW: Final = 2047
REASSEMBLY_SECONDS: Final = 0.02
_TAG: Final = 16
_PREFIX: Final = 4


class Dropped(Exception):  # noqa: N818 - an event of the protocol, not an error of the program
    """A record is not taken; the text says why."""


@dataclass(frozen=True)
class Direction:
    """The keys of one direction, as TLS exported them."""

    suite: str
    record: bytes = field(repr=False)
    header: bytes = field(repr=False)

    def aead(self) -> AESGCM | ChaCha20Poly1305:
        key = self.record[:32]
        return AESGCM(key) if "AES" in self.suite else ChaCha20Poly1305(key)

    def nonce(self, counter: int) -> bytes:
        return (int.from_bytes(self.record[32:], "big") ^ counter).to_bytes(12, "big")

    def token(self, record: Record) -> bytes:
        ad, k = record.additional, record.segment
        encryptor = Cipher(algorithms.AES256(self.header), modes.ECB()).encryptor()  # noqa: S305 - one block, as section 8 says
        block: bytes = encryptor.update(ad[:1] + bytes((k // 2,)) + ad[2:])
        return block[8 * (k % 2) :][:8]


@dataclass
class Sealer:
    """Seals for the addressee's `index`; each counter once."""

    keys: Direction
    index: int
    counter: int = 0

    def seal(
        self, kind: int, body: bytes = b"", size: int = 1200, flags: int = 0, segment_size: int = 0
    ) -> list[bytes]:
        """Return a record's datagrams, each of `size` bytes but the last, which has the rest.

        Flags and segment size of the prefix are a super-packet's; see `packets`.
        """
        self.counter += 1
        length = _PREFIX + len(body) + _TAG
        piece = size - RECORD_HEADER
        count = ceil(length / piece)
        assert count <= MOST_PIECES, f"{length} bytes in datagrams of {size}"
        whole = Record(count, 0, length, self.index, self.counter)
        prefix = bytes((kind, flags)) + segment_size.to_bytes(2, "big")
        nonce = self.keys.nonce(self.counter)
        sealed = self.keys.aead().encrypt(nonce, prefix + body, whole.additional)
        pieces = [sealed[at : at + piece] for at in range(0, length, piece)]
        return [self._datagram(replace(whole, segment=k), it) for k, it in enumerate(pieces)]

    def _datagram(self, record: Record, piece: bytes) -> bytes:
        return replace(record, token=self.keys.token(record), piece=piece).encode()


@dataclass(frozen=True)
class Opened:
    """What was sealed: the prefix, not judged yet, and the body."""

    kind: int
    flags: int
    segment_size: int
    body: bytes


@dataclass
class _Partial:
    first: Record
    until: float
    pieces: dict[int, bytes] = field(default_factory=dict)


class Opener:
    """Opens what the peer sealed: token, replay window, pieces, AEAD, in the order of section 8.

    `whole` and `given_up` count records of several datagrams, as a PONG tells them.
    """

    def __init__(self, keys: Direction) -> None:
        self.whole = 0
        self.given_up = 0
        self._keys = keys
        self._highest = 0
        self._opened: set[int] = set()
        self._partial: dict[int, _Partial] = {}

    def open(self, record: Record, now: float) -> Opened | None:
        """Return what a record says, None while pieces are missing; `Dropped` for any reason."""
        if record.counter in self._opened or record.counter < max(1, self._highest - WINDOW):
            raise Dropped("replay")
        if record.token != self._keys.token(record):
            raise Dropped("token")
        sealed = record.piece if record.count == 1 else self._collect(record, now)
        if sealed is None:
            return None
        try:
            plain = self._keys.aead().decrypt(
                self._keys.nonce(record.counter), sealed, record.additional
            )
        except InvalidTag:
            raise Dropped("seal") from None
        self._highest = max(self._highest, record.counter)
        self._opened = {n for n in self._opened if n >= self._highest - WINDOW} | {record.counter}
        self.whole += record.count > 1
        return _read(record, plain)

    def give_up(self, now: float) -> None:
        """Forget records whose time is over."""
        held = len(self._partial)
        self._partial = {n: p for n, p in self._partial.items() if p.until > now}
        self.given_up += held - len(self._partial)

    def _collect(self, record: Record, now: float) -> bytes | None:
        self.give_up(now)
        if record.counter not in self._partial and len(self._partial) == 2:
            del self._partial[next(iter(self._partial))]  # the older one makes room
            self.given_up += 1
        fresh = _Partial(record, now + REASSEMBLY_SECONDS)
        partial = self._partial.setdefault(record.counter, fresh)
        first = partial.first
        if (record.additional, record.piece_bytes) != (first.additional, first.piece_bytes):
            raise Dropped("pieces of different records")
        partial.pieces.setdefault(record.segment, record.piece)
        if len(partial.pieces) < record.count:
            return None
        del self._partial[record.counter]
        return b"".join(partial.pieces[k] for k in range(record.count))


def _read(record: Record, plain: bytes) -> Opened:
    if len(plain) < _PREFIX:
        raise Dropped("prefix")
    if plain[0] != PACKET and (record.count > 1 or any(plain[1:_PREFIX])):
        raise Dropped("control record in a packet's form")
    size = int.from_bytes(plain[2:_PREFIX], "big")
    return Opened(plain[0], plain[1], size, plain[_PREFIX:])
