"""From a finished TLS handshake to a session's keys: exporter labels, context, and what is made of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from proxy.session.wire import FlightHeader

PROTOCOL: Final = b"tencrypt/1"
"""ALPN, and the first field of the exporter's context."""

KEY_SIZE: Final = 32
IV_SIZE: Final = 12

Aead = AESGCM | ChaCha20Poly1305

SUITES: Final[dict[str, type[AESGCM] | type[ChaCha20Poly1305]]] = {
    "TLS_AES_256_GCM_SHA384": AESGCM,
    "TLS_CHACHA20_POLY1305_SHA256": ChaCha20Poly1305,
}
"""The suites that TLS may agree on, and the AEAD that then seals records."""

Exporter = Callable[[bytes, int, bytes], bytes]
"""Label, length, context -> keying material (RFC 8446 7.5)."""


@dataclass(frozen=True, slots=True, repr=False)
class DirectionKeys:
    """What one direction's records need. Never printed."""

    key: bytes
    iv: bytes
    header_key: bytes
    suite: str

    def aead(self) -> Aead:
        """Return the record cipher."""
        return SUITES[self.suite](self.key)


@dataclass(frozen=True, slots=True, repr=False)
class SessionKeys:
    """Both directions' keys and the session's id, the same at both ends. Never printed."""

    sending: DirectionKeys
    receiving: DirectionKeys
    session_id: bytes


def export_context(
    initiator: FlightHeader, responder: FlightHeader, certificates: Iterable[bytes]
) -> bytes:
    """Return the exporter's context: all that travelled outside TLS and matters, each part length-prefixed.

    ``certificates`` are SHA-256 of the initiator's and of the responder's certificate.
    """
    numbers = (
        (responder.version, 1),
        (initiator.newest, 1),
        (initiator.oldest, 1),
        (initiator.initiator_id, 8),
        (responder.responder_id, 8),
        (initiator.index, 4),
        (responder.index, 4),
        (initiator.features, 4),
        (responder.features, 4),
        (initiator.generation, 8),
    )
    parts = [PROTOCOL, *(value.to_bytes(size, "big") for value, size in numbers), *certificates]
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def derive(export: Exporter, context: bytes, suite: str, *, initiator: bool) -> SessionKeys:
    """Return the session's keys as the initiator or the responder holds them."""

    def direction(name: str) -> DirectionKeys:
        material = export(f"EXPORTER-tencrypt {name} record".encode(), KEY_SIZE + IV_SIZE, context)
        header_key = export(f"EXPORTER-tencrypt {name} header".encode(), KEY_SIZE, context)
        return DirectionKeys(material[:KEY_SIZE], material[KEY_SIZE:], header_key, suite)

    ours, theirs = direction("initiator"), direction("responder")
    if not initiator:
        ours, theirs = theirs, ours
    return SessionKeys(ours, theirs, export(b"EXPORTER-tencrypt session id", 16, context))
