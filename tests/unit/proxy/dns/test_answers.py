"""Whose address an answer gives: by the owner of the record, along the chain of aliases."""

import tracemalloc
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rrset
import pytest

from proxy.dns.answers import read_answer
from proxy.dns.zone import Fact, Owner, Zone
from proxy.drops import Drop
from proxy.errors import Dropped

ZONE = Zone("shop", "cluster.local")
WEB = "web.shop.svc.cluster.local"


def answer(name: str, kind: str, *records: tuple[str, str, str]) -> bytes:
    """Make an answer of records: owner, type, content."""
    made = dns.message.make_response(dns.message.make_query(name, kind))
    for owner, its_kind, content in records:
        made.answer.append(dns.rrset.from_text(owner + ".", 30, "IN", its_kind, content))
    return made.to_wire()


def facts(data: bytes) -> list[Fact]:
    return list(ZONE.facts(read_answer(data)))


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        (WEB, Owner.PROJECT),
        ("shop.svc.cluster.local", Owner.PROJECT),
        ("10-0-0-2.shop.pod.cluster.local", Owner.PROJECT),
        ("a.b.web.shop.svc.cluster.local", Owner.PROJECT),
        ("web.workshop.svc.cluster.local", Owner.OTHER),
        ("xshop.svc.cluster.local", Owner.OTHER),
        ("kubernetes.default.svc.cluster.local", Owner.OTHER),
        ("cluster.local", Owner.OTHER),
        ("web.shop.svc.cluster.local.evil.example", Owner.OUTSIDE),
        ("shop.svc.cluster.localhost", Owner.OUTSIDE),
        ("web.shop", Owner.OUTSIDE),
        ("", Owner.OUTSIDE),
        (r"x\.shop.svc.cluster.local", Owner.OUTSIDE),  # one label "x.shop"
        (r"x\.cluster.local", Owner.OUTSIDE),
    ],
)
def test_whose_a_name_is(name: str, owner: Owner) -> None:
    assert ZONE.owner(name) is owner


def test_addresses_of_both_families_are_the_names_own() -> None:
    data = answer(WEB, "A", (WEB, "A", "10.0.0.2"), (WEB, "A", "10.0.0.3"))
    assert {fact.address for fact in facts(data)} == {
        ip_address("10.0.0.2").packed,
        ip_address("10.0.0.3").packed,
    }
    [fact] = facts(answer("Web.Shop.svc.cluster.local", "AAAA", (WEB, "AAAA", "fd00::2")))
    assert fact == Fact(ip_address("fd00::2").packed, Owner.PROJECT, WEB, 30)


def test_an_alias_leads_no_name_of_the_project_into_the_clear() -> None:
    data = answer(WEB, "A", (WEB, "CNAME", "db.example."), ("db.example", "A", "192.0.2.1"))
    assert [(fact.owner, fact.name) for fact in facts(data)] == [(Owner.PROJECT, WEB)]


def test_an_alias_of_the_world_to_the_project_is_the_projects() -> None:
    data = answer("shop.example", "A", ("shop.example", "CNAME", f"{WEB}."), (WEB, "A", "10.0.0.2"))
    assert [fact.owner for fact in facts(data)] == [Owner.PROJECT]


def test_records_beside_the_question_do_not_count() -> None:
    data = answer("a.example", "A", ("a.example", "A", "192.0.2.1"), (WEB, "A", "192.0.2.2"))
    assert [fact.address for fact in facts(data)] == [ip_address("192.0.2.1").packed]


def test_a_dot_inside_a_label_makes_no_name_of_the_cluster() -> None:
    [fact] = facts(answer(r"x\.cluster.local", "A", (r"x\.cluster.local", "A", "10.0.0.2")))
    assert fact.owner is Owner.OUTSIDE


def many(count: int) -> bytes:
    return answer(WEB, "A", *((WEB, "A", str(ip_address(0x0A000000 + n))) for n in range(count)))


def test_more_records_than_are_worth_reading_are_refused_unread() -> None:
    assert len(read_answer(many(512)).addresses) == 512
    with pytest.raises(Dropped) as caught:
        read_answer(many(513))
    assert caught.value.reason is Drop.DNS_MALFORMED
    # Whatever section they are in, and whether or not they are there.
    lying = bytearray(many(1))
    lying[10:12] = (512).to_bytes(2, "big")
    with pytest.raises(Dropped, match="too many"):
        read_answer(bytes(lying))


def test_large_answers_do_not_stay_in_memory() -> None:
    begin = many(1)
    tracemalloc.start()
    try:
        for number in range(600):
            read_answer(begin + number.to_bytes(2, "big") + bytes(60_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2_000_000


def test_a_loop_of_aliases_ends() -> None:
    data = answer(
        "a.example", "A", ("a.example", "CNAME", "b.example."), ("b.example", "CNAME", "a.example.")
    )
    read = read_answer(data)
    assert (read.addresses, read.names) == ((), ())
    assert set(read.chain) == {"a.example", "b.example"}


def test_what_an_address_is_called() -> None:
    reverse = "2.0.0.10.in-addr.arpa"
    data = answer(reverse, "PTR", (reverse, "PTR", "x.example."), (reverse, "PTR", f"{WEB}."))
    assert ZONE.name_of(read_answer(data)) == (WEB, 30)
    assert ZONE.name_of(read_answer(answer(reverse, "PTR"))) is None


@pytest.mark.parametrize("cut", [0, 5, 12, 30, -1])
def test_an_answer_that_nobody_can_read_is_one_exception(cut: int) -> None:
    data = answer(WEB, "A", (WEB, "A", "10.0.0.2"))
    with pytest.raises(Dropped) as caught:
        read_answer(data[:cut])
    assert caught.value.reason is Drop.DNS_MALFORMED
