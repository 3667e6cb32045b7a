"""Services between whole nodes, endpoints known: programs talk to the virtual address, the wire to pods."""

from dataclasses import replace
from ipaddress import ip_address
from struct import pack
from typing import Any

import pytest
from sim.nodes import A6, ASKED, B6, C6, VIP, VIP6, A, B, C, way
from sim.world import MTU, Node, World
from support.endpoints import endpoint, read, served
from support.naive import Way, unfinished
from support.pki import Authority, Leaf

from policy.rules import parse_rules
from proxy.drops import Drop
from proxy.packet.virtio import VNET_HEADER

SYN, RST, ACK = 2, 4, 16
TCPV4 = 1


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def three(authority: Authority, *items: Any) -> tuple[World, Node, dict[str, Node]]:
    """Return a client and two pods that may serve."""
    world = World(1)
    nodes = [
        world.join(authority.issue(Leaf(pod=name, addresses=addresses, service_account=name)))
        for name, addresses in (("a", (A, A6)), ("b", (B, B6)), ("c", (C, C6)))
    ]
    nodes[0].translation.replace(read(*items))
    return world, nodes[0], {B: nodes[1], C: nodes[2]}


def answered(world: World, a: Node, pods: dict[str, Node], asked: Way, kind: Any = Way.tcp) -> str:
    """Let a packet go to port 80 of a Service, and its answer come back; return the pod that had it."""
    for node in (a, *pods.values()):
        node.received.clear()
    a.send_packet(kind(asked, b"question"))
    world.run(1)
    [pod] = [one for one, node in pods.items() if node.received]
    own = pod if len(asked.source) == 4 else {B: B6, C: C6}[pod]
    there = replace(asked, destination=ip_address(own).packed, dport=8080)
    assert pods[pod].received == [kind(there, b"question")]
    pods[pod].send_packet(kind(there.turned(), b"answer"))
    world.run(1)
    assert a.received == [kind(asked.turned(), b"answer")]
    return pod


@pytest.mark.parametrize("kind", [Way.tcp, Way.udp, Way.sctp])
@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
def test_question_reaches_a_pod_at_its_port_and_the_answer_comes_from_the_service(
    authority: Authority, kind: Any, *, six: bool
) -> None:
    asked = way(A6, 1000, VIP6, 80) if six else ASKED
    items = served(VIP6, 80, [B6, C6], 8080) if six else served(VIP, 80, [B, C], 8080)
    world, a, pods = three(authority, *items)
    chosen = {answered(world, a, pods, replace(asked, sport=port), kind) for port in range(1, 20)}
    assert chosen == {B, C}
    assert not a.drops


def test_pod_that_ends_keeps_its_flows_and_new_ones_go_to_the_other(authority: Authority) -> None:
    world, a, pods = three(authority, *served(VIP, 80, [B], 8080))
    assert answered(world, a, pods, ASKED) == B
    ending = endpoint(B, ready=False, serving=True, terminating=True)
    a.translation.replace(read(*served(VIP, 80, [ending, C], 8080)))
    assert answered(world, a, pods, ASKED) == B
    assert answered(world, a, pods, replace(ASKED, sport=1001)) == C


def test_pod_hears_of_a_closed_port_as_of_the_service(authority: Authority) -> None:
    world, a, pods = three(authority, *served(VIP, 53, [B], 5353))
    asked = replace(ASKED, dport=53)
    there = way(A, 1000, B, 5353)
    a.send_packet(asked.udp(b"question"))
    world.run(1)
    pods[B].send_packet(there.turned().error(there.udp(b"question")))
    world.run(1)
    assert a.received == [asked.turned().error(asked.udp(b"question"))]


def test_super_packet_to_a_service_arrives_as_one_and_so_does_the_answer(
    authority: Authority,
) -> None:
    world, a, pods = three(authority, *served(VIP, 80, [B], 8080))
    there = way(A, 1000, B, 8080)
    head = pack("=BBHHHH", 1, TCPV4, 40, 1000, 20, 16)
    a.send_frame(head + unfinished(ASKED.tcp(bytes(9000))))
    world.run(1)
    assert pods[B].frames == [head + unfinished(there.tcp(bytes(9000)))]
    pods[B].send_frame(head + unfinished(there.turned().tcp(bytes(9000))))
    world.run(1)
    assert a.frames == [head + unfinished(ASKED.turned().tcp(bytes(9000)))]


def test_nobody_serves_is_told_to_the_application_at_once(authority: Authority) -> None:
    _, a, _ = three(authority, *served(VIP, 80, [endpoint(B, ready=False)]))
    a.send_packet(ASKED.tcp(flags=SYN))
    a.send_packet(ASKED.udp(b"question"))
    assert a.told[0][:20] == ASKED.turned().tcp()[:2] + a.told[0][2:20]
    assert (a.told[0][12:20], a.told[0][33]) == (ASKED.turned().tcp()[12:20], RST | ACK)
    assert (a.told[1][20], a.told[1][21]) == (3, 3)  # port unreachable
    assert a.drops[Drop.NO_ENDPOINT] == 2
    assert not a.table.calls


def test_what_rules_refuse_is_judged_by_the_pod_s_port_and_told_of_the_service(
    authority: Authority,
) -> None:
    world, a, pods = three(authority, *served(VIP, 80, [B], 8080))
    rules = '[[rule]]\nto = "b"\nprotocol = "tcp"\nports = [8080]\nfrom = ["c"]\n'
    for node in (a, pods[B]):
        for one in (a, pods[B]):
            open_rules = parse_rules(rules if one is node else "", "r", "shop.example", "shop")
            one.policy.replace(open_rules, enforce=True)
        for heard in (a.told, a.received, pods[B].received):
            heard.clear()
        a.send_packet(ASKED.tcp(flags=SYN))
        world.run(1)
        [reset] = a.told if node is a else a.received
        assert reset[12:20] + reset[20:24] == ASKED.turned().tcp()[12:24]
        assert reset[33] == RST | ACK
        assert pods[B].received == []


def test_packet_that_does_not_fit_is_told_as_the_application_sent_it(authority: Authority) -> None:
    world, a, pods = three(authority, *served(VIP, 80, [B], 8080))
    answered(world, a, pods, ASKED)
    large = ASKED.tcp(bytes(2 * MTU))
    a.send_packet(large)
    [error] = a.told
    assert (error[12:20], error[20], error[21]) == (ASKED.turned().tcp()[12:20], 3, 4)
    assert error[28:52] == large[:24]


def test_pod_that_serves_itself_hears_itself_by_way_of_the_service(authority: Authority) -> None:
    _, a, _ = three(authority, *served(VIP, 80, [A], 8080))
    arrives = way(VIP, 1000, A, 8080)
    a.send_packet(ASKED.tcp(b"question"))
    a.send_packet(arrives.turned().tcp(b"answer"))
    assert a.told == [arrives.tcp(b"question"), ASKED.turned().tcp(b"answer")]
    assert not a.world.carried
    assert not a.drops


def test_pod_s_own_super_packet_comes_back_with_its_header(authority: Authority) -> None:
    world, a, _ = three(authority, *served(VIP, 80, [A], 8080))
    head = pack("=BBHHHH", 1, TCPV4, 40, 1000, 20, 16)
    frame = memoryview(bytearray(head + unfinished(ASKED.tcp(bytes(9000)))))
    assert not list(a.outbound.packets(frame, world.now))
    [reply] = a.outbound.replies
    assert reply[:VNET_HEADER] == head
    assert reply[VNET_HEADER:] == unfinished(way(VIP, 1000, A, 8080).tcp(bytes(9000)))


def test_packet_with_a_foreign_source_opens_no_flow(authority: Authority) -> None:
    world, a, pods = three(authority, *served(VIP, 80, [B], 8080))
    a.send_packet(way(C, 1000, VIP, 80).udp())
    world.run(1)
    assert a.drops == {Drop.FOREIGN_SOURCE: 1}
    assert not a.translation.answering
    assert not pods[B].received


def test_packets_that_wait_for_a_session_are_translated_too(authority: Authority) -> None:
    world, a, pods = three(authority, *served(VIP, 80, [B], 8080))
    for number in range(3):
        a.send_packet(ASKED.udp(bytes((number,))))
    world.run(1)
    there = way(A, 1000, B, 8080)
    assert pods[B].received == [there.udp(bytes((number,))) for number in range(3)]
