"""What this pod proves itself with: a key that lives in memory only, its chain, and the roots it trusts."""

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from proxy.credentials.certificate import UNREADABLE, PodCertificate, parse_pod_certificate
from proxy.drops import Drop
from proxy.errors import Dropped


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Credential:
    """The pod's key, its certificate and the intermediates to send, and the project's roots. Never printed."""

    key: EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    own: PodCertificate


def build_credential(
    key: EllipticCurvePrivateKey,
    chain_pem_untrusted: bytes,
    roots: tuple[x509.Certificate, ...],
) -> Credential:
    """Put a credential together from what the CA answered (leaf first), and the roots that we believe.

    Raises `Dropped` (CERTIFICATE_PROFILE) where the leaf is no pod's certificate or not for ``key``.
    """
    try:
        chain = tuple(x509.load_pem_x509_certificates(chain_pem_untrusted))
        is_ours = chain[0].public_key() == key.public_key()
    except UNREADABLE as error:
        raise Dropped(Drop.CERTIFICATE_PROFILE, str(error)) from error
    own = parse_pod_certificate(chain[0])
    if not is_ours:
        raise Dropped(Drop.CERTIFICATE_PROFILE, "the certificate is not for our key")
    return Credential(key, chain, roots, own)
