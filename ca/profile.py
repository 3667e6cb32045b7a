"""What a CSR must be: a pure allow-list. It decides nothing but which key is certified.

Names, addresses, purpose and life come from the token's record and this CA's profile. A CSR that asks for any
of them is refused, not corrected: a request that is silently ignored misleads the one who made it.

Not verified here: that whoever sends the CSR may have these claims (`ca.issue`), and that a key is used once
(a pod may ask again for a key it still holds).
"""

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import SignatureAlgorithmOID

from ca.messages import JoinClaims
from ca.refusal import Refusal, Refused

LARGEST_CSR: Final = 4096
"""Characters of PEM: a CSR for a P-256 key takes about 400."""


@dataclass(frozen=True, slots=True)
class ProvenKey:
    """A key that a CSR (PEM) proves to be held by who asks."""

    public_key: EllipticCurvePublicKey
    csr: str


@dataclass(frozen=True, slots=True)
class ApprovedRequest:
    """What may be signed: this key for these claims."""

    public_key: EllipticCurvePublicKey
    claims: JoinClaims
    csr: str = ""
    """What proves the key (PEM); empty where nothing has to be proved."""


def judge_csr(csr_untrusted: str) -> ProvenKey:
    """Return the key that a CSR in PEM (RFC 2986) proves; raise `Refused` for any other text."""
    if len(csr_untrusted) > LARGEST_CSR:
        raise Refused(Refusal.CSR_MALFORMED, f"a CSR has at most {LARGEST_CSR} characters")
    try:
        csr = x509.load_pem_x509_csr(csr_untrusted.encode("ascii"))
        return ProvenKey(_judge(csr), csr.public_bytes(Encoding.PEM).decode("ascii"))
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise Refused(Refusal.CSR_MALFORMED, "not a PKCS #10 CSR in PEM") from None


def _judge(csr: x509.CertificateSigningRequest) -> EllipticCurvePublicKey:
    key = csr.public_key()
    # The key comes first: verifying costs little for P-256 alone.
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise Refused(Refusal.CSR_KEY, "the key must be ECDSA P-256")
    if csr.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise Refused(Refusal.CSR_SIGNATURE, "the CSR must be signed with ECDSA and SHA-256")
    if not csr.is_signature_valid:
        raise Refused(Refusal.CSR_SIGNATURE, "the CSR is not signed by its own key")
    # An extension request is an attribute (RFC 2985 section 5.4.2), so there is none of either.
    if list(csr.subject) or list(csr.attributes):
        raise Refused(Refusal.CSR_ASKS, "the CSR must ask for no subject, extension or attribute")
    return key
