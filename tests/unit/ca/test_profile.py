"""A CSR proves that its sender holds a P-256 key, and decides nothing else."""

import base64
import contextlib
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from support.authority import make_claims, make_csr_pem

from ca.profile import LARGEST_CSR, judge_csr
from ca.refusal import Refusal, Refused
from proxy.credentials.csr import make_key_and_csr

KEY = ec.generate_private_key(ec.SECP256R1())
NOBODY = x509.Name([])
PLAIN = x509.CertificateSigningRequestBuilder().subject_name(NOBODY)
GOOD = make_csr_pem()


def pem(
    builder: x509.CertificateSigningRequestBuilder,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey = KEY,
    algorithm: hashes.SHA256 | hashes.SHA384 | None = hashes.SHA256(),  # noqa: B008 - holds nothing
) -> str:
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


def reason(csr: str) -> Refusal:
    with pytest.raises(Refused) as refused:
        judge_csr(csr)
    return refused.value.reason


def test_proxys_own_csr_proves_its_key() -> None:
    key, der = make_key_and_csr()
    csr = x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode()
    approved = judge_csr(csr)
    assert approved.public_key == key.public_key()
    assert approved.csr == csr


@pytest.mark.parametrize(
    "extension",
    [
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("10.0.0.2"))]),
        x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier("spiffe://shop.example/ns/shop/sa/admin")]
        ),
        x509.BasicConstraints(ca=True, path_length=None),
    ],
    ids=["address", "identity", "ca"],
)
def test_csr_cannot_ask_for_names_or_rights(extension: x509.ExtensionType) -> None:
    assert reason(pem(PLAIN.add_extension(extension, critical=False))) is Refusal.CSR_ASKS


def test_csr_cannot_ask_even_for_what_the_token_gives() -> None:
    names = [x509.IPAddress(address) for address in make_claims().addresses]
    asking = PLAIN.add_extension(x509.SubjectAlternativeName(names), critical=True)
    assert reason(pem(asking)) is Refusal.CSR_ASKS


def test_csr_cannot_choose_a_subject() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web-1")])
    asking = x509.CertificateSigningRequestBuilder().subject_name(subject)
    assert reason(pem(asking)) is Refusal.CSR_ASKS


def test_csr_cannot_carry_attributes() -> None:
    asking = PLAIN.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")
    assert reason(pem(asking)) is Refusal.CSR_ASKS


def test_only_p256_keys_are_certified() -> None:
    assert reason(pem(PLAIN, ec.generate_private_key(ec.SECP384R1()))) is Refusal.CSR_KEY
    assert reason(pem(PLAIN, rsa.generate_private_key(65537, 2048))) is Refusal.CSR_KEY
    assert reason(pem(PLAIN, ed25519.Ed25519PrivateKey.generate(), None)) is Refusal.CSR_KEY


def test_csr_is_signed_with_sha256() -> None:
    assert reason(pem(PLAIN, algorithm=hashes.SHA384())) is Refusal.CSR_SIGNATURE


def test_key_that_the_sender_does_not_hold_is_not_certified() -> None:
    mine, der = make_key_and_csr()
    theirs, _ = make_key_and_csr()
    point = Encoding.X962, PublicFormat.UncompressedPoint
    swapped = der.replace(
        mine.public_key().public_bytes(*point), theirs.public_key().public_bytes(*point)
    )
    assert swapped != der
    text = base64.encodebytes(swapped).decode()
    csr = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
    assert reason(csr) is Refusal.CSR_SIGNATURE


def test_csr_of_an_unknown_version_is_refused() -> None:
    der = make_key_and_csr()[1]
    version_1 = b"\x02\x01\x00"  # RFC 2986 section 4.1 counts from 0
    changed = der.replace(version_1, b"\x02\x01\x01", 1)
    assert changed != der
    text = base64.encodebytes(changed).decode()
    csr = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
    assert reason(csr) is Refusal.CSR_MALFORMED


def test_oversize_csr_is_refused_unread() -> None:
    assert reason(GOOD + "\n" * LARGEST_CSR) is Refusal.CSR_MALFORMED


@given(
    st.text(max_size=100)
    | st.builds(lambda cut, noise: GOOD[:cut] + noise, st.integers(0, 600), st.text(max_size=100))
    | st.builds(
        lambda at, digit: GOOD[:at] + digit + GOOD[at + 1 :],
        st.integers(40, 380),
        st.sampled_from("ABab09+/"),
    )
)
def test_whatever_the_csr_only_refused_escapes(csr: str) -> None:
    with contextlib.suppress(Refused):
        judge_csr(csr)
