"""A pod's certificate is read strictly: what is not the CA's profile to the letter is nobody's."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.pki import BOTH_ENDS, START, Authority, Leaf

from proxy.credentials.certificate import parse_pod_certificate
from proxy.drops import Drop
from proxy.errors import Dropped

GOOD = Leaf(pod="web-1", addresses=("10.0.0.1", "fd00::1"))
URI = "spiffe://shop.example/ns/shop/sa/web"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def certify(authority: Authority, leaf: Leaf) -> x509.Certificate:
    return authority.certify(leaf, ec.generate_private_key(ec.SECP256R1()).public_key())


def test_good_one_says_who_where_and_when(authority: Authority) -> None:
    certificate = certify(authority, GOOD)
    read = parse_pod_certificate(certificate)
    assert (read.identity.uri, read.pod) == (URI, "web-1")
    assert read.address_texts() == ["10.0.0.1", "fd00::1"]
    assert read.serial == certificate.serial_number
    assert read.not_after == GOOD.ends.timestamp()
    assert read.not_before == GOOD.begins.timestamp() < START.timestamp()
    assert read.fingerprint == certificate.fingerprint(hashes.SHA256())


WRONG = {
    "for clients alone": replace(GOOD, purposes=BOTH_ENDS[:1]),
    "for servers alone": replace(GOOD, purposes=BOTH_ENDS[1:]),
    "for signing code": replace(GOOD, purposes=[ExtendedKeyUsageOID.CODE_SIGNING]),
    "an authority's": replace(GOOD, is_ca=True),
    "nobody's": replace(GOOD, uris=[]),
    "two pods'": replace(GOOD, uris=[URI, URI + "2"]),
    "the CA service's": replace(GOOD, uris=["spiffe://shop.example/tencrypt/ca"]),
    "no SPIFFE id": replace(GOOD, uris=["https://shop.example/ns/shop/sa/web"]),
    "another namespace's name": replace(GOOD, dns="web-1.bank.pod"),
    "no pod's name": replace(GOOD, dns="web-1.shop"),
    "every pod's name": replace(GOOD, dns="*.shop.pod"),
    "no address": replace(GOOD, addresses=()),
    "17 addresses": replace(GOOD, addresses=tuple(f"10.0.0.{n}" for n in range(1, 18))),
    "loopback": replace(GOOD, addresses=("127.0.0.1",)),
    "multicast": replace(GOOD, addresses=("224.0.0.1",)),
    "unspecified": replace(GOOD, addresses=("::",)),
    "link-local": replace(GOOD, addresses=("fe80::1",)),
    "IPv6 multicast": replace(GOOD, addresses=("ff02::1",)),
}


@pytest.mark.parametrize("leaf", WRONG.values(), ids=WRONG)
def test_anything_else_is_refused(authority: Authority, leaf: Leaf) -> None:
    with pytest.raises(Dropped) as refused:
        parse_pod_certificate(certify(authority, leaf))
    assert refused.value.reason is Drop.CERTIFICATE_PROFILE


def test_name_of_another_kind_beside_the_right_ones_is_refused(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    good = authority.certify(GOOD, key.public_key())
    names = good.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    builder = (
        x509.CertificateBuilder()
        .subject_name(good.subject)
        .issuer_name(good.issuer)
        .public_key(key.public_key())
        .serial_number(good.serial_number)
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(good.not_valid_after_utc)
    )
    for extension in good.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            value = x509.SubjectAlternativeName([*names, x509.RFC822Name("web@shop.example")])
        builder = builder.add_extension(value, critical=extension.critical)
    with pytest.raises(Dropped) as refused:
        parse_pod_certificate(builder.sign(authority.key, hashes.SHA256()))
    assert refused.value.reason is Drop.CERTIFICATE_PROFILE
