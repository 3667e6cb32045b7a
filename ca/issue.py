"""Who asks for a certificate, and what is judged of the request without the CA's record of others.

In this order:

1. `authenticate`: the token is one that this CA made and its time is not over; nothing else of a stranger's
   request is read before. At a renewal `ca.renew` says whose the caller's certificate is.
2. `judge`: the CSR asks for nothing and proves its key, which at a renewal is a fresh one.
3. `ca.grant`: no other token holds one of its addresses, the signer signs what the token's record says, and
   the lease is on record before the certificate leaves.

A token may be used again until it expires: a pod that is restarted comes back with a new key and the same
claims. One that was made for a number of uses is spent after them.
"""

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.documents import Document, Documents, JsonObject, StateError, token_name
from ca.lease import Lease
from ca.messages import (
    JoinClaims,
    MessageError,
    SignResponse,
    encode_claims,
    parse_claims,
    parse_sign_request,
    parse_token,
    read_count,
    read_text,
    token_hash,
)
from ca.profile import ProvenKey, judge_csr
from ca.refusal import Refusal, Refused

_BEARER: Final = "Bearer "


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What the CA keeps of a token that it made: its hash, what it entitles to, how often (0: without number)."""

    hash: str
    claims: JoinClaims
    uses: int = 0

    def to_json(self) -> JsonObject:
        """Return the content of its document."""
        return {
            "hash": self.hash,
            "claims": json.loads(encode_claims(self.claims)),
            "uses": self.uses,
        }


FindToken = Callable[[str], TokenRecord | None]
"""Gives the token made under an id; raises `ca.documents.StateError`."""


@dataclass(frozen=True, slots=True)
class Issued:
    """The answer to the pod, and what went on record for it."""

    response: SignResponse
    lease: Lease


def find_token(documents: Documents, token_id: str) -> TokenRecord | None:
    """Return what is on record of a token; raises `StateError`."""
    name = token_name(token_id)
    return read_token(name, documents.read(name))


def read_token(name: str, document: Document) -> TokenRecord | None:
    """Return what a token's document says; raises `StateError` where it is damaged."""
    if not document.content:
        return None
    try:
        fields = document.content
        claims = parse_claims(json.dumps(fields["claims"]).encode())
        uses = read_count(fields, "uses") if "uses" in fields else 0
        record = TokenRecord(read_text(fields, "hash"), claims, uses)
    except (TypeError, KeyError, MessageError) as error:
        raise StateError(f"{name}: damaged: {error}") from None
    if name != token_name(claims.id):
        raise StateError(f"{name}: damaged: it is another token's")
    return record


def authenticate(authorization_untrusted: str, find: FindToken, wall: datetime) -> TokenRecord:
    """Return what is on record of the token of an Authorization header (RFC 6750 section 2.1)."""
    unknown = Refused(Refusal.UNKNOWN_TOKEN, "a join token that this CA has made is needed")
    token_untrusted = authorization_untrusted.removeprefix(_BEARER)
    if token_untrusted == authorization_untrusted:
        raise unknown
    try:
        record = find(parse_token(token_untrusted).id)
    except MessageError:
        raise unknown from None
    # From here on only the record counts: what the token says of itself was needed to find it.
    if record is None or not hmac.compare_digest(record.hash, token_hash(token_untrusted)):
        raise unknown
    if wall.timestamp() >= record.claims.expires:
        message = f"the token expired {text_of(record.claims.expires)}"
        raise Refused(Refusal.EXPIRED_TOKEN, message, record.claims)
    return record


def judge(body_untrusted: bytes, by_key: str = "") -> ProvenKey:
    """Return the key that a request names and proves; raise `Refused`.

    ``by_key`` is the `key_hash` of the certificate that asks for its renewal; empty where a token asks.
    """
    try:
        request = parse_sign_request(body_untrusted)
    except MessageError as error:
        raise Refused(Refusal.MALFORMED, str(error)) from None
    proven = judge_csr(request.csr)
    if key_hash(proven.public_key) == by_key:
        raise Refused(Refusal.KEY_REUSED, "a renewal is for a fresh key")
    return proven


def key_hash(key: EllipticCurvePublicKey) -> str:
    """Return SHA-256 of a key's SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), hexadecimal."""
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def text_of(seconds: int) -> str:
    """Return a Unix time for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
