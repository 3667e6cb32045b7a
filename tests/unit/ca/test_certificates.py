"""What the CA signs: the profile that pods expect, strict X.509, and never more life than the root has."""

import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from OpenSSL import crypto
from support.authority import make_claims
from support.certified import pod_certificate, server_certificate
from support.pki import Authority as OtherAuthority

from ca.certificates import Issuer, make_root, trust_domain_of
from ca.profile import ApprovedRequest
from ca.signer import BACKDATED
from proxy.credentials.certificate import parse_pod_certificate
from proxy.errors import Dropped

WALL = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = Issuer(make_root(KEY, "shop.example", WALL, 10 * DAY), KEY)
POD_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()


def make_pod(wall: datetime = WALL, life: timedelta = DAY) -> x509.Certificate:
    return pod_certificate(ISSUER, ApprovedRequest(POD_KEY, make_claims()), wall, life)


def make_server() -> x509.Certificate:
    return server_certificate(ISSUER, POD_KEY, [ip_address("10.0.1.1")], WALL, DAY)


def test_pod_reads_in_its_certificate_what_its_token_gave() -> None:
    claims, certificate = make_claims(), parse_pod_certificate(make_pod())
    assert certificate.identity == claims.identity
    assert certificate.pod == claims.pod
    assert certificate.addresses == {address.packed for address in claims.addresses}
    assert make_pod().public_key() == POD_KEY


def test_pods_certificate_says_nothing_else() -> None:
    extensions = make_pod().extensions
    critical = {extension.oid: extension.critical for extension in extensions}
    assert critical == {
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.EXTENDED_KEY_USAGE: False,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: True,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
    }
    assert not list(make_pod().subject)
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage == x509.KeyUsage(*(name == 0 for name in range(9)))


def test_servers_certificate_is_the_cas_and_no_pods() -> None:
    extensions = make_server().extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [
        x509.UniformResourceIdentifier("spiffe://shop.example/tencrypt/ca"),
        x509.IPAddress(ip_address("10.0.1.1")),
    ]
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    with pytest.raises(Dropped):
        parse_pod_certificate(make_server())


@pytest.mark.parametrize("leaf", [make_pod(), make_server()], ids=["pod", "server"])
def test_chain_passes_strict_verification(leaf: x509.Certificate, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(ISSUER.root.public_bytes(Encoding.PEM))
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    when = ("-attime", str(int(WALL.timestamp())))
    command = ["openssl", "verify", "-x509_strict", *when, "-CAfile", "root.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "leaf.pem: OK\n"), done.stderr


def test_leaf_signs_no_other_certificate() -> None:
    pod_key = ec.generate_private_key(ec.SECP256R1())
    pod = pod_certificate(ISSUER, ApprovedRequest(pod_key.public_key(), make_claims()), WALL, DAY)
    forged = pod_certificate(
        Issuer(pod, pod_key), ApprovedRequest(POD_KEY, make_claims(pod="web-2")), WALL, DAY
    )
    store = crypto.X509Store()
    store.set_time(WALL.replace(tzinfo=None))
    store.add_cert(crypto.X509.from_cryptography(ISSUER.root))
    chain = [crypto.X509.from_cryptography(pod)]
    context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(forged), chain)
    with pytest.raises(crypto.X509StoreContextError):
        context.verify_certificate()


def test_certificate_begins_a_little_in_the_past_and_lives_as_long_as_asked() -> None:
    certificate = make_pod()
    assert certificate.not_valid_before_utc == WALL - BACKDATED
    assert certificate.not_valid_after_utc == WALL + DAY


def test_certificate_never_outlives_its_root() -> None:
    certificate = make_pod(WALL + 9 * DAY, 30 * DAY)
    assert certificate.not_valid_after_utc == ISSUER.root.not_valid_after_utc


def test_serials_are_never_the_same() -> None:
    assert len({make_pod().serial_number for _ in range(20)}) == 20


def test_root_names_its_trust_domain() -> None:
    assert trust_domain_of(ISSUER.root) == "shop.example"
    usage = ISSUER.root.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature


def test_root_of_something_else_is_refused() -> None:
    for other in (OtherAuthority().root, make_pod()):
        with pytest.raises(ValueError, match="trust domain"):
            trust_domain_of(other)


def test_issuers_key_is_not_shown() -> None:
    assert "key" not in repr(ISSUER).lower()
