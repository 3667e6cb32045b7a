"""A root or intermediate that was made elsewhere signs, where pods would believe what it signs, and no other does."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from support.authority import DAY, PASSPHRASE, approved, make_claims
from support.memory_ca import WALL

from ca.certificates import key_usage
from ca.drivers.file_backend import create_for_issuer, open_signer, read_trust_domain
from ca.own_issuer import OwnIssuerError, read_own_issuer
from ca.signer import check_signed, for_pod

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Made:
    """A certificate of a company's authority, and its key."""

    certificate: x509.Certificate
    key: Key


def make(
    name: str,
    by: Made | None = None,
    *,
    key: Key | None = None,
    path_length: int | None = None,
    life: timedelta = 3650 * DAY,
    is_ca: bool = True,
    identified: bool = True,
) -> Made:
    """Return an authority's certificate, signed by another or by itself."""
    own = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = by or Made(None, own)  # type: ignore[arg-type]  # its key alone is used
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(WALL - DAY)
        .not_valid_after(WALL - DAY + life)
        .add_extension(
            x509.BasicConstraints(ca=is_ca, path_length=path_length if is_ca else None),
            critical=True,
        )
        .add_extension(key_usage(is_ca=is_ca), critical=True)
    )
    if identified:
        identifier = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if by:
        above = x509.SubjectKeyIdentifier.from_public_key(by.key.public_key())
        known = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above)
        builder = builder.add_extension(known, critical=False)
    return Made(builder.sign(signer.key, hashes.SHA256()), own)


def pem(*chain: Made) -> bytes:
    return b"".join(one.certificate.public_bytes(Encoding.PEM) for one in chain)


def key_pem(made: Made, passphrase: bytes = b"") -> bytes:
    sealing = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing)


ROOT = make("company")
MIDDLE = make("shop", ROOT, path_length=0)


@pytest.mark.parametrize("chain", [(ROOT,), (MIDDLE, ROOT)], ids=["root", "intermediate"])
@pytest.mark.parametrize("passphrase", [b"", PASSPHRASE], ids=["plain", "encrypted"])
def test_pods_believe_what_it_signs(
    tmp_path: Path, chain: tuple[Made, ...], passphrase: bytes
) -> None:
    issuer = read_own_issuer(pem(*chain), key_pem(chain[0], passphrase), PASSPHRASE, WALL)
    create_for_issuer(tmp_path / "ca", "shop.example", PASSPHRASE, issuer, WALL)
    signer = open_signer(tmp_path / "ca", PASSPHRASE)
    assert signer.trust_domain == read_trust_domain(tmp_path / "ca") == "shop.example"
    wanted = for_pod(approved(make_claims()))
    signed = signer.sign(ROOT.certificate, wanted, WALL, DAY)
    assert len(signed) == len(chain)
    assert signer.issuer.root == ROOT.certificate
    check_signed(wanted, signed, ROOT.certificate, WALL, DAY)


def test_a_stronger_curve_signs_too() -> None:
    root = make("company", key=ec.generate_private_key(ec.SECP384R1()))
    assert read_own_issuer(pem(root), key_pem(root), PASSPHRASE, WALL).root == root.certificate


RSA = make("rsa", key=rsa.generate_private_key(65537, 2048))
OTHER = make("other")
WRONG = {
    "another's key": (pem(ROOT), key_pem(OTHER), "the key is not that of the first certificate"),
    "no root": (pem(MIDDLE), key_pem(MIDDLE), "the chain must lead from the issuer, first"),
    "the root first": (pem(ROOT, MIDDLE), key_pem(ROOT), "the chain must lead from the issuer"),
    "another root": (pem(MIDDLE, OTHER), key_pem(MIDDLE), "the chain must lead from the issuer"),
    "too many": (pem(MIDDLE, MIDDLE, ROOT), key_pem(MIDDLE), "3 certificates: at most 2"),
    "RSA": (pem(RSA), key_pem(RSA), "the key must be ECDSA P-256 or P-384"),
    "no certificate": (b"", key_pem(ROOT), "not certificates in PEM"),
    "no key": (pem(ROOT), b"nothing", "the key is none in PEM"),
    "another passphrase": (
        pem(ROOT),
        key_pem(ROOT, b"another"),
        "the passphrase does not open the key",
    ),
}


@pytest.mark.parametrize(("chain", "key", "said"), WRONG.values(), ids=WRONG)
def test_whatever_else_is_told_in_one_line(chain: bytes, key: bytes, said: str) -> None:
    with pytest.raises(OwnIssuerError, match=f"^{said}"):
        read_own_issuer(chain, key, PASSPHRASE, WALL)


UNBELIEVED = {
    "no CA": (make("leaf", is_ca=False), "pods would refuse what it signs"),
    "over": (make("old", life=timedelta(hours=1)), "CN=old is valid from 2026-04-30 to 2026-04-30"),
    "not identified": (make("bare", identified=False), "the issuer has no subject key identifier"),
}


@pytest.mark.parametrize(("root", "said"), UNBELIEVED.values(), ids=UNBELIEVED)
def test_a_root_that_pods_would_not_believe_is_refused(root: Made, said: str) -> None:
    with pytest.raises(OwnIssuerError, match=f"^{said}"):
        read_own_issuer(pem(root), key_pem(root), PASSPHRASE, WALL)


def test_an_intermediate_of_a_root_that_allows_none_is_refused() -> None:
    root = make("company", path_length=0)
    middle = make("shop", root)
    with pytest.raises(OwnIssuerError, match=r"^pods would refuse what it signs: .*path length"):
        read_own_issuer(pem(middle, root), key_pem(middle), PASSPHRASE, WALL)
