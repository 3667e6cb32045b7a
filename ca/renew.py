"""Who may renew: a pod that proves the key of its latest certificate, or of the one before.

In this order:

1. TLS: the caller's certificate chains to our root, is for clients, and its key is at hand. Not the times:
   OpenSSL would refuse a certificate that ended a minute ago.
2. `identify`, before the request is read: it is a pod's, of our trust domain, has begun, and did not end more
   than a day ago.
3. `entitled`: its key is on a lease, and the token of that lease is still on record. What the token's record
   says is what is certified, nothing of the certificate. Deleting the token's file is how the CA's owner
   withdraws a pod; that the token has expired does not matter, for a pod lives longer.
4. `ca.grant`, as for a token.

**Which key.** A lease holds the key K of the latest certificate and the key P by which that was asked for.

- By K: the pod has the latest, and goes on. P is good no longer, so a copy of it is worth nothing.
- By P: the answer was lost, and the pod asks again. The key it names now takes the place of K.
- By any other, earlier ones too: superseded.

Keys and not serials, for a lost answer can come to be twice. A pod gives up a request, asks again and is
answered; then the first request, delayed on the network, arrives. Both name one new key, so the second
certificate changes nothing; by serials it would lock the pod out.

Accepted: until K is first used, who has stolen P can take K's place. The pod is then refused and its owner
reads `superseded`; it comes back by its token.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from ca.issue import FindToken, key_hash
from ca.lease import RENEWABLE_SECONDS, Lease
from ca.messages import JoinClaims
from ca.refusal import Refusal, Refused
from policy.certificate import UNREADABLE, read_pod_names
from policy.identity import PodIdentity

GRACE: Final = timedelta(seconds=RENEWABLE_SECONDS)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose certificate it is, and when it ends; ``serial`` and ``key`` as in `ca.lease.Certified`."""

    identity: PodIdentity
    pod: str
    serial: str
    key: str
    ends: datetime


def identify(certificate_der_untrusted: bytes | None, trust_domain: str, wall: datetime) -> Caller:
    """Return who calls with a certificate (None: with none); raise `Refused` where it may not renew.

    Verified before, by TLS: who signed it, and that the caller holds its key.
    """
    if certificate_der_untrusted is None:
        raise Refused(Refusal.NO_CERTIFICATE, "a renewal is asked for with the pod's certificate")
    try:
        certificate = x509.load_der_x509_certificate(certificate_der_untrusted)
        caller = _read(certificate, trust_domain)
    except UNREADABLE:
        raise Refused(
            Refusal.NOT_A_POD, f"not the certificate of a pod of {trust_domain}"
        ) from None
    if wall < certificate.not_valid_before_utc:
        begins = f"{certificate.not_valid_before_utc:%F %T} UTC"
        raise Refused(Refusal.CERTIFICATE_EARLY, f"the certificate begins {begins}")
    if wall > certificate.not_valid_after_utc + GRACE:
        ended = f"{certificate.not_valid_after_utc:%F %T} UTC"
        raise Refused(
            Refusal.CERTIFICATE_ENDED, f"the certificate ended {ended}, more than a day ago"
        )
    return caller


def require_live(caller: Caller, wall: datetime) -> None:
    """Raise `Refused` where the caller's certificate has ended: it is good for a renewal alone."""
    if wall > caller.ends:
        raise Refused(Refusal.CERTIFICATE_ENDED, f"the certificate ended {caller.ends:%F %T} UTC")


def entitled(caller: Caller, lease: Lease, find: FindToken) -> JoinClaims:
    """Return what the caller may have certified by its lease, or raise `Refused`."""
    record = find(lease.token_id)
    if record is None:
        raise Refused(Refusal.WITHDRAWN, f"the pod's join token {lease.token_id} was deleted")
    claims = record.claims
    if (claims.identity, claims.pod) != (caller.identity, caller.pod):
        raise Refused(Refusal.SUPERSEDED, "the pod's record was changed: it must join anew", claims)
    return claims


def require_lease(caller: Caller, leases: Iterable[Lease]) -> Lease:
    """Return the caller's; raise `Refused` where its key is on none."""
    lease = next((lease for lease in leases if _is_of(lease, caller)), None)
    if lease is None:
        message = "another certificate has taken the place of this one"
        raise Refused(Refusal.SUPERSEDED, message)
    return lease


def _is_of(lease: Lease, caller: Caller) -> bool:
    # Who uses one key for two pods holds it for both: the pod says which is meant.
    return caller.key in {lease.key, lease.previous} and (
        (lease.pod, lease.namespace) == (caller.pod, caller.identity.namespace)
    )


def _read(certificate: x509.Certificate, trust_domain: str) -> Caller:
    names, key = read_pod_names(certificate), certificate.public_key()
    if names.identity.trust_domain != trust_domain:
        raise ValueError("another trust domain")
    if not isinstance(key, EllipticCurvePublicKey):
        raise ValueError("not an ECDSA key")  # noqa: TRY004 - one exception for a bad profile
    serial, ends = f"{certificate.serial_number:x}", certificate.not_valid_after_utc
    return Caller(names.identity, names.pod, serial, key_hash(key), ends)
