"""The cookie that proves an initiator's address before the responder keeps any state (as RFC 9147 5.1)."""

import hmac
from typing import Final

COOKIE_SIZE: Final = 20
COOKIE_LIFE: Final = 10
"""Seconds: twice a handshake's life, so that an attempt under way never outlives its cookie."""

Endpoint = tuple[str, int]
"""Outer address as text, and UDP port."""


class CookieJar:
    """Makes and checks cookies; without state, so that a flood of HELLOs costs one HMAC each."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """Take 32 random bytes. A restarted process has others: old cookies are refused, HELLO brings new ones."""
        self._secret = secret

    def bake(self, endpoint: Endpoint, handshake_id: int, now: float) -> bytes:
        """Return the 20-byte cookie for an initiator at ``endpoint``; ``now`` in monotonic seconds."""
        stamp = (int(now) & 0xFFFFFFFF).to_bytes(4, "big")
        return stamp + self._mac(stamp, endpoint, handshake_id)

    def is_good(
        self, cookie_untrusted: bytes, endpoint: Endpoint, handshake_id: int, now: float
    ) -> bool:
        """Say whether this process baked the cookie for this endpoint and handshake in the last 10 s."""
        stamp = cookie_untrusted[:4]
        age = (int(now) - int.from_bytes(stamp, "big")) & 0xFFFFFFFF
        expected = self._mac(stamp, endpoint, handshake_id)
        return hmac.compare_digest(cookie_untrusted[4:], expected) and age <= COOKIE_LIFE

    def _mac(self, stamp: bytes, endpoint: Endpoint, handshake_id: int) -> bytes:
        host = endpoint[0].encode()
        message = stamp + handshake_id.to_bytes(8, "big") + endpoint[1].to_bytes(2, "big") + host
        return hmac.digest(self._secret, message, "sha256")[:16]
