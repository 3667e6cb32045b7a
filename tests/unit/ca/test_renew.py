"""Who may renew, and by which key: the record counts, the certificate's day of grace, and nothing asked for."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from support.authority import DAY, make_claims, make_csr_pem
from support.certified import server_certificate
from support.memory_ca import ISSUER, SECRET, WALL, Memory, ask
from support.memory_ca import join as ask_by_token
from support.pki import Authority, Leaf

from ca.documents import StateError
from ca.issue import Issued
from ca.messages import SignRequest, encode, encode_token
from ca.namespace import Namespace
from ca.owner import change_revocations
from ca.refusal import Refusal, Refused
from ca.renew import Caller, identify
from ca.revocations import Entry, Kind

CLAIMS = make_claims(expires=int((WALL + DAY).timestamp()))
OTHER = make_claims("f" * 16, pod="web-2", addresses=(ip_address("10.0.0.2"),))
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def body() -> bytes:
    """Ask for a certificate for a fresh key."""
    return encode(SignRequest(make_csr_pem()))


def leaf(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.response.chain[0].encode())


def der(issued: Issued) -> bytes:
    return leaf(issued).public_bytes(Encoding.DER)


def join(store: Memory, asked: bytes | None = None, wall: datetime = WALL) -> Issued:
    return ask_by_token(store, encode_token(CLAIMS, SECRET), asked or body(), wall)


def renew(
    store: Memory, by: Issued, asked: bytes | None = None, wall: datetime = WALL + 12 * HOUR
) -> Issued:
    caller = identify(der(by), "shop.example", wall)
    return ask(store, caller, asked or body(), wall)


def reason(action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refused) as refused:
        action()
    return refused.value.reason


def judge(certificate: x509.Certificate, wall: datetime = WALL) -> Caller:
    return identify(certificate.public_bytes(Encoding.DER), "shop.example", wall)


def test_renewed_certificate_says_what_is_on_record() -> None:
    store = Memory(CLAIMS)
    second = renew(store, join(store))
    assert second.lease.addresses == CLAIMS.addresses
    names = leaf(second).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [CLAIMS.identity.uri]
    assert names.get_values_for_type(x509.DNSName) == ["web-1.shop.pod"]
    assert store.held == (second.lease,)
    assert (second.lease.serial, second.lease.renewals) == (f"{leaf(second).serial_number:x}", 1)


def test_owner_who_narrows_a_record_narrows_the_next_certificate() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    narrow = replace(CLAIMS, addresses=CLAIMS.addresses[:1])
    store.records[CLAIMS.id] = replace(store.records[CLAIMS.id], claims=narrow)
    assert renew(store, first).lease.addresses == narrow.addresses


def test_pod_renews_for_longer_than_its_token_is_good() -> None:
    store = Memory(CLAIMS)
    latest, wall = join(store), WALL
    for _ in range(20):
        wall += 12 * HOUR
        latest = renew(store, latest, wall=wall)
    assert latest.lease.renewals == 20


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (-SECOND, None),
        (23 * HOUR, None),
        (24 * HOUR, None),
        (24 * HOUR + SECOND, Refusal.CERTIFICATE_ENDED),
        (25 * HOUR, Refusal.CERTIFICATE_ENDED),
    ],
)
def test_certificate_can_be_renewed_for_a_day_after_its_end(
    late: timedelta, expected: Refusal | None
) -> None:
    store = Memory(CLAIMS)
    first = join(store)
    wall = leaf(first).not_valid_after_utc + late
    if expected is None:
        assert renew(store, first, wall=wall).lease.renewals == 1
    else:
        assert reason(lambda: renew(store, first, wall=wall)) is expected


def test_ended_pods_lease_is_still_there_although_others_came_meanwhile() -> None:
    store = Memory(CLAIMS, OTHER)
    first, wall = join(store), WALL + DAY + 23 * HOUR
    ask(store, store.records[OTHER.id], body(), wall)
    assert renew(store, first, wall=wall).lease.renewals == 1


def test_certificate_that_has_not_begun_is_refused() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    assert reason(lambda: renew(store, first, wall=WALL - HOUR)) is Refusal.CERTIFICATE_EARLY


def test_lost_answer_can_be_asked_for_again_and_again() -> None:
    store, asked = Memory(CLAIMS), body()
    first = join(store)
    renew(store, first, asked)  # lost
    renew(store, first, body())  # lost, too; the pod was not told to ask for the same key
    third = renew(store, first, asked)
    assert renew(store, third).lease.renewals == 4


def test_request_that_arrives_after_its_repetition_was_answered_locks_nobody_out() -> None:
    store, asked = Memory(CLAIMS), body()
    first = join(store)
    answered = renew(store, first, asked)
    renew(store, first, asked)  # the pod gave this one up long ago
    assert renew(store, answered).lease.renewals == 2


def test_earlier_key_is_worth_nothing_once_its_successor_was_used() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    second = renew(store, first)
    third = renew(store, second)
    held = store.held
    assert reason(lambda: renew(store, first)) is Refusal.SUPERSEDED
    assert store.held == held
    assert renew(store, third).lease.renewals == 3


def test_earlier_key_is_worth_nothing_once_the_pod_has_joined_anew() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    join(store)
    assert reason(lambda: renew(store, first)) is Refusal.SUPERSEDED


def test_certificate_that_is_on_no_record_is_refused() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    store.put(Namespace())
    assert reason(lambda: renew(store, first)) is Refusal.SUPERSEDED


def test_lease_written_before_there_were_renewals_is_superseded() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    store.put(Namespace((replace(first.lease, key=""),)))
    assert reason(lambda: renew(store, first)) is Refusal.SUPERSEDED


def test_pod_whose_token_was_deleted_is_renewed_no_more() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    del store.records[CLAIMS.id]
    assert reason(lambda: renew(store, first)) is Refusal.WITHDRAWN


def test_record_that_now_names_another_pod_is_not_inherited() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    admin = replace(CLAIMS, service_account="admin")
    store.records[CLAIMS.id] = replace(store.records[CLAIMS.id], claims=admin)
    assert reason(lambda: renew(store, first)) is Refusal.SUPERSEDED


def test_address_that_another_pod_has_meanwhile_is_refused_until_that_ends() -> None:
    heir = make_claims("e" * 16, pod="web-9", addresses=CLAIMS.addresses[:1])
    store = Memory(CLAIMS, heir)
    first, taken = join(store), WALL + DAY + HOUR
    ask(store, store.records[heir.id], body(), taken, life=HOUR)
    assert reason(lambda: renew(store, first, wall=taken)) is Refusal.ADDRESS_HELD
    assert renew(store, first, wall=taken + HOUR + SECOND).lease.pod == "web-1"


def test_pod_with_another_pods_csr_gets_its_own_names_and_disturbs_nobody() -> None:
    # A CSR is public once sent: whoever sends it along gets a certificate for a key that he does not hold.
    store, foreign = Memory(CLAIMS, OTHER), body()
    mine = join(store)
    theirs = ask(store, store.records[OTHER.id], foreign, WALL)
    assert renew(store, mine, foreign).lease.addresses == CLAIMS.addresses
    again = renew(store, theirs)
    assert (again.lease.pod, again.lease.addresses) == ("web-2", OTHER.addresses)


def test_renewal_for_the_same_key_is_refused() -> None:
    store, asked = Memory(CLAIMS), body()
    first = join(store, asked)
    assert reason(lambda: renew(store, first, asked)) is Refusal.KEY_REUSED


def test_what_is_wrong_with_a_request_is_wrong_with_a_renewal() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    held = store.held
    assert reason(lambda: renew(store, first, b"{}")) is Refusal.MALFORMED
    none = encode(SignRequest("none"))
    assert reason(lambda: renew(store, first, none)) is Refusal.CSR_MALFORMED
    assert store.held == held


def test_renewed_certificate_that_is_not_on_record_does_not_leave() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    store.is_full = True
    with pytest.raises(StateError, match="No space"):
        renew(store, first)


def test_caller_without_a_certificate_is_refused() -> None:
    assert reason(lambda: identify(None, "shop.example", WALL)) is Refusal.NO_CERTIFICATE


def test_cas_own_certificates_renew_nothing() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    service = server_certificate(ISSUER, key, (ip_address("10.0.0.1"),), WALL, DAY)
    assert reason(lambda: judge(service)) is Refusal.NOT_A_POD
    assert reason(lambda: judge(ISSUER.root)) is Refusal.NOT_A_POD


BEGINS, ENDS = WALL - HOUR, WALL + HOUR


def test_good_pods_certificate_passes() -> None:
    # The control of the test below.
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert judge(Authority().certify(Leaf(begins=BEGINS, ends=ENDS), key)).pod == "web-1"


@pytest.mark.parametrize(
    "change",
    [
        {"trust_domain": "other.example"},
        {"uris": []},
        {"uris": ["spiffe://shop.example/tencrypt/ca"]},
        {"uris": ["spiffe://shop.example/ns/shop/sa/web"] * 2},
        {"dns": "web-1.other.pod"},
        {"dns": ".shop.pod"},
        {"addresses": ()},
        {"purposes": (ExtendedKeyUsageOID.CLIENT_AUTH,)},
        {"is_ca": True},
    ],
    ids=str,
)
def test_certificate_that_is_not_a_pods_is_refused(change: dict[str, object]) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    wrong = replace(Leaf(begins=BEGINS, ends=ENDS), **change)  # type: ignore[arg-type] # as parametrized
    assert reason(lambda: judge(Authority().certify(wrong, key))) is Refusal.NOT_A_POD


GOOD = der(join(Memory(CLAIMS)))


# What cryptography will once refuse by itself it warns of until then.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(0, len(GOOD)), st.binary(max_size=64))
def test_whatever_the_bytes_only_refused_escapes(kept: int, noise: bytes) -> None:
    for data in (GOOD[:kept] + noise, GOOD[:kept] + noise + GOOD[kept + len(noise) :]):
        with contextlib.suppress(Refused):
            identify(data, "shop.example", WALL)


def test_pod_whose_latest_certificate_is_withdrawn_does_not_renew_by_the_one_before() -> None:
    store = Memory(CLAIMS)
    first = join(store)
    second = renew(store, first)
    entry = Entry(Kind.CERTIFICATE, "", second.lease.serial, 0)
    change_revocations(store, lambda found: found.adding(entry))
    for shown in (first, second):
        assert reason(lambda one=shown: renew(store, one)) is Refusal.REVOKED  # type: ignore[misc]  # binds
    assert join(store).lease.renewals == 0  # by its token it is another pod to us
