"""One sign request: who gets a certificate for what, and by which reason nobody else does."""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from support.ca_server import claims
from typing_extensions import override

from ca.certificates import Issuer, make_root
from ca.drivers.file_backend import FileBackend
from ca.issue import Issued, Store, TokenRecord, authenticate, issue
from ca.lease import Lease
from ca.messages import JoinClaims, SignRequest, encode, encode_token, token_hash
from ca.refusal import Refusal, Refused
from proxy.credentials.credential import build_credential
from proxy.credentials.csr import make_key_and_csr

WALL = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SECRET = bytes(range(32))
CLAIMS = claims(["10.0.0.1", "fd00::1"], now=WALL)
TOKEN = encode_token(CLAIMS, SECRET)
OTHER = claims(["10.0.0.2", "fd00::1"], token_id="f" * 16, pod="web-2", now=WALL)


class MemoryStore(Store):
    def __init__(self, *records: TokenRecord) -> None:
        self.records = {record.claims.id: record for record in records}
        self.kept: tuple[Lease, ...] = ()

    @override
    def token(self, token_id: str) -> TokenRecord | None:
        return self.records.get(token_id)

    @override
    def leases(self) -> tuple[Lease, ...]:
        return self.kept

    @override
    def put_leases(self, leases: Iterable[Lease]) -> None:
        self.kept = tuple(leases)


def store_of_token() -> MemoryStore:
    return MemoryStore(TokenRecord(token_hash(TOKEN), CLAIMS))


def backend(life: timedelta = 3650 * DAY) -> FileBackend:
    key = ec.generate_private_key(ec.SECP256R1())
    return FileBackend(Issuer(make_root(key, "shop.example", WALL, life), key))


BACKEND = backend()


def body() -> bytes:
    csr = x509.load_der_x509_csr(make_key_and_csr()[1])
    return encode(SignRequest(csr.public_bytes(Encoding.PEM).decode()))


def ask(
    store: MemoryStore, who: JoinClaims = CLAIMS, wall: datetime = WALL, life: timedelta = DAY
) -> Issued:
    return issue(who, body(), store, BACKEND, wall=wall, life=life)


def refusal(store: MemoryStore, who: JoinClaims = CLAIMS, wall: datetime = WALL) -> Refusal:
    with pytest.raises(Refused) as refused:
        ask(store, who, wall)
    return refused.value.reason


def test_a_known_token_entitles_to_what_is_on_record() -> None:
    assert authenticate(f"Bearer {TOKEN}", store_of_token(), WALL) == CLAIMS


def test_tampered_claims_make_a_token_unknown() -> None:
    more = replace(CLAIMS, addresses=(*CLAIMS.addresses, ip_address("10.0.0.9")))
    longer = replace(CLAIMS, expires=CLAIMS.expires + 3600)
    for forged in (more, longer, replace(CLAIMS, pod="web-2"), replace(CLAIMS, id="f" * 16)):
        with pytest.raises(Refused) as refused:
            authenticate(f"Bearer {encode_token(forged, SECRET)}", store_of_token(), WALL)
        assert refused.value.reason is Refusal.UNKNOWN_TOKEN


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN} ", f"Bearer {TOKEN[:-1]}A"],
)
def test_no_token_is_unknown(header: str) -> None:
    with pytest.raises(Refused) as refused:
        authenticate(header, store_of_token(), WALL)
    assert refused.value.reason is Refusal.UNKNOWN_TOKEN


def test_a_token_expires_by_its_record() -> None:
    authenticate(f"Bearer {TOKEN}", store_of_token(), WALL + HOUR - timedelta(seconds=1))
    with pytest.raises(Refused) as refused:
        authenticate(f"Bearer {TOKEN}", store_of_token(), WALL + HOUR)
    assert refused.value.reason is Refusal.EXPIRED_TOKEN


def test_a_refusal_does_not_repeat_the_token() -> None:
    with pytest.raises(Refused) as refused:
        authenticate(f"Bearer {TOKEN[:-1]}A", store_of_token(), WALL)
    assert "tct1" not in str(refused.value)


def test_the_proxy_takes_what_is_issued() -> None:
    key, der = make_key_and_csr()
    csr = x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode()
    request = encode(SignRequest(csr))
    response = issue(CLAIMS, request, store_of_token(), BACKEND, wall=WALL, life=DAY).response
    own = build_credential(key, response.chain[0].encode(), response.roots[0].encode()).own
    assert (own.identity, own.pod) == (CLAIMS.identity, "web-1")
    assert own.addresses == {address.packed for address in CLAIMS.addresses}
    assert response.time == WALL.timestamp()


def test_what_is_issued_is_on_record() -> None:
    store = store_of_token()
    issued = ask(store)
    leaf = x509.load_pem_x509_certificate(issued.response.chain[0].encode())
    assert store.kept == (issued.lease,)
    assert issued.lease.serial == f"{leaf.serial_number:x}"
    assert issued.lease.ends == leaf.not_valid_after_utc.timestamp()


def test_nothing_leaves_that_could_not_be_recorded() -> None:
    class FullStore(MemoryStore):
        @override
        def put_leases(self, leases: Iterable[Lease]) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        ask(FullStore())


def test_an_address_held_by_another_token_is_refused_until_its_certificate_has_ended() -> None:
    store = MemoryStore()
    ask(store, OTHER)
    assert refusal(store, CLAIMS) is Refusal.ADDRESS_HELD
    assert refusal(store, CLAIMS, WALL + DAY) is Refusal.ADDRESS_HELD
    ask(store, CLAIMS, WALL + DAY + timedelta(seconds=1))


def test_addresses_of_others_are_no_hindrance() -> None:
    store = MemoryStore()
    ask(store, replace(OTHER, addresses=(ip_address("10.0.0.2"),)))
    ask(store, CLAIMS)
    assert len(store.kept) == 2


def test_a_restarted_pod_comes_back_with_its_token() -> None:
    store = MemoryStore()
    first, second = ask(store), ask(store)
    assert first.response.chain != second.response.chain
    assert store.kept == (second.lease,)


def test_a_shorter_certificate_does_not_free_the_addresses_of_a_longer_one() -> None:
    store = MemoryStore()
    long = ask(store)
    ask(store, life=HOUR)
    assert store.kept[0].ends == long.lease.ends
    assert refusal(store, OTHER, WALL + 2 * HOUR) is Refusal.ADDRESS_HELD


@pytest.mark.parametrize("request_body", [b"", b"{}", json.dumps({"csr": 1}).encode()])
def test_a_malformed_body_is_told_so(request_body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        issue(CLAIMS, request_body, MemoryStore(), BACKEND, wall=WALL, life=DAY)
    assert refused.value.reason is Refusal.MALFORMED


def test_a_refused_csr_leaves_no_record() -> None:
    store = MemoryStore()
    with pytest.raises(Refused) as refused:
        issue(CLAIMS, encode(SignRequest("no CSR")), store, BACKEND, wall=WALL, life=DAY)
    assert refused.value.reason is Refusal.CSR_MALFORMED
    assert store.kept == ()


def test_an_ended_root_issues_nothing() -> None:
    with pytest.raises(Refused) as refused:
        issue(CLAIMS, body(), MemoryStore(), backend(HOUR), wall=WALL + HOUR, life=DAY)
    assert refused.value.reason is Refusal.ROOT_ENDED
