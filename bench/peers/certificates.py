"""A CA and a certificate for each pod, for peers that speak TLS and bring no CA of their own."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.namespaces import Fabric

from bench.peers import CLIENT, SERVER

LIFE: Final = dt.timedelta(hours=12)


@dataclass(frozen=True)
class Files:
    """PEM files of one end: the CA's certificate, its own, its key."""

    ca: Path
    certificate: Path
    key: Path

    def words(self) -> dict[str, str]:
        """Give the paths by name, for a configuration's text."""
        return {"ca": str(self.ca), "certificate": str(self.certificate), "key": str(self.key)}


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def issue(name: str, issuer: Issued | None = None) -> Issued:
    """Make a P-256 key and its certificate, good for both ends of TLS; without an issuer, a root."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + LIFE)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        )
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def issue_pair(fabric: Fabric) -> dict[str, Files]:
    """Write a CA's certificate, and certificate and key of each pod, into the fabric's folder."""
    root = issue("bench")
    ca = fabric.directory / "ca.pem"
    ca.write_bytes(root.certificate.public_bytes(serialization.Encoding.PEM))
    files = {}
    for label in (CLIENT, SERVER):
        leaf = issue(label, root)
        certificate, key = fabric.directory / f"{label}.pem", fabric.directory / f"{label}.key"
        certificate.write_bytes(leaf.certificate.public_bytes(serialization.Encoding.PEM))
        key.touch(mode=0o600)
        key.write_bytes(
            leaf.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        files[label] = Files(ca, certificate, key)
    return files
