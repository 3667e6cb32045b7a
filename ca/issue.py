"""One request from the token, or the earlier certificate, to the certificate.

In this order:

1. `authenticate`: the token is one that this CA made and its time is not over; nothing else of a stranger's
   request is read before. At a renewal `ca.renew` says whose the caller's certificate is.
2. `issue`: no other token's certificate holds one of its addresses,
3. the CSR asks for nothing and proves its key, which at a renewal is a fresh one,
4. the signer signs what the token's record says,
5. the lease is on record before the certificate leaves.

A token may be used again until it expires: a pod that is restarted comes back with a new key and the same
claims. Two requests at once are the caller's to keep apart: between 2 and 5 nothing may come in between.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.lease import Certified, Lease, holder_of_addresses, lease_to
from ca.messages import (
    JoinClaims,
    MessageError,
    SignResponse,
    parse_sign_request,
    parse_token,
    token_hash,
)
from ca.profile import judge_csr
from ca.refusal import Refusal, Refused
from ca.signer import Signer, for_pod

_BEARER: Final = "Bearer "


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What the CA keeps of a token that it made: its hash, and what it entitles to."""

    hash: str
    claims: JoinClaims


class Store(Protocol):
    """Tokens and leases, read anew at each call."""

    def token(self, token_id: str) -> TokenRecord | None:
        """Return the token made under this id."""

    def leases(self) -> tuple[Lease, ...]:
        """Return at most one lease a token; those ended within a day are among them."""

    def put_leases(self, leases: Iterable[Lease]) -> None:
        """Put these in the place of all earlier ones, durably."""


@dataclass(frozen=True, slots=True)
class Issued:
    """The answer to the pod, and what went on record for it."""

    response: SignResponse
    lease: Lease


def authenticate(authorization_untrusted: str, store: Store, wall: datetime) -> JoinClaims:
    """Return the claims on record for the token of an Authorization header (RFC 6750 section 2.1)."""
    unknown = Refused(Refusal.UNKNOWN_TOKEN, "a join token that this CA has made is needed")
    token_untrusted = authorization_untrusted.removeprefix(_BEARER)
    if token_untrusted == authorization_untrusted:
        raise unknown
    try:
        record = store.token(parse_token(token_untrusted).id)
    except MessageError:
        raise unknown from None
    # From here on only the record counts: what the token says of itself was needed to find it.
    if record is None or not hmac.compare_digest(record.hash, token_hash(token_untrusted)):
        raise unknown
    if wall.timestamp() >= record.claims.expires:
        message = f"the token expired {_text(record.claims.expires)}"
        raise Refused(Refusal.EXPIRED_TOKEN, message, record.claims)
    return record.claims


def issue(  # noqa: PLR0913 - who, what, from where, when and for how long
    claims: JoinClaims,
    body_untrusted: bytes,
    store: Store,
    signer: Signer,
    *,
    wall: datetime,
    life: timedelta,
    by_key: str = "",
) -> Issued:
    """Sign for an authenticated caller and record it; raise `Refused` where that may not be.

    ``by_key`` is the `key_hash` of the certificate that asks for its renewal; empty where a token asks.
    """
    leases = store.leases()
    _check_addresses_free(claims, leases, wall)
    try:
        request = parse_sign_request(body_untrusted)
    except MessageError as error:
        raise Refused(Refusal.MALFORMED, str(error)) from None
    approved = judge_csr(request.csr, claims)
    key = key_hash(approved.public_key)
    if key == by_key:
        raise Refused(Refusal.KEY_REUSED, "a renewal is for a fresh key")
    if any(root.not_valid_after_utc <= wall for root in signer.roots):
        raise Refused(Refusal.ROOT_ENDED, "the CA's root has ended")
    chain = signer.sign(for_pod(approved), wall, life)
    leaf = chain[0]
    ends = int(leaf.not_valid_after_utc.timestamp())
    certified = Certified(f"{leaf.serial_number:x}", key, ends)
    leases = lease_to(leases, claims, certified, wall.timestamp(), by_key)
    store.put_leases(leases)
    response = SignResponse(_pem(chain), _pem(signer.roots), wall.timestamp())
    return Issued(response, leases[-1])


def key_hash(key: EllipticCurvePublicKey) -> str:
    """Return SHA-256 of a key's SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), hexadecimal."""
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def _check_addresses_free(claims: JoinClaims, leases: Iterable[Lease], wall: datetime) -> None:
    held = holder_of_addresses(leases, claims, wall.timestamp())
    if held is not None:
        address, lease = held
        raise Refused(
            Refusal.ADDRESS_HELD,
            f"{address} is held until {_text(lease.ends)} by pod {lease.pod}, which joined with another token",
        )


def _pem(certificates: Iterable[x509.Certificate]) -> tuple[str, ...]:
    return tuple(c.public_bytes(Encoding.PEM).decode("ascii") for c in certificates)


def _text(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
