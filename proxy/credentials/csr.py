"""The pod's key and the request for its certificate: the key is made here and never leaves the process."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding


def make_key_and_csr() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return a fresh P-256 key and its CSR (DER), which asks for nothing: the CA decides all names."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return key, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
