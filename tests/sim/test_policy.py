"""Rules between whole nodes: the application hears of a refusal at once, whichever end refuses."""

import pytest
from sim.world import Node, World, udp_packet
from support.pki import Authority, Leaf

from policy.rules import parse_rules
from proxy.drops import Drop

A, B = "10.0.0.1", "10.0.0.2"
CLOSED = '[[rule]]\nto = "db"\nfrom = []\n'


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def two(authority: Authority) -> tuple[World, Node, Node]:
    world = World(1)
    a = world.join(authority.issue(Leaf(pod="a", addresses=(A,), service_account="web")))
    b = world.join(authority.issue(Leaf(pod="b", addresses=(B,), service_account="db")))
    a.send_packet(udp_packet(A, B, b"first"))
    world.run(1)
    assert b.received == [udp_packet(A, B, b"first")]
    return world, a, b


def close(node: Node, text: str = CLOSED, *, enforce: bool = True) -> None:
    own = node.credential.own.identity
    rules = parse_rules(text, "rules.toml", own.trust_domain, own.namespace)
    node.policy.replace(rules, enforce=enforce)


@pytest.mark.parametrize("refusing", ["sender", "receiver"])
def test_what_the_rules_refuse_is_told_to_the_application_and_does_not_arrive(
    authority: Authority, refusing: str
) -> None:
    world, a, b = two(authority)
    close(a if refusing == "sender" else b)
    b.received.clear()
    a.send_packet(udp_packet(A, B, b"second"))
    world.run(1)
    assert b.received == []
    heard = a.told if refusing == "sender" else a.received
    assert [(packet[20], packet[21]) for packet in heard] == [(3, 13)]
    assert a.drops[Drop.POLICY_OUT] == (refusing == "sender")
    assert b.drops[Drop.POLICY_IN] == (refusing == "receiver")


def test_in_audit_everything_arrives_and_is_counted(authority: Authority) -> None:
    world, a, b = two(authority)
    close(b, enforce=False)
    a.send_packet(udp_packet(A, B, b"second"))
    world.run(1)
    assert b.received[-1] == udp_packet(A, B, b"second")
    assert sum(b.policy.audited.values()) == 1


def test_packets_that_waited_for_a_session_are_judged_too(authority: Authority) -> None:
    world = World(2)
    a = world.join(authority.issue(Leaf(pod="a", addresses=(A,), service_account="web")))
    b = world.join(authority.issue(Leaf(pod="b", addresses=(B,), service_account="db")))
    close(a)
    a.send_packet(udp_packet(A, B, b"first"))
    world.run(1)
    assert b.received == []
    assert len(a.told) == a.drops[Drop.POLICY_OUT] == 1
