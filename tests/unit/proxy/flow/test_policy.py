"""What rules say to single packets: openings, answers, fragments, errors."""

import struct
from ipaddress import ip_address

import pytest

from policy.identity import PodIdentity
from policy.rules import parse_rules
from proxy.flow import policy as flow_policy
from proxy.flow.policy import Policy

WEB, DB = (PodIdentity("shop.example", "shop", name) for name in ("web", "db"))
A, B = "10.0.0.1", "10.0.0.2"
A6, B6 = "fd00::1", "fd00::2"
SYN, ACK, RST, FIN = 2, 16, 4, 1
# Nobody opens anything to db but web its port 5432 by TCP and 53 by UDP; db itself may open all.
TEXT = """\
[[rule]]
to = "db"
from = []
[[rule]]
to = "db"
from = ["web"]
protocol = "tcp"
ports = [5432]
[[rule]]
to = "db"
from = ["web"]
protocol = "udp"
ports = [53]
"""


def policy(own: PodIdentity, text: str = TEXT, *, enforce: bool = True) -> Policy:
    return Policy(own, parse_rules(text, "rules.toml", "shop.example", "shop"), enforce=enforce)


def ip(  # noqa: PLR0917 - of a header
    source: str, destination: str, protocol: int, body: bytes, fragment: int = 0, number: int = 7
) -> memoryview:
    a, b = ip_address(source).packed, ip_address(destination).packed
    if len(a) == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), number, fragment, 64, protocol, 0)
        return memoryview(bytearray(head + a + b + body))
    if fragment:
        body = struct.pack(">BBHI", protocol, 0, fragment, number) + body
        protocol = 44
    head = struct.pack(">IHBB", 6 << 28, len(body), protocol, 64)
    return memoryview(bytearray(head + a + b + body))


def tcp(source: str, destination: str, sport: int, dport: int, flags: int) -> memoryview:
    body = struct.pack(">HHIIBBHHH", sport, dport, 100, 200, 5 << 4, flags, 0, 0, 0)
    return ip(source, destination, 6, body)


def udp(source: str, destination: str, sport: int, dport: int) -> memoryview:
    return ip(source, destination, 17, struct.pack(">HHHH", sport, dport, 8, 0))


def icmp(source: str, destination: str, kind: int, identifier: int = 9) -> memoryview:
    protocol = 58 if ":" in source else 1
    return ip(source, destination, protocol, struct.pack(">BBHHH", kind, 0, 0, identifier, 1))


@pytest.mark.parametrize(("a", "b"), [(A, B), (A6, B6)])
def test_a_connection_is_opened_where_the_rules_say_and_answers_pass(a: str, b: str) -> None:
    web, db = policy(WEB), policy(DB)
    for packet in (tcp(a, b, 4000, 5432, SYN), tcp(a, b, 4000, 5432, ACK)):
        assert web.outgoing(DB, packet, 0)
        assert db.incoming(WEB, packet, 0)
    for packet in (tcp(b, a, 5432, 4000, SYN | ACK), tcp(b, a, 5432, 4000, ACK | FIN)):
        assert db.outgoing(WEB, packet, 0)
        assert web.incoming(DB, packet, 0)
    refused = tcp(a, b, 4000, 9090, SYN)
    assert not web.outgoing(DB, refused, 0)
    assert not db.incoming(WEB, refused, 0)


def test_a_segment_of_no_allowed_connection_is_refused_though_it_opens_none() -> None:
    db = policy(DB, TEXT + '[[rule]]\nto = "web"\nfrom = []\n')
    assert not db.incoming(WEB, tcp(A, B, 4000, 9090, ACK), 0)
    # From the port that would be an answer's: db may open nothing to web here.
    assert not db.incoming(WEB, tcp(A, B, 80, 9090, ACK), 0)
    assert db.incoming(WEB, tcp(A, B, 4000, 9090, RST), 0)


def test_rules_that_change_cut_at_once() -> None:
    web = policy(WEB)
    assert web.outgoing(DB, tcp(A, B, 4000, 5432, ACK), 0)
    everything = '[[rule]]\nto = "{}"\nfrom = []\n'
    rules = parse_rules(
        everything.format("db") + everything.format("web"), "r", "shop.example", "shop"
    )
    web.replace(rules, enforce=True)
    assert not web.outgoing(DB, tcp(A, B, 4000, 5432, ACK), 0)
    assert not web.idle


def test_answers_over_udp_pass_for_a_while_and_nothing_else_does() -> None:
    db = policy(DB, TEXT + '[[rule]]\nto = "web"\nfrom = []\n')
    assert not db.outgoing(WEB, udp(B, A, 53, 4000), 0)
    assert db.incoming(WEB, udp(A, B, 4000, 53), 0)
    assert db.outgoing(WEB, udp(B, A, 53, 4000), 1)
    assert not db.outgoing(WEB, udp(B, A, 53, 4001), 1)
    assert not db.outgoing(WEB, udp(B, A, 54, 4000), 1)
    assert not db.outgoing(WEB, udp(B, A, 53, 4000), flow_policy.UDP_IDLE + 1)


ALL_CLOSED = '[[rule]]\nto = "db"\nfrom = []\n[[rule]]\nto = "web"\nfrom = []\n'


def test_answers_that_keep_coming_pass_though_the_opener_says_no_more() -> None:
    db = policy(DB, TEXT + '[[rule]]\nto = "web"\nfrom = []\n')
    assert db.incoming(WEB, udp(A, B, 4000, 53), 0)
    for now in range(100, 1000, 100):
        assert db.outgoing(WEB, udp(B, A, 53, 4000), now)
    assert not db.outgoing(WEB, udp(B, A, 53, 4000), 900 + flow_policy.UDP_IDLE)


def test_rules_that_change_cut_answers_too() -> None:
    db = policy(DB, TEXT + '[[rule]]\nto = "web"\nfrom = []\n')
    assert db.incoming(WEB, udp(A, B, 4000, 53), 0)
    db.replace(parse_rules(ALL_CLOSED, "r", "shop.example", "shop"), enforce=True)
    assert not db.outgoing(WEB, udp(B, A, 53, 4000), 1)


def test_an_answer_by_another_pod_that_has_the_address_now_is_judged_by_its_own_name() -> None:
    batch = PodIdentity("shop.example", "shop", "batch")
    web = policy(WEB, '[[rule]]\nto = "web"\nfrom = []\n[[rule]]\nto = "batch"\nfrom = []\n')
    assert web.outgoing(DB, udp(A, B, 4000, 53), 0)
    assert web.incoming(DB, udp(B, A, 53, 4000), 1)
    assert not web.incoming(batch, udp(B, A, 53, 4000), 1)


@pytest.mark.parametrize(("a", "b", "request_", "reply"), [(A, B, 8, 0), (A6, B6, 128, 129)])
def test_an_echo_reply_passes_where_its_request_did(
    a: str, b: str, request_: int, reply: int
) -> None:
    closed = policy(DB, '[[rule]]\nto = "db"\nfrom = []\n')
    assert not closed.incoming(WEB, icmp(a, b, request_), 0)
    assert not closed.incoming(WEB, icmp(a, b, reply), 0)
    assert closed.outgoing(WEB, icmp(b, a, request_), 0)
    assert closed.incoming(WEB, icmp(a, b, reply), 1)
    assert not closed.incoming(WEB, icmp(a, b, reply, identifier=10), 1)


@pytest.mark.parametrize(("a", "b", "kind"), [(A, B, 3), (A, B, 11), (A6, B6, 1), (A6, B6, 2)])
def test_icmp_errors_pass(a: str, b: str, kind: int) -> None:
    assert policy(DB, '[[rule]]\nto = "db"\nfrom = []\n').incoming(WEB, icmp(a, b, kind), 0)


@pytest.mark.parametrize(("a", "b"), [(A, B), (A6, B6)])
def test_later_fragments_follow_the_first(a: str, b: str) -> None:
    db = policy(DB)
    more, later = (0x2000, 0x0003) if a == A else (0x0001, 0x0018)
    open_ = struct.pack(">HHHH", 4000, 53, 60, 0)
    closed = struct.pack(">HHHH", 4000, 54, 60, 0)
    assert not db.incoming(WEB, ip(a, b, 17, bytes(24), later, number=1), 0)
    assert db.incoming(WEB, ip(a, b, 17, open_, more, number=1), 0)
    assert db.incoming(WEB, ip(a, b, 17, bytes(24), later, number=1), 1)
    assert not db.incoming(WEB, ip(a, b, 17, bytes(24), later, number=1), 31)
    assert not db.incoming(WEB, ip(a, b, 17, closed, more, number=2), 0)
    assert not db.incoming(WEB, ip(a, b, 17, bytes(24), later, number=2), 0)


@pytest.mark.parametrize("size", range(14))
def test_a_segment_too_short_for_its_flags_is_refused(size: int) -> None:
    segment = tcp(A, B, 4000, 5432, SYN)
    short = ip(A, B, 6, bytes(segment[20 : 20 + size]))
    assert not policy(DB).incoming(WEB, short, 0)


def test_audit_counts_what_enforcing_would_refuse_and_lets_it_pass() -> None:
    db = policy(DB, enforce=False)
    for _ in range(3):
        assert db.incoming(WEB, tcp(A, B, 4000, 9090, SYN), 0)
    assert db.incoming(WEB, tcp(A, B, 4000, 5432, SYN), 0)
    assert db.audited == {("in", WEB.uri, 6, 9090): 3}


def test_audit_counts_openings_and_not_the_answers_to_them() -> None:
    db = policy(DB, TEXT + '[[rule]]\nto = "web"\nfrom = []\n', enforce=False)
    for port in (4000, 4001):
        assert db.incoming(WEB, tcp(A, B, port, 9090, SYN), 0)
        assert db.outgoing(WEB, tcp(B, A, 9090, port, SYN | ACK), 0)
        assert db.incoming(WEB, udp(A, B, port, 9091), 0)
        assert db.outgoing(WEB, udp(B, A, 9091, port), 0)
    assert db.audited == {("in", WEB.uri, 6, 9090): 2, ("in", WEB.uri, 17, 9091): 2}
    # What db opens itself is counted, whatever was counted before.
    assert db.outgoing(WEB, tcp(B, A, 9090, 80, SYN), 0)
    assert db.audited["out", WEB.uri, 6, 80] == 1


@pytest.mark.parametrize(("a", "b", "later"), [(A, B, 0x0003), (A6, B6, 0x0018)])
def test_in_audit_a_fragment_passes_that_overtook_its_first(a: str, b: str, later: int) -> None:
    assert policy(DB, enforce=False).incoming(WEB, ip(a, b, 17, bytes(24), later), 0)
    assert not policy(DB).incoming(WEB, ip(a, b, 17, bytes(24), later), 0)


def test_what_was_opened_in_audit_is_no_way_in_once_rules_are_enforced() -> None:
    db = policy(DB, ALL_CLOSED, enforce=False)
    assert db.incoming(WEB, udp(A, B, 4000, 9090), 0)
    db.replace(parse_rules(ALL_CLOSED, "r", "shop.example", "shop"), enforce=True)
    assert not db.incoming(WEB, udp(A, B, 4000, 9090), 1)
    assert not db.outgoing(WEB, udp(B, A, 9090, 4000), 1)


def test_a_full_table_forgets_the_flow_that_was_silent_for_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow_policy, "MOST_FLOWS", 3)
    db = policy(DB, TEXT + '[[rule]]\nto = "web"\nfrom = []\n')
    for port in (4000, 4001, 4002, 4000, 4003):
        assert db.incoming(WEB, udp(A, B, port, 53), 0)
    answered = [db.outgoing(WEB, udp(B, A, 53, port), 1) for port in range(4000, 4004)]
    assert answered == [True, False, True, True]


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_policy, "MOST_FLOWS", 4)
    monkeypatch.setattr(flow_policy, "MOST_AUDITED", 4)
    db = policy(DB, enforce=False)
    for port in range(1, 20):
        db.incoming(WEB, udp(A, B, port, 53), 0)
        db.incoming(WEB, udp(A, B, port, 54 + port), 0)
    assert len(db.audited) == 4
    assert db.incoming(WEB, udp(A, B, 19, 53), 0)
