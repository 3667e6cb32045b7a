"""A test CA that issues any certificate, also wrong ones: the real CA refuses to."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from proxy.credentials.certificate import parse_pod_certificate
from proxy.credentials.credential import Credential

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
"""Simulations begin here; wall clock = START + simulated seconds."""

BOTH_ENDS = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Leaf:
    """What a certificate is to say; the defaults are a good pod's."""

    pod: str = "web-1"
    addresses: Sequence[str] = ("10.0.0.1",)
    trust_domain: str = "shop.example"
    namespace: str = "shop"
    service_account: str = "web"
    uris: Sequence[str] | None = None
    dns: str | None = None
    begins: dt.datetime = START - HOUR
    ends: dt.datetime = START + 24 * HOUR
    purposes: Sequence[ObjectIdentifier] = BOTH_ENDS
    is_ca: bool = False


@dataclass
class Authority:
    """A root with its key in memory."""

    name: str = "test root"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        """Sign the root."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        public = self.key.public_key()
        self.root = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(START - 24 * HOUR)
            .not_valid_after(START + 10_000 * HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_usage(signing=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, leaf: Leaf) -> Credential:
        """Return a credential with a fresh key; its own view of the certificate is that of a good pod."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(leaf, key.public_key())
        good = self.certify(
            Leaf(pod=leaf.pod, addresses=leaf.addresses, service_account=leaf.service_account),
            key.public_key(),
        )
        own = replace(
            parse_pod_certificate(good), fingerprint=certificate.fingerprint(hashes.SHA256())
        )
        return Credential(key, (certificate,), (self.root,), own)

    def certify(self, leaf: Leaf, public: ec.EllipticCurvePublicKey) -> x509.Certificate:
        """Sign what ``leaf`` says."""
        identity = f"spiffe://{leaf.trust_domain}/ns/{leaf.namespace}/sa/{leaf.service_account}"
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(uri)
            for uri in (leaf.uris if leaf.uris is not None else [identity])
        ]
        names.append(x509.DNSName(leaf.dns or f"{leaf.pod}.{leaf.namespace}.pod"))
        names += [x509.IPAddress(ip_address(address)) for address in leaf.addresses]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(leaf.begins)
            .not_valid_after(leaf.ends)
            .add_extension(x509.BasicConstraints(ca=leaf.is_ca, path_length=None), critical=True)
            .add_extension(_usage(signing=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(leaf.purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signing,
        crl_sign=not signing,
        encipher_only=False,
        decipher_only=False,
    )
