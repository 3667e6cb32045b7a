"""Header and question against dnspython, and what is no query."""

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dns import wire
from proxy.drops import Drop
from proxy.errors import Dropped

LABELS = st.lists(st.binary(min_size=1, max_size=63), min_size=0, max_size=6)


def query(name: str = "Web.Shop.svc.cluster.local", kind: str = "A", number: int = 7) -> bytes:
    made = dns.message.make_query(name, kind, use_edns=True, payload=1232)
    made.id = number
    return made.to_wire()


@given(LABELS, st.integers(0, 65535), st.integers(1, 65535))
def test_a_question_is_read_as_dnspython_reads_it(
    labels: list[bytes], number: int, kind: int
) -> None:
    name = dns.name.Name([*labels, b""]) if sum(map(len, labels)) < 200 else dns.name.root
    made = dns.message.Message(number)
    made.question = [dns.rrset.RRset(name, dns.rdataclass.IN, dns.rdatatype.RdataType.make(kind))]
    parsed = wire.parse_query(made.to_wire())
    assert (parsed.id, parsed.type, parsed.klass) == (number, kind, 1)
    assert len(parsed.name.replace("\\\\", "x").replace("\\.", "x").split(".")) == max(
        1, len(name.labels) - 1
    )


def test_a_name_is_lower_case_and_the_question_as_it_was_sent() -> None:
    parsed = wire.parse_query(query())
    assert parsed.name == "web.shop.svc.cluster.local"
    assert b"Web\x04Shop" in parsed.question


@pytest.mark.parametrize(
    "data",
    [
        b"",
        query()[:11],
        query()[:20],
        query()[:40],
        wire.HEADER.pack(1, 0x8100, 1, 0, 0, 0) + b"\0\0\1\0\1",  # an answer
        wire.HEADER.pack(1, 0x2900, 1, 0, 0, 0) + b"\0\0\1\0\1",  # UPDATE
        wire.HEADER.pack(1, 0x0100, 2, 0, 0, 0) + b"\0\0\1\0\1" * 2,
        wire.HEADER.pack(1, 0x0100, 0, 0, 0, 0),
        wire.HEADER.pack(1, 0x0100, 1, 1, 0, 0) + b"\0\0\1\0\1",
        wire.HEADER.pack(1, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",  # points to itself
        wire.HEADER.pack(1, 0x0100, 1, 0, 0, 0) + b"\x3fx" * 200,
        wire.HEADER.pack(1, 0x0100, 1, 0, 0, 0) + (b"\x01x" * 128) + b"\0\0\1\0\1",
    ],
)
def test_what_is_no_query_is_refused(data: bytes) -> None:
    with pytest.raises(Dropped) as caught:
        wire.parse_query(data)
    assert caught.value.reason is Drop.DNS_MALFORMED


def test_an_answer_counts_by_id_question_and_letters() -> None:
    asked = wire.parse_query(query())
    answer = dns.message.make_response(dns.message.from_wire(query())).to_wire()
    assert wire.matches(answer, 7, asked.question)
    assert not wire.matches(answer, 8, asked.question)
    assert not wire.matches(query(), 7, asked.question)
    for other in (query("web.shop.svc.cluster.local"), query(kind="AAAA"), query("x.example")):
        forged = dns.message.make_response(dns.message.from_wire(other)).to_wire()
        assert not wire.matches(forged, 7, asked.question)
    assert not wire.matches(answer[:13], 7, asked.question)


def test_a_refusal_is_a_server_failure_that_programs_understand() -> None:
    refusal = dns.message.from_wire(wire.refusal(wire.parse_query(query()), query()))
    asked = dns.message.from_wire(query())
    assert refusal.rcode() == dns.rcode.SERVFAIL
    assert asked.is_response(refusal)
    assert refusal.flags & dns.flags.RA


@pytest.mark.parametrize(
    "address", [b"\x0a\x00\x00\x02", bytes.fromhex("fd00") + bytes(13) + b"\2"]
)
def test_a_reverse_name_is_dnspythons(address: bytes) -> None:
    wanted = dns.reversename.from_address(str(ip_address(address)))
    made = wire.make_query(3, wire.reverse_name(address), wire.PTR)
    [question] = dns.message.from_wire(made).question
    assert (question.name, question.rdtype) == (wanted, dns.rdatatype.PTR)


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, "é.example", ".".join(["abcdefgh"] * 30)])
def test_we_ask_for_no_name_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=r"domain name|ascii"):
        wire.make_query(1, name, wire.A)
