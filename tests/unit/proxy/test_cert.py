"""What `tencrypt cert` shows of the pod, and what it says of any certificate, and why."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from support.certified import list_signer_certificate, server_certificate
from support.pki import BOTH_ENDS, HOUR, START, Authority, Leaf

from ca.certificates import Issuer
from proxy.cert import draw, draw_verdict, judge, report
from proxy.credentials.credential import Credential
from proxy.credentials.trust import Revocations

AUTHORITY = Authority()
OWN = AUTHORITY.issue(Leaf(pod="web-1", addresses=("10.0.0.1",)))
WALL = START.timestamp() + 60
RENEWAL: dict[str, object] = {
    "renewals": 0,
    "next_seconds": 3600,
    "failures": 0,
    "last_error": None,
}


def pem(credential: Credential) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in credential.chain)


def peer(**changes: object) -> Credential:
    return AUTHORITY.issue(replace(Leaf(pod="db-1", addresses=("10.0.0.2",)), **changes))  # type: ignore[arg-type]  # fields of a Leaf


def test_a_peer_and_ourselves_are_accepted() -> None:
    said = judge(pem(peer()), OWN, WALL)
    assert said["accepted"]
    assert said["detail"] == "a peer of this project: db-1, spiffe://shop.example/ns/shop/sa/web"
    assert str(judge(pem(OWN), OWN, WALL)["detail"]).startswith("our own: web-1")


def test_another_certificate_with_our_address_is_refused() -> None:
    said = judge(pem(peer(addresses=("10.0.0.1",))), OWN, WALL)
    assert (said["accepted"], said["reason"]) == (False, "own_address")


WRONG = {
    "expired": (peer(ends=START), "certificate_time"),
    "not valid yet": (peer(begins=START + HOUR), "certificate_time"),
    "another project": (peer(namespace="bank"), "foreign_project"),
    "another trust domain": (peer(trust_domain="bank.example"), "foreign_project"),
    "no purpose": (peer(purposes=BOTH_ENDS[:1]), "certificate_profile"),
    "another authority": (Authority("other").issue(Leaf(pod="db-1")), "untrusted"),
}


@pytest.mark.parametrize(("shown", "reason"), WRONG.values(), ids=WRONG)
def test_each_refusal_has_the_reason_that_a_handshake_would_have(
    shown: Credential, reason: str
) -> None:
    said = judge(pem(shown), OWN, WALL)
    assert (said["accepted"], said["reason"]) == (False, reason)
    assert draw_verdict(said).startswith(f"REFUSED  {reason}")


def test_what_was_withdrawn_is_refused() -> None:
    shown = peer()
    revoked = Revocations(serials=frozenset({shown.chain[0].serial_number}))
    assert judge(pem(shown), OWN, WALL, revoked)["reason"] == "revoked"


def test_certificates_of_the_ca_s_services_are_no_pod_s() -> None:
    issuer = Issuer(AUTHORITY.root, AUTHORITY.key)
    key = OWN.key.public_key()
    own = replace(OWN, roots=(AUTHORITY.root,))
    lists = list_signer_certificate(issuer, key, START, HOUR, "shop.example")
    server = server_certificate(issuer, key, (ip_address("10.0.0.9"),), START, HOUR, "shop.example")
    for certificate, whose in ((lists, "the list signer's"), (server, "the CA service's")):
        said = judge(certificate.public_bytes(Encoding.PEM), own, WALL)
        assert said["detail"] == f"good as {whose}, and as no pod's"


@given(st.binary(max_size=300))
def test_any_bytes_are_unreadable_and_not_an_error(data: bytes) -> None:
    assert judge(data, OWN, WALL)["reason"] == "unreadable"


def test_too_many_certificates_are_refused() -> None:
    assert judge(pem(OWN) * 9, OWN, WALL)["reason"] == "unreadable"


def test_the_chain_is_a_tree_from_the_root_down_and_holds_no_key() -> None:
    said = report(OWN, RENEWAL, WALL)
    lines = draw(said).splitlines()
    assert lines[0] == "CN=test root"
    assert "└─ spiffe://shop.example/ns/shop/sa/web" in lines
    assert "   name    web-1.shop.pod" in lines
    assert "   left    23h59m" in lines
    assert lines[-1] == "renewal in 1h00m"
    assert "PRIVATE" not in str(said)


def test_failed_renewals_and_other_roots_are_told() -> None:
    other = Authority("the next root")
    own = replace(OWN, roots=(AUTHORITY.root, other.root))
    text = draw(report(own, {**RENEWAL, "failures": 3, "last_error": "the CA is away"}, WALL))
    assert "trusted too:\nCN=the next root" in text
    assert text.endswith("3 attempts failed: the CA is away")
