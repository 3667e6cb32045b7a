"""The bytes of wire version 1, written from ``docs/protocol.md`` and sharing no code with `proxy`.

Numbers are integers, byte strings are bytes; nothing here checks what it is given: wrong datagrams are made of it too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import pack
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

GCM: Final = "TLS_AES_256_GCM_SHA384"
CHACHA: Final = "TLS_CHACHA20_POLY1305_SHA256"
SUITES: Final = (GCM, CHACHA)

HEADER: Final = 24
TAG: Final = 16


# Section 2.


def hello(handshake_id: int, newest: int = 1, oldest: int = 1) -> bytes:
    """Return a HELLO."""
    return pack(">BBBBIQ", 1, 1, newest, oldest, 0, handshake_id) + bytes(1200 - 16)


def retry(handshake_id: int, cookie: bytes, version: int = 1) -> bytes:
    """Return a RETRY."""
    return pack(">BB6xQ", 2, version, handshake_id) + cookie


@dataclass(frozen=True)
class Flight:
    """A FLIGHT's fields."""

    index: int
    initiator_id: int
    responder_id: int
    cookie: bytes
    features: int
    generation: int
    offset: int
    received: int
    tls: bytes
    version: int = 1
    newest: int = 1
    oldest: int = 1

    def encode(self) -> bytes:
        """Return the datagram."""
        head = pack(">BBBBI", 3, self.version, self.newest, self.oldest, self.index)
        ids = pack(">QQ", self.initiator_id, self.responder_id) + self.cookie
        rest = pack(">IQHH", self.features, self.generation, self.offset, self.received)
        return head + ids + rest + self.tls


def hint(index: int, counter: int) -> bytes:
    """Return a HINT."""
    return pack(">B3xIQ", 4, index, counter)


def record_datagram(  # noqa: PLR0917 - the header's fields in their order
    n: int, segment: int, length: int, index: int, counter: int, token: bytes, piece: bytes
) -> bytes:
    """Return one datagram of a record of ``n``."""
    return pack(">BBHIQ", 128 + n - 1, segment, length, index, counter) + token + piece


# Section 6.


CONTEXT: Final = {
    "version": 1,
    "newest": 1,
    "oldest": 1,
    "initiator_id": 8,
    "responder_id": 8,
    "initiator_index": 4,
    "responder_index": 4,
    "offered": 4,
    "chosen": 4,
    "generation": 8,
}
"""The exporter's context between the protocol's name and the certificates: bytes of each number, in order."""


def context(numbers: Mapping[str, int], certificates: tuple[bytes, bytes]) -> bytes:
    """Return the exporter's context; ``certificates`` are SHA-256 of the initiator's and the responder's."""
    parts = [numbers[name].to_bytes(size, "big") for name, size in CONTEXT.items()]
    return b"".join(pack(">H", len(one)) + one for one in (b"tencrypt/1", *parts, *certificates))


# Section 8.


@dataclass(frozen=True)
class Keys:
    """One direction's keys, and the addressee's receiver index."""

    suite: str
    key: bytes
    iv: bytes
    header_key: bytes
    index: int


def seal(keys: Keys, counter: int, plain: bytes, n: int = 1, piece: int = 0) -> list[bytes]:
    """Return the ``n`` datagrams of a record, with pieces of ``piece`` bytes or alike; ``plain`` is prefix and body."""
    length = len(plain) + TAG
    header = pack(">BBHIQ", 128 + n - 1, 0, length, keys.index, counter)
    nonce = bytes(a ^ b for a, b in zip(keys.iv, counter.to_bytes(12, "big"), strict=True))
    cipher = AESGCM(keys.key) if keys.suite == GCM else ChaCha20Poly1305(keys.key)
    sealed = cipher.encrypt(nonce, plain, header)
    piece = piece or -(-length // n)
    return [
        record_datagram(
            n,
            k,
            length,
            keys.index,
            counter,
            _token(keys.header_key, header, k),
            sealed[k * piece : (k + 1) * piece],
        )
        for k in range(n)
    ]


def _token(header_key: bytes, header: bytes, segment: int) -> bytes:
    block = header[:1] + bytes((segment // 2,)) + header[2:]
    encrypted = Cipher(AES(header_key), ECB()).encryptor().update(block)  # noqa: S305 - single blocks
    at = 8 * (segment % 2)
    return encrypted[at : at + 8]
