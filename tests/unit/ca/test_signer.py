"""What a signer gave is to the letter what was asked for, or refused by the name of the field."""

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.authority import DAY, approved, make_claims
from support.memory_ca import ISSUER, SIGNER, WALL

from ca.certificates import Issuer, KeySigner, make_root, sign_leaf
from ca.signer import SignerError, Wanted, check_signed, for_lists, for_pod, for_server, make_csr
from policy.certificate import check_list_signer, read_pod_names

KEY = ec.generate_private_key(ec.SECP256R1())
POD = for_pod(approved(make_claims()))
SERVER = for_server(KEY.public_key(), (ip_address("10.0.0.9"),), "shop.example", make_csr(KEY))
LISTS = for_lists(KEY.public_key(), "shop.example", make_csr(KEY))
FOREIGN = make_root(KEY, "shop.example", WALL, 3650 * DAY)


def signed(wanted: Wanted, life: timedelta = DAY) -> x509.Certificate:
    return sign_leaf(ISSUER, wanted, WALL, life)


def check(wanted: Wanted, *chain: x509.Certificate) -> None:
    check_signed(wanted, chain, ISSUER.root, WALL, DAY)


@pytest.mark.parametrize("wanted", [POD, SERVER, LISTS], ids=["pod", "server", "lists"])
def test_what_the_embedded_signer_gives_is_what_was_asked_for(wanted: Wanted) -> None:
    check(wanted, *SIGNER.sign(ISSUER.root, wanted, WALL, DAY))
    assert SIGNER.trust_domain == "shop.example"


def test_kinds_are_what_pods_take_them_for() -> None:
    assert read_pod_names(signed(POD)).pod == "web-1"
    check_list_signer(signed(LISTS), "shop.example")
    for other in (POD, SERVER):
        with pytest.raises(ValueError, match=r"."):
            check_list_signer(signed(other), "shop.example")


WRONG = {
    "another key": (replace(POD, public_key=KEY.public_key()), "public_key"),
    "another identity": (replace(POD, uri="spiffe://shop.example/ns/shop/sa/admin"), "uri_sans"),
    "no DNS name": (replace(POD, dns=()), "alt_names"),
    "a second DNS name": (replace(POD, dns=(*POD.dns, "web-2.shop.pod")), "alt_names"),
    "fewer addresses": (replace(POD, addresses=POD.addresses[:1]), "ip_sans"),
    "more addresses": (replace(POD, addresses=(*POD.addresses, ip_address("10.0.0.2"))), "ip_sans"),
    "one purpose": (replace(POD, purposes=POD.purposes[:1]), "ext_key_usage"),
    "no purpose": (replace(POD, purposes=()), "ext_key_usage"),
    "code signing too": (
        replace(POD, purposes=(*POD.purposes, ExtendedKeyUsageOID.CODE_SIGNING)),
        "ext_key_usage",
    ),
}


@pytest.mark.parametrize(("given", "field"), WRONG.values(), ids=WRONG)
def test_whatever_else_is_refused_by_its_field(given: Wanted, field: str) -> None:
    with pytest.raises(SignerError, match=f"^{field}:"):
        check(POD, signed(given))


@pytest.mark.parametrize("life", [2 * DAY, timedelta(minutes=5)])
def test_another_life_is_refused(life: timedelta) -> None:
    with pytest.raises(SignerError, match=r"^ttl: good for"):
        check(POD, signed(POD, life))


@pytest.mark.parametrize("minutes", [-50, 4])
def test_a_signer_whose_clock_differs_a_little_is_no_trouble(minutes: int) -> None:
    at = WALL + timedelta(minutes=minutes)
    check_signed(POD, [sign_leaf(ISSUER, POD, at, DAY)], ISSUER.root, WALL, DAY)


@pytest.mark.parametrize("hours", [-24.1, 0.2])
def test_a_signer_whose_clock_makes_it_useless_is_told(hours: float) -> None:
    at = WALL + timedelta(hours=hours)
    made = sign_leaf(Issuer(ISSUER.root, ISSUER.key), POD, at, DAY)
    with pytest.raises(SignerError, match=r"^the signer's clock: good from"):
        check_signed(POD, [made], ISSUER.root, WALL, DAY)


def test_a_life_that_the_root_cuts_short_is_not_refused() -> None:
    ends = ISSUER.root.not_valid_after_utc - timedelta(hours=1)
    check_signed(POD, [sign_leaf(ISSUER, POD, ends, DAY)], ISSUER.root, ends, DAY)


def rebuilt(
    extensions: dict[type, x509.ExtensionType] | None = None, name: str = ""
) -> x509.Certificate:
    """Return the pod's certificate with a part of it changed."""
    good = signed(POD)
    named = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(named))
        .issuer_name(good.issuer)
        .public_key(POD.public_key)
        .serial_number(1)
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(good.not_valid_after_utc)
    )
    for extension in good.extensions:
        value = (extensions or {}).get(type(extension.value), extension.value)
        builder = builder.add_extension(value, extension.critical)
    return builder.sign(ISSUER.key, hashes.SHA256())


def test_a_rebuilt_certificate_is_good_unless_a_part_differs() -> None:
    check(POD, rebuilt())


USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
PARTS: dict[str, tuple[dict[type, x509.ExtensionType], str]] = {
    "a CA": (
        {x509.BasicConstraints: x509.BasicConstraints(ca=True, path_length=None)},
        "basic_constraints",
    ),
    "a key that signs certificates": ({x509.KeyUsage: USAGE}, "key_usage"),
    "a name of another kind": (
        {
            x509.SubjectAlternativeName: x509.SubjectAlternativeName(
                [*POD.names, x509.RFC822Name("web@shop.example")]
            )
        },
        "other_sans",
    ),
}


@pytest.mark.parametrize(("parts", "field"), PARTS.values(), ids=PARTS)
def test_a_certificate_for_more_than_pods_do_is_refused(
    parts: dict[type, x509.ExtensionType], field: str
) -> None:
    with pytest.raises(SignerError, match=f"^{field}:"):
        check(POD, rebuilt(parts))


def test_a_subject_is_refused() -> None:
    with pytest.raises(SignerError, match=r"^subject: CN=web-1"):
        check(POD, rebuilt(name="web-1"))


def test_a_chain_that_ends_at_no_root_of_the_project_is_refused() -> None:
    other = Issuer(FOREIGN, KEY)
    with pytest.raises(SignerError, match=r"^chain: it does not end at the root that shall sign"):
        check(POD, sign_leaf(other, POD, WALL, DAY))
    with pytest.raises(SignerError, match=r"^chain: a certificate is not signed by the next"):
        check(POD, signed(POD), FOREIGN)
    with pytest.raises(SignerError, match=r"^chain: 0 certificates"):
        check(POD)
    with pytest.raises(SignerError, match=r"^chain: 4 certificates"):
        check(POD, *[signed(POD)] * 4)


def test_an_intermediate_of_the_root_is_a_good_chain() -> None:
    middle = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "between")])
    between = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(ISSUER.root.subject)
        .public_key(middle.public_key())
        .serial_number(2)
        .not_valid_before(WALL)
        .not_valid_after(WALL + 30 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(middle.public_key()), critical=False
        )
        .sign(ISSUER.key, hashes.SHA256())
    )
    check(POD, sign_leaf(Issuer(between, middle), POD, WALL, DAY), between)


def test_a_signer_whose_root_names_no_trust_domain_is_none() -> None:
    with pytest.raises(ValueError, match="trust domain"):
        KeySigner(Issuer(signed(LISTS), KEY))
