"""Two servers and one record: what the other wrote meanwhile counts, and nothing is granted twice."""

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from support.authority import DAY, make_claims, make_csr_pem
from support.memory_ca import ISSUER, SECRET, WALL, Memory, ask, join, office
from typing_extensions import override

from ca.certificates import KeySigner
from ca.documents import StateAwayError, StateError
from ca.grant import ATTEMPTS, Asked, grant
from ca.issue import Issued, judge
from ca.messages import SignRequest, encode, encode_token
from ca.refusal import Refusal, Refused
from ca.signer import SignerError, Wanted

ONE = make_claims(expires=int((WALL + 7 * DAY).timestamp()), addresses=(ip_address("10.0.0.1"),))
TWO = replace(ONE, id="f" * 16, pod="web-2", addresses=(ip_address("10.0.0.2"),))
THIEF = replace(TWO, addresses=ONE.addresses)


def body() -> bytes:
    return encode(SignRequest(make_csr_pem()))


def take(documents: Memory, token: str) -> Issued:
    """Ask by a token at another server."""
    return join(documents, token, body(), WALL)


class Counting(KeySigner):
    """Counts what it signs."""

    def __init__(self) -> None:
        super().__init__(ISSUER)
        self.signed = 0

    @override
    def sign(
        self, root: x509.Certificate, wanted: Wanted, wall: object, life: object
    ) -> tuple[x509.Certificate, ...]:
        self.signed += 1
        return super().sign(root, wanted, WALL, DAY)


def test_grant_of_another_server_between_read_and_write_is_seen() -> None:
    documents = Memory(ONE, TWO)
    documents.meanwhile.append(lambda: take(documents, encode_token(TWO, SECRET)))
    signer = Counting()
    mine = ask(documents, documents.records[ONE.id], body(), WALL, signer=signer)
    assert {lease.pod for lease in documents.held} == {"web-1", "web-2"}
    assert documents.held[-1] == mine.lease
    assert signer.signed == 1  # what was signed for the state before is as good


def test_address_that_another_server_granted_meanwhile_is_refused() -> None:
    documents = Memory(ONE, THIEF)
    documents.meanwhile.append(lambda: take(documents, encode_token(THIEF, SECRET)))
    with pytest.raises(Refused) as refused:
        take(documents, encode_token(ONE, SECRET))
    assert refused.value.reason is Refusal.ADDRESS_HELD
    assert [lease.token_id for lease in documents.held] == [THIEF.id]


def test_token_that_another_server_spent_meanwhile_is_refused() -> None:
    documents = Memory(ONE)
    documents.records[ONE.id] = replace(documents.records[ONE.id], uses=1)
    token = encode_token(ONE, SECRET)
    documents.meanwhile.append(lambda: take(documents, token))
    with pytest.raises(Refused) as refused:
        take(documents, token)
    assert refused.value.reason is Refusal.SPENT_TOKEN


def test_record_that_never_stands_still_ends_in_an_error_and_not_in_a_grant() -> None:
    documents = Memory(ONE)
    touch = [lambda: documents.put(documents.record())] * ATTEMPTS
    documents.meanwhile.extend(touch)
    with pytest.raises(StateAwayError, match=f"others wrote it {ATTEMPTS} times in a row"):
        take(documents, encode_token(ONE, SECRET))
    assert documents.held == ()


def test_token_for_two_uses_is_spent_by_two_and_an_answer_lost_costs_none() -> None:
    documents = Memory(ONE)
    documents.records[ONE.id] = replace(documents.records[ONE.id], uses=2)
    token, asked = encode_token(ONE, SECRET), body()
    for request in (asked, asked, body()):
        join(documents, token, request, WALL)
    with pytest.raises(Refused) as refused:
        join(documents, token, body(), WALL)
    assert refused.value.reason is Refusal.SPENT_TOKEN
    assert documents.record().joins == {ONE.id: (2, ONE.expires)}


def test_uses_of_a_token_are_forgotten_with_its_end() -> None:
    documents = Memory(ONE, TWO)
    short = replace(TWO, expires=int(WALL.timestamp()) + 60)
    documents.records[TWO.id] = replace(documents.records[TWO.id], claims=short, uses=1)
    documents.records[ONE.id] = replace(documents.records[ONE.id], uses=9)
    ask(documents, documents.records[TWO.id], body(), WALL)
    ask(documents, documents.records[ONE.id], body(), WALL + timedelta(seconds=61))
    assert list(documents.record().joins) == [ONE.id]


class Refusing(KeySigner):
    """Signs for one pod alone."""

    @override
    def sign(
        self, root: x509.Certificate, wanted: Wanted, wall: object, life: object
    ) -> tuple[x509.Certificate, ...]:
        if wanted.dns != ("web-1.shop.pod",):
            raise SignerError("uri_sans: not allowed by this role")
        return super().sign(root, wanted, WALL, DAY)


def test_one_pods_failure_does_not_touch_the_others_of_its_batch() -> None:
    documents = Memory(ONE, TWO)
    asked = [Asked(judge(body()), documents.records[one.id]) for one in (TWO, ONE)]
    failed, issued = grant(asked, "shop", office(documents, Refusing(ISSUER)), WALL)
    assert isinstance(failed, SignerError)
    assert isinstance(issued, Issued)
    assert documents.held == (issued.lease,)


def test_nothing_is_written_where_nothing_is_granted() -> None:
    documents = Memory(ONE, THIEF)
    take(documents, encode_token(ONE, SECRET))
    before = documents.state("namespaces/shop")
    with pytest.raises(Refused):
        take(documents, encode_token(THIEF, SECRET))
    assert documents.state("namespaces/shop") == before


def test_damaged_record_is_an_error_and_grants_nothing() -> None:
    documents = Memory(ONE)
    documents.write("namespaces/shop", {"leases": [7], "joins": {}}, 0)
    with pytest.raises(StateError, match="namespaces/shop: damaged"):
        take(documents, encode_token(ONE, SECRET))
