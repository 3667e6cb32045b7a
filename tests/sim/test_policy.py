"""Rules between whole nodes: the application hears of a refusal at once, whichever end refuses."""

from ipaddress import ip_address
from struct import pack

import pytest
from sim.world import Node, World, udp_packet
from support.pki import Authority, Leaf
from support.segmentation import TCP, UDP, Connection

from policy.rules import parse_rules
from proxy.drops import Drop

A, B = "10.0.0.1", "10.0.0.2"
PACKED_A, PACKED_B = ip_address(A).packed, ip_address(B).packed
SYN, RST, PSH, ACK = 2, 4, 8, 16
CLOSED = '[[rule]]\nto = "db"\nfrom = []\n'
ALL_CLOSED = CLOSED + '[[rule]]\nto = "web"\nfrom = []\n'
# Web may use db's port 5432, and nobody may open anything else.
ONE_WAY = (
    ALL_CLOSED
    + """\
[[rule]]
to = "db"
from = ["web"]
protocol = "tcp"
ports = [5432]
[[rule]]
to = "db"
from = ["web"]
protocol = "udp"
ports = [5432]
"""
)


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


def flow(protocol: int, *, back: bool = False, port: int = 5432) -> Connection:
    """Return web's flow to a port of db, or the way back."""
    if back:
        return Connection(PACKED_B, PACKED_A, protocol, (port, 40000))
    return Connection(PACKED_A, PACKED_B, protocol, (40000, port))


def talk(world: World, sender: Node, receiver: Node, packet: bytes) -> bool:
    """Say whether a packet arrives."""
    sender.told.clear()
    sender.received.clear()
    receiver.received.clear()
    sender.send_packet(packet)
    world.run(0.1)
    return receiver.received == [packet]


def resets(packets: list[bytes]) -> int:
    return sum(packet[9] == TCP and bool(packet[33] & RST) for packet in packets)


def test_what_the_rules_allow_is_opened_and_answered_and_nothing_else_is(
    authority: Authority,
) -> None:
    world, a, b = two(authority)
    close(a, ONE_WAY)
    close(b, ONE_WAY)
    for protocol in (TCP, UDP):
        there, back = flow(protocol), flow(protocol, back=True)
        assert talk(world, a, b, there.packet(b"", flags=SYN))
        assert talk(world, b, a, back.packet(b"", flags=SYN | ACK))
        assert talk(world, a, b, there.packet(b"select", flags=ACK | PSH))
        assert talk(world, b, a, back.packet(b"4711", flags=ACK | PSH))
        assert not talk(world, a, b, flow(protocol, port=22).packet(b"", flags=SYN))
        assert not talk(
            world, b, a, Connection(PACKED_B, PACKED_A, protocol).packet(b"", flags=SYN)
        )
    assert a.drops[Drop.POLICY_OUT] == b.drops[Drop.POLICY_OUT] == 2
    assert not a.drops[Drop.POLICY_IN]
    assert not b.drops[Drop.POLICY_IN]


@pytest.mark.parametrize("refusing", ["opener", "opened"])
def test_rules_that_change_end_what_is_open_and_both_programs_hear_it(
    authority: Authority, refusing: str
) -> None:
    world, a, b = two(authority)
    node = a if refusing == "opener" else b
    close(node, ONE_WAY)
    there, back = flow(TCP), flow(TCP, back=True)
    assert talk(world, a, b, there.packet(b"", flags=SYN))
    assert talk(world, b, a, back.packet(b"", flags=SYN | ACK))
    close(node, ALL_CLOSED)
    assert not talk(world, a, b, there.packet(b"select"))
    assert resets(a.told + a.received) == 1
    assert not talk(world, b, a, back.packet(b"4711"))
    assert resets(b.told + b.received) == 1


def test_a_connection_lives_on_that_its_other_end_could_have_opened(authority: Authority) -> None:
    world, a, b = two(authority)
    there, back = flow(TCP), flow(TCP, back=True)
    assert talk(world, a, b, there.packet(b"", flags=SYN))
    # Nobody may open anything to db, but db may call web, and who called whom is not remembered.
    close(b)
    assert talk(world, a, b, there.packet(b"select"))
    assert talk(world, b, a, back.packet(b"4711"))
    assert not talk(world, a, b, there.packet(b"", flags=SYN))


def test_rules_that_change_end_answers_over_udp(authority: Authority) -> None:
    world, a, b = two(authority)
    close(b, ONE_WAY)
    assert talk(world, a, b, flow(UDP).packet(b"query"))
    assert talk(world, b, a, flow(UDP, back=True).packet(b"one"))
    close(b, ALL_CLOSED)
    assert not talk(world, b, a, flow(UDP, back=True).packet(b"two"))
    assert b.drops[Drop.POLICY_OUT] == 1


def test_a_connection_outlives_a_restart_of_either_proxy(authority: Authority) -> None:
    world, a, b = two(authority)
    close(a, ONE_WAY)
    close(b, ONE_WAY)
    there, back = flow(TCP), flow(TCP, back=True)
    assert talk(world, a, b, there.packet(b"", flags=SYN))
    for node in (a, b):
        node.start()
        close(node, ONE_WAY)
        # The first packet calls the peer anew.
        b.send_packet(back.packet(b"4711"))
        world.run(1)
        assert talk(world, b, a, back.packet(b"4712"))
        assert talk(world, a, b, there.packet(b"select"))
        assert not node.drops[Drop.POLICY_IN] + node.drops[Drop.POLICY_OUT]


@pytest.mark.parametrize("refusing", ["sender", "receiver"])
def test_a_super_packet_is_refused_once_and_told_once(authority: Authority, refusing: str) -> None:
    world, a, b = two(authority)
    node = a if refusing == "sender" else b
    close(node, ALL_CLOSED)
    b.received.clear()
    a.send_frame(pack("=BBHHHH", 1, 1, 0, 1000, 40, 16) + flow(TCP).packet(bytes(20_000)))
    world.run(1)
    assert b.received == []
    assert resets(a.told + a.received) == len(a.told + a.received) == 1
    assert node.drops[Drop.POLICY_OUT] + node.drops[Drop.POLICY_IN] == 1


def test_a_refusal_is_not_refused_by_the_rules_of_who_hears_it(authority: Authority) -> None:
    world, a, b = two(authority)
    close(a, '[[rule]]\nto = "web"\nfrom = []\n')
    close(b)
    for protocol in (TCP, UDP):
        assert not talk(world, a, b, flow(protocol).packet(b"", flags=SYN))
        assert len(a.received) == 1
    assert not a.drops[Drop.POLICY_IN]
