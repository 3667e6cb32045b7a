"""One sign request, from the token to the lease: what the CA's record says counts, and nothing else."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from support.authority import DAY, make_claims, make_csr_pem
from support.joining import roots_of
from support.memory_ca import ISSUER, SECRET, WALL, Memory, join, office

from ca.documents import StateError
from ca.issue import Issued, TokenRecord, authenticate
from ca.messages import SignRequest, encode, encode_claims, encode_token
from ca.refusal import Refusal, Refused
from proxy.credentials.certificate import parse_pod_certificate

CLAIMS = make_claims(expires=int((WALL + 7 * DAY).timestamp()))
BODY = encode(SignRequest(make_csr_pem()))
TOKEN = encode_token(CLAIMS, SECRET)


def request(store: Memory, token: str = TOKEN, body: bytes = BODY, wall: datetime = WALL) -> Issued:
    return join(store, token, body, wall)


def reason(store: Memory, token: str = TOKEN, body: bytes = BODY, wall: datetime = WALL) -> Refusal:
    with pytest.raises(Refused) as refused:
        request(store, token, body, wall)
    return refused.value.reason


def test_genuine_token_gets_the_certificate_that_its_record_says() -> None:
    store = Memory(CLAIMS)
    issued = request(store)
    leaf = parse_pod_certificate(x509.load_pem_x509_certificate(issued.response.chain[0].encode()))
    assert leaf.identity == CLAIMS.identity
    assert leaf.addresses == {address.packed for address in CLAIMS.addresses}
    assert issued.response.time == WALL.timestamp()
    assert roots_of(issued.response) == (ISSUER.root,)
    assert store.held == (issued.lease,)
    assert issued.lease.serial == f"{leaf.serial:x}"
    assert issued.lease.ends == leaf.not_after


@pytest.mark.parametrize("header", ["", TOKEN, f"bearer {TOKEN}", f"Basic {TOKEN}", "Bearer "])
def test_header_without_a_bearer_token_is_refused(header: str) -> None:
    with pytest.raises(Refused) as refused:
        authenticate(header, office(Memory(CLAIMS)).find_token, WALL)
    assert refused.value.reason is Refusal.UNKNOWN_TOKEN


def test_token_that_this_ca_never_made_is_refused() -> None:
    assert reason(Memory()) is Refusal.UNKNOWN_TOKEN
    assert reason(Memory(CLAIMS), encode_token(CLAIMS, b"x" * 32)) is Refusal.UNKNOWN_TOKEN


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": ["10.0.0.9"]},
        {"service_account": "admin"},
        {"pod": "web-2"},
        {"expires": 1 << 39},
    ],
)
def test_token_with_altered_claims_is_refused(change: dict[str, object]) -> None:
    _, _, secret = TOKEN.split(".")
    altered = json.dumps(json.loads(encode_claims(CLAIMS)) | change).encode()
    text = base64.urlsafe_b64encode(altered).rstrip(b"=").decode()
    assert reason(Memory(CLAIMS), f"tct1.{text}.{secret}") is Refusal.UNKNOWN_TOKEN


@given(st.text(max_size=200))
def test_whatever_the_header_only_refused_escapes(noise: str) -> None:
    for header in (noise, f"Bearer {noise}", f"Bearer {TOKEN[:-1]}{noise}"):
        if header != f"Bearer {TOKEN}":
            with pytest.raises(Refused):
                authenticate(header, office(Memory(CLAIMS)).find_token, WALL)


def test_token_can_be_used_until_it_expires() -> None:
    store = Memory(CLAIMS)
    end = datetime.fromtimestamp(CLAIMS.expires, UTC)
    request(store, wall=end - timedelta(seconds=1))
    with pytest.raises(Refused) as refused:
        request(store, wall=end)
    assert refused.value.reason is Refusal.EXPIRED_TOKEN
    assert refused.value.claims == CLAIMS


def test_restarted_pod_gets_another_certificate_for_another_key() -> None:
    store = Memory(CLAIMS)
    first, second = request(store), request(store, body=encode(SignRequest(make_csr_pem())))
    assert first.response.chain != second.response.chain
    assert store.held == (second.lease,)


def test_address_held_by_another_token_is_refused_until_that_certificate_ends() -> None:
    other = replace(CLAIMS, id="f" * 16, pod="web-2", addresses=CLAIMS.addresses[:1])
    store, token = Memory(CLAIMS, other), encode_token(other, SECRET)
    held = request(store).lease
    assert reason(store, token) is Refusal.ADDRESS_HELD
    assert reason(store, token, wall=WALL + DAY) is Refusal.ADDRESS_HELD
    assert store.held == (held,)
    after = request(store, token, wall=WALL + DAY + timedelta(seconds=1))
    assert store.held[-1] == after.lease


def test_pods_at_different_addresses_do_not_disturb_each_other() -> None:
    other = replace(CLAIMS, id="f" * 16, pod="web-2", addresses=(ip_address("10.0.0.2"),))
    store = Memory(CLAIMS, other)
    leases = request(store).lease, request(store, encode_token(other, SECRET)).lease
    assert store.held == leases


@pytest.mark.parametrize("body", [b"", b"{}", b'{"csr": 1}', b'{"csr": "x", "addresses": []}'])
def test_malformed_body_is_refused(body: bytes) -> None:
    assert reason(Memory(CLAIMS), body=body) is Refusal.MALFORMED


def test_refused_csr_takes_no_address() -> None:
    store = Memory(CLAIMS)
    assert reason(store, body=encode(SignRequest("no CSR"))) is Refusal.CSR_MALFORMED
    assert store.held == ()


def test_certificate_that_is_not_on_record_does_not_leave() -> None:
    store = Memory(CLAIMS)
    store.is_full = True
    with pytest.raises(StateError, match="No space"):
        request(store)


def test_ended_root_signs_no_more() -> None:
    claims = replace(CLAIMS, expires=1 << 39)
    wall = ISSUER.root.not_valid_after_utc
    assert reason(Memory(claims), encode_token(claims, SECRET), wall=wall) is Refusal.ROOT_ENDED


def test_record_counts_and_not_what_the_token_says() -> None:
    # A CA's owner may narrow a record by hand: the token's own text must not widen it again.
    store = Memory(CLAIMS)
    narrow = replace(CLAIMS, addresses=CLAIMS.addresses[:1])
    store.records[CLAIMS.id] = TokenRecord(store.records[CLAIMS.id].hash, narrow)
    assert request(store).lease.addresses == narrow.addresses
