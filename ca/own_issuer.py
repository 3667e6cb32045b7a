"""A root or intermediate that was made elsewhere, judged before the CA signs with it.

The last word is OpenSSL's: a certificate is signed and thrown away, and verified as pods will verify theirs.
"""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto

from ca.certificates import Issuer, sign_leaf
from ca.signer import LONGEST_CHAIN, for_lists

_X509_STRICT: Final = 0x20
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)


class OwnIssuerError(Exception):
    """The CA cannot sign with it; one line says why."""


def read_own_issuer(chain_pem: bytes, key_pem: bytes, passphrase: bytes, wall: datetime) -> Issuer:
    """Return the issuer of a chain (its own certificate first, the root last) and its key, both PEM.

    A key that is encrypted is so under ``passphrase``. Raises `OwnIssuerError`.
    """
    chain = _read_chain(chain_pem)
    key = _read_key(key_pem, passphrase)
    if key.public_key() != chain[0].public_key():
        raise OwnIssuerError("the key is not that of the first certificate")
    issuer = Issuer(chain[-1], key, tuple(chain[:-1]))
    for one in chain:
        if not one.not_valid_before_utc <= wall < one.not_valid_after_utc:
            ends = f"{one.not_valid_before_utc:%F} to {one.not_valid_after_utc:%F}"
            raise OwnIssuerError(f"{one.subject.rfc4514_string()} is valid from {ends}")
    _try(issuer, wall)
    return issuer


def _read_chain(pem: bytes) -> list[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion):
        raise OwnIssuerError("not certificates in PEM") from None
    if not 1 <= len(chain) < LONGEST_CHAIN:
        raise OwnIssuerError(f"{len(chain)} certificates: at most {LONGEST_CHAIN - 1}")
    for lower, upper in [*pairwise(chain), (chain[-1], chain[-1])]:
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise OwnIssuerError(
                "the chain must lead from the issuer, first, to a root that signed itself, last"
            ) from None
    return chain


def _read_key(pem: bytes, passphrase: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        try:
            key = load_pem_private_key(pem, passphrase)
        except ValueError:
            raise OwnIssuerError("the passphrase does not open the key") from None
    except (ValueError, UnsupportedAlgorithm):
        raise OwnIssuerError("the key is none in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, _CURVES):
        raise OwnIssuerError("the key must be ECDSA P-256 or P-384")
    return key


def _try(issuer: Issuer, wall: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = for_lists(key.public_key(), "trial.invalid")
    try:
        leaf = sign_leaf(issuer, wanted, wall, timedelta(hours=1))
        store = crypto.X509Store()
        store.set_flags(_X509_STRICT)
        store.set_time(wall)
        store.add_cert(crypto.X509.from_cryptography(issuer.root))
        between = [crypto.X509.from_cryptography(one) for one in issuer.between]
        crypto.X509StoreContext(
            store, crypto.X509.from_cryptography(leaf), between
        ).verify_certificate()
    except x509.ExtensionNotFound:
        raise OwnIssuerError("the issuer has no subject key identifier") from None
    except crypto.X509StoreContextError as error:
        raise OwnIssuerError(f"pods would refuse what it signs: {error}") from None
