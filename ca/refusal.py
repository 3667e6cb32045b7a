"""Why the CA refuses: one list for answers, audit lines and tests."""

from enum import StrEnum

from ca.messages import JoinClaims


class Refusal(StrEnum):
    """The reason's stable code, as it travels in an error answer."""

    MALFORMED = "malformed"
    """The request is not of its form."""
    TOO_LARGE = "too_large"
    """More bytes than any request takes."""
    TOO_SLOW = "too_slow"
    """The request did not come in time."""
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 - a code, no secret
    """No token, or none that this CA has made."""
    EXPIRED_TOKEN = "expired_token"  # noqa: S105 - as above
    """The token was this CA's, and its time is over."""
    SPENT_TOKEN = "spent_token"  # noqa: S105 - as above
    """The token was made for a number of uses, and they are over."""
    ADDRESS_HELD = "address_held"
    """Another token's certificate for one of the addresses has not ended."""
    CSR_MALFORMED = "csr_malformed"
    """Not a CSR in PEM, or one that this CA cannot read."""
    CSR_KEY = "csr_key"
    """Not a P-256 key."""
    CSR_SIGNATURE = "csr_signature"
    """Not signed by its own key with ECDSA and SHA-256: whoever asks does not hold the key."""
    CSR_ASKS = "csr_asks"
    """A subject, extension or attribute: a CSR asks for nothing."""
    NO_CERTIFICATE = "no_certificate"
    """A renewal is asked for without a certificate of this CA."""
    NOT_A_POD = "not_a_pod"
    """The caller's certificate is this CA's, and not one of its pods'."""
    CERTIFICATE_EARLY = "certificate_early"
    """The caller's certificate begins in the future: this CA's clock was set back."""
    CERTIFICATE_ENDED = "certificate_ended"
    """The caller's certificate ended more than a day ago."""
    SUPERSEDED = "superseded"
    """The caller's key is neither that of its pod's latest certificate nor the one before."""
    REVOKED = "revoked"
    """The pod, its identity or the certificate was withdrawn by the CA's owner."""
    WITHDRAWN = "withdrawn"
    """The join token by which the caller once came was deleted."""
    KEY_REUSED = "key_reused"
    """A renewal for the same key: each certificate has a fresh one."""
    ROOT_ENDED = "root_ended"
    """The CA's own root has no life left to give."""


class Refused(Exception):  # noqa: N818 - a judgement, not a failure
    """A request is refused and nothing was changed; ``message`` is one line for the pod's owner.

    ``claims`` are those on record for a genuine token or certificate that is refused itself.
    """

    def __init__(self, reason: Refusal, message: str, claims: JoinClaims | None = None) -> None:
        """Keep the code for programs, the line for people, and whom it concerns."""
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.claims = claims
