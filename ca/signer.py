"""What the CA has certified, and by whom: four kinds of certificate, and a judgement of what a signer gave.

A signer may be another program, run by other people: what it gives is a stranger's until `check_signed` has seen it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from ca.messages import Address
from ca.profile import ApprovedRequest
from ca.trust_bundle import statement_uri
from policy.certificate import UNREADABLE
from policy.identity import ca_uri, lists_uri, pod_dns_name

LONGEST_CHAIN: Final = 3
"""Leaf, and intermediates: a root of the project has path length 1, others may have longer ones."""

BACKDATED: Final = timedelta(minutes=5)
"""A pod joins before it knows the CA's time: a clock that lags must not make a new certificate invalid."""

_ROUNDED: Final = timedelta(seconds=5)
"""How much a life may differ from what was asked for."""


class SignerError(Exception):
    """Nothing was signed, or not what was asked for; the text is one line and names who, or the field."""


class SignerAwayError(SignerError):
    """The signer cannot be asked now; the same may be asked again."""


class Kind(StrEnum):
    """Whose certificate it is."""

    POD = "pod"
    SERVER = "server"
    LISTS = "lists"
    STATEMENT = "statement"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate: for this key, of exactly these names and purposes.

    ``csr`` proves the key (PEM); it is empty where the signer is known to need none.
    """

    kind: Kind
    public_key: EllipticCurvePublicKey
    csr: str
    uri: str
    dns: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    purposes: tuple[ObjectIdentifier, ...] = ()

    @property
    def names(self) -> list[x509.GeneralName]:
        """All of them, as a certificate lists them."""
        return [
            x509.UniformResourceIdentifier(self.uri),
            *map(x509.DNSName, self.dns),
            *map(x509.IPAddress, self.addresses),
        ]


class Signer(Protocol):
    """What holds the CA's key."""

    @property
    def trust_domain(self) -> str:
        """Whose certificates it signs."""

    def sign(
        self, root: x509.Certificate, wanted: Wanted, wall: datetime, life: timedelta
    ) -> tuple[x509.Certificate, ...]:
        """Return a chain under ``root``, leaf first, without that; raises `SignerError`."""


def for_pod(approved: ApprovedRequest) -> Wanted:
    """Return a pod's (X.509-SVID): whatever it says comes from the claims."""
    claims = approved.claims
    return Wanted(
        Kind.POD,
        approved.public_key,
        approved.csr,
        claims.identity.uri,
        (pod_dns_name(claims.pod, claims.namespace),),
        claims.addresses,
        (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    )


def for_server(
    public_key: EllipticCurvePublicKey,
    addresses: Iterable[Address],
    trust_domain: str,
    csr: str = "",
) -> Wanted:
    """Return the CA service's own; clients go by its URI, people's tools by its addresses."""
    purposes = (ExtendedKeyUsageOID.SERVER_AUTH,)
    uri = ca_uri(trust_domain)
    return Wanted(Kind.SERVER, public_key, csr, uri, (), tuple(addresses), purposes)


def for_lists(public_key: EllipticCurvePublicKey, trust_domain: str, csr: str = "") -> Wanted:
    """Return that of a key that signs lists; without extended key usage it is no end of TLS to us."""
    return Wanted(Kind.LISTS, public_key, csr, lists_uri(trust_domain))


def for_statement(
    public_key: EllipticCurvePublicKey, trust_domain: str, bundle_hash: str, csr: str = ""
) -> Wanted:
    """Return that by which a root vouches for a bundle (`ca.trust_bundle`); no end of TLS, too."""
    return Wanted(Kind.STATEMENT, public_key, csr, statement_uri(trust_domain, bundle_hash))


def pems(certificates: Iterable[x509.Certificate]) -> tuple[str, ...]:
    """Return certificates as they travel."""
    return tuple(c.public_bytes(Encoding.PEM).decode("ascii") for c in certificates)


def make_csr(key: EllipticCurvePrivateKey) -> str:
    """Return a CSR in PEM that asks for nothing and proves the key (RFC 2986)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def check_signed(
    wanted: Wanted,
    chain_untrusted: Sequence[x509.Certificate],
    root: x509.Certificate,
    wall: datetime,
    life: timedelta,
) -> None:
    """Raise `SignerError`, which names the field, where a chain is not to the letter what was wanted.

    It shall be good at ``wall``, and for ``life`` from `BACKDATED` after its beginning, by the signer's clock, or until
    an issuer ends. That ``root``, at which it must end, is good now is not looked at.
    """
    if not 1 <= len(chain_untrusted) <= LONGEST_CHAIN:
        raise SignerError(f"chain: {len(chain_untrusted)} certificates")
    try:
        _check_leaf(wanted, chain_untrusted[0])
    except UNREADABLE as error:
        raise SignerError(f"certificate: {error}") from None
    _check_chain(chain_untrusted, root)
    _check_times(chain_untrusted[0], wall, life, [*chain_untrusted[1:], root])


def _check_leaf(wanted: Wanted, leaf: x509.Certificate) -> None:
    if leaf.public_key() != wanted.public_key:
        raise SignerError("public_key: another than the CSR's")
    if list(leaf.subject):
        raise SignerError(f"subject: {leaf.subject.rfc4514_string()[:80]} where none was asked for")
    extensions = leaf.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName)
    for field, given, asked in (
        ("uri_sans", names.value.get_values_for_type(x509.UniformResourceIdentifier), [wanted.uri]),
        ("alt_names", names.value.get_values_for_type(x509.DNSName), wanted.dns),
        ("ip_sans", names.value.get_values_for_type(x509.IPAddress), wanted.addresses),
    ):
        if sorted(map(str, given)) != sorted(map(str, asked)):
            raise SignerError(f"{field}: {_text(given)} where {_text(asked)} was asked for")
    if len(names.value) != len(wanted.names):
        raise SignerError("other_sans: names of other kinds")
    if not names.critical:
        raise SignerError("subjectAltName: not critical, though the subject is empty")
    _check_use(wanted, extensions)


def _check_use(wanted: Wanted, extensions: x509.Extensions) -> None:
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise SignerError("basic_constraints: a CA's certificate")
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise SignerError("key_usage: DigitalSignature, and nothing that signs certificates")
    found = [one.value for one in extensions if isinstance(one.value, x509.ExtendedKeyUsage)]
    purposes = [purpose for one in found for purpose in one]
    if sorted(each.dotted_string for each in purposes) != sorted(
        each.dotted_string for each in wanted.purposes
    ):
        raise SignerError(
            "ext_key_usage: "
            f"{_text(one.dotted_string for one in purposes)} where "
            f"{_text(one.dotted_string for one in wanted.purposes)} was asked for"
        )


def _check_chain(chain: Sequence[x509.Certificate], root: x509.Certificate) -> None:
    for lower, upper in pairwise(chain):
        if not _is_issued_by(lower, upper):
            raise SignerError("chain: a certificate is not signed by the next")
    if not _is_issued_by(chain[-1], root):
        raise SignerError("chain: it does not end at the root that shall sign")


def _check_times(
    leaf: x509.Certificate, wall: datetime, life: timedelta, above: Iterable[x509.Certificate]
) -> None:
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    wanted = min(begins + BACKDATED + life, *(one.not_valid_after_utc for one in above))
    if abs(ends - wanted) > _ROUNDED:
        raise SignerError(
            f"ttl: good for {_span(ends - begins)} where {_span(wanted - begins)} was asked for"
        )
    if not begins <= wall < ends:
        raise SignerError(
            f"the signer's clock: good from {begins:%F %T} to {ends:%F %T} UTC, and here it is {wall:%F %T}"
        )


def _span(life: timedelta) -> str:
    return f"{life.total_seconds():.0f} s"


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _text(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))[:200] or "nothing"
