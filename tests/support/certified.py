"""Certificates as the project's CA makes them, for tests that hold its key."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from ca.certificates import Issuer, sign_leaf, trust_domain_of
from ca.messages import Address
from ca.profile import ApprovedRequest
from ca.signer import for_lists, for_pod, for_server


def pod_certificate(
    issuer: Issuer, approved: ApprovedRequest, wall: datetime, life: timedelta
) -> x509.Certificate:
    """Return a pod's."""
    return sign_leaf(issuer, for_pod(approved), wall, life)


def server_certificate(  # noqa: PLR0917 - of a certificate
    issuer: Issuer,
    key: EllipticCurvePublicKey,
    addresses: Iterable[Address],
    wall: datetime,
    life: timedelta,
    trust_domain: str = "",
) -> x509.Certificate:
    """Return the CA service's own."""
    whose = trust_domain or trust_domain_of(issuer.root)
    return sign_leaf(issuer, for_server(key, addresses, whose), wall, life)


def list_signer_certificate(
    issuer: Issuer,
    key: EllipticCurvePublicKey,
    wall: datetime,
    life: timedelta,
    trust_domain: str = "",
) -> x509.Certificate:
    """Return a list signer's."""
    return sign_leaf(
        issuer, for_lists(key, trust_domain or trust_domain_of(issuer.root)), wall, life
    )
