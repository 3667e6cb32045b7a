"""The certificates of a project: its root, its pods' (X.509-SVID), the CA service's own, and the list signer's.

All pass OpenSSL's X509_V_FLAG_X509_STRICT (RFC 5280). Every certificate begins a little in the past and none
ends after the root.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509.oid import NameOID
from typing_extensions import override

from ca.signer import BACKDATED, Signer, SignerError, Wanted
from ca.trust_bundle import fingerprint
from policy.identity import check_trust_domain

COMMON_NAME: Final = "Tencrypt project CA"


@dataclass(frozen=True, slots=True)
class Issuer:
    """What signs: its key, its root, and what lies between, the key's own certificate first."""

    root: x509.Certificate
    key: EllipticCurvePrivateKey = field(repr=False)
    between: tuple[x509.Certificate, ...] = ()

    @property
    def certificate(self) -> x509.Certificate:
        """The key's: an intermediate's, or the root's own."""
        return self.between[0] if self.between else self.root


def make_root(
    key: EllipticCurvePrivateKey,
    trust_domain: str,
    wall: datetime,
    life: timedelta,
    number: int = 1,
) -> x509.Certificate:
    """Return a self-signed root that names its trust domain (X.509-SVID section 4.1), one of the project's by number.

    Path length 1: beside leaves it may sign intermediates, as a new root's cross-certificate, but these
    nothing but leaves.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, root_name(number))])
    identity = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(f"spiffe://{check_trust_domain(trust_domain)}")]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    begins = wall.replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - BACKDATED)
        .not_valid_after(begins + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(key_usage(is_ca=True), critical=True)
        .add_extension(identity, critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def root_name(number: int) -> str:
    """Return the common name of the project's root of that number."""
    return COMMON_NAME if number == 1 else f"{COMMON_NAME} {number}"


def trust_domain_of(root: x509.Certificate) -> str:
    """Return the trust domain that a root is for; raises ValueError where it names none."""
    try:
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("the root names no trust domain") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or not uris[0].startswith("spiffe://"):
        raise ValueError("the root names no trust domain")
    return check_trust_domain(uris[0].removeprefix("spiffe://"))


class KeySigner(Signer):
    """Signs with keys at hand."""

    def __init__(
        self,
        issuer: Issuer,
        trust_domain: str = "",
        find: Callable[[x509.Certificate], Issuer | None] = lambda _: None,
    ) -> None:
        """Sign as ``issuer``, by default for the trust domain that its root names; raises ValueError for none.

        Under other roots it signs as the issuers that ``find`` gives, which may raise `SignerError`.
        """
        self.issuer = issuer
        self._trust_domain = trust_domain or trust_domain_of(issuer.root)
        self._issuers, self._find = {issuer.root: issuer}, find

    @property
    @override
    def trust_domain(self) -> str:
        return self._trust_domain

    @override
    def sign(
        self, root: x509.Certificate, wanted: Wanted, wall: datetime, life: timedelta
    ) -> tuple[x509.Certificate, ...]:
        issuer = self._issuers.get(root) or self._find(root)
        if issuer is None:
            raise SignerError(f"no key is at hand for root {fingerprint(root)}")
        self._issuers[root] = issuer
        if any(one.not_valid_after_utc <= wall for one in (root, *issuer.between)):
            raise SignerError(f"root {fingerprint(root)}, or an issuer below it, has ended")
        return (sign_leaf(issuer, wanted, wall, life), *issuer.between)


def sign_leaf(issuer: Issuer, wanted: Wanted, wall: datetime, life: timedelta) -> x509.Certificate:
    """Return the certificate that is wanted; it ends with its issuer, or the root, at the latest."""
    begins = wall.replace(microsecond=0)
    above = issuer.certificate
    last = min(one.not_valid_after_utc for one in (*issuer.between, issuer.root))
    issuer_identifier = above.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(above.subject)
        .public_key(wanted.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - BACKDATED)
        .not_valid_after(min(begins + life, last))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(is_ca=False), critical=True)
        # Critical, for the subject is empty (RFC 5280 section 4.2.1.6).
        .add_extension(x509.SubjectAlternativeName(wanted.names), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(wanted.public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_identifier.value),
            critical=False,
        )
    )
    if wanted.purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(wanted.purposes), critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def key_usage(*, is_ca: bool) -> x509.KeyUsage:
    """Return what the key of a CA, or of any other certificate, is for."""
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
