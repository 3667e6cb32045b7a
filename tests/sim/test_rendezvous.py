"""Services with DNS alone: who answers a call to the virtual address serves it, at its own address."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from sim.nodes import A6, ASKED, B6, C6, FOUL, VIP, VIP6, A, B, C, way
from sim.world import PORT, Node, Weather, World
from support.naive import Way
from support.pki import Authority, Leaf

from policy.rules import parse_rules
from proxy.drops import Drop
from proxy.flow.translation import PINNED
from proxy.session.events import CallFailed, RendezvousDone, SessionMoved, SessionOpened
from proxy.session.upkeep import KEEP_ALIVE, PING_PACE, PINGS_TO_END

SYN, RST, ACK = 2, 4, 16


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def three(
    authority: Authority, seed: int = 1, weather: Weather | None = None, *, own: str = "shop"
) -> tuple[World, Node, dict[str, Node]]:
    """Return a client, and two pods to which the network translates a Service's addresses."""
    world = World(seed, weather)
    world.meets = True
    world.services = {VIP: [B, C], VIP6: [B6, C6]}
    a = world.join(authority.issue(Leaf(pod="a", addresses=(A, A6))))
    pods = {
        address: world.join(
            authority.issue(Leaf(pod=name, addresses=(address, six), namespace=own))
        )
        for name, address, six in (("b", B, B6), ("c", C, C6))
    }
    return world, a, pods


def ask(world: World, a: Node, pods: dict[str, Node], asked: Way, kind: Any = Way.tcp) -> str:
    """Let a packet go to the Service, and its answer come back; return the pod that had it."""
    for node in (a, *pods.values()):
        node.received.clear()
    a.send_packet(kind(asked, b"question"))
    world.run(2)
    [pod] = [one for one, node in pods.items() if node.received]
    own = pod if len(asked.source) == 4 else {B: B6, C: C6}[pod]
    there = replace(asked, destination=ip_address(own).packed)
    assert pods[pod].received == [kind(there, b"question")]
    pods[pod].send_packet(kind(there.turned(), b"answer"))
    world.run(2)
    assert a.received == [kind(asked.turned(), b"answer")]
    return pod


def met(node: Node) -> list[str]:
    """Return the pods that answered calls to a Service."""
    return [e.session.peer.pod for e in node.events if isinstance(e, RendezvousDone)]


@pytest.mark.parametrize("kind", [Way.tcp, Way.udp, Way.sctp])
@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
def test_service_is_reached_and_its_session_goes_on_at_the_pod_s_own_address(
    authority: Authority, kind: Any, *, six: bool
) -> None:
    world, a, pods = three(authority)
    asked = way(A6, 1000, VIP6, 80) if six else ASKED
    pod = ask(world, a, pods, asked, kind)
    own = pod if not six else {B: B6, C: C6}[pod]
    session = a.table.current[ip_address(own).packed]
    assert session.endpoint == (own, PORT)
    assert any(isinstance(event, SessionMoved) for event in a.events)
    assert met(a) == [pods[pod].credential.own.pod]
    assert not a.drops


@pytest.mark.parametrize("seed", range(20))
def test_service_is_reached_through_loss_and_each_flow_stays_with_its_pod(
    authority: Authority, seed: int
) -> None:
    world, a, pods = three(authority, seed, FOUL)
    a.send_packet(ASKED.udp(b"first"))
    world.run(10)
    world.weather = Weather()
    flows = [replace(ASKED, sport=port) for port in range(1000, 1010)]
    chosen = [ask(world, a, pods, flow, Way.udp) for flow in flows]
    assert chosen == [ask(world, a, pods, flow, Way.udp) for flow in flows]


def test_every_pod_that_serves_is_found_by_some_client(authority: Authority) -> None:
    found = set()
    for seed in range(8):
        world, a, pods = three(authority, seed)
        found.add(ask(world, a, pods, ASKED))
    assert found == {B, C}


def test_session_is_used_by_way_of_the_service_where_the_pod_s_own_address_is_not_reached(
    authority: Authority,
) -> None:
    world, a, pods = three(authority)
    world.tamper = lambda data, _from, to: [] if to in {B, C} else [data]
    pod = ask(world, a, pods, ASKED)
    assert a.table.current[ip_address(pod).packed].endpoint == (VIP, PORT)


def test_new_flows_ask_again_after_a_minute_and_old_ones_stay(authority: Authority) -> None:
    world, a, pods = three(authority)
    first = ask(world, a, pods, ASKED)
    assert ask(world, a, pods, replace(ASKED, sport=1001)) == first
    assert len(met(a)) == 1
    other = C if first == B else B
    world.services[VIP] = [other]
    world.run(PINNED)
    assert ask(world, a, pods, ASKED) == first
    assert ask(world, a, pods, replace(ASKED, sport=1002)) == other
    assert len(met(a)) == 2
    assert ask(world, a, pods, ASKED) == first


@pytest.mark.parametrize("orderly", [True, False], ids=["closed", "silent"])
def test_pod_that_goes_leaves_new_flows_to_the_other(
    authority: Authority, *, orderly: bool
) -> None:
    world, a, pods = three(authority)
    first = ask(world, a, pods, ASKED)
    other = C if first == B else B
    world.services[VIP] = [other]
    gone = pods[first]
    if orderly:
        gone.table.close(world.now)
        gone.settle()
        world.run(1)
    world.tamper = lambda data, source, to: [] if {source, to} & {*gone.own} else [data]
    if not orderly:
        world.run(KEEP_ALIVE + PING_PACE * (PINGS_TO_END + 2))
    assert ask(world, a, pods, replace(ASKED, sport=1001)) == other


def test_address_that_the_certificate_names_is_a_pod_s_and_no_service(authority: Authority) -> None:
    world, a, pods = three(authority)
    asked = replace(ASKED, destination=ip_address(B).packed)
    a.send_packet(asked.udp(b"question"))
    world.run(1)
    assert pods[B].received == [asked.udp(b"question")]
    assert met(a) == []
    assert not a.translation.addresses
    assert not any(isinstance(event, SessionMoved) for event in a.events)


def test_pod_of_another_project_answers_for_no_service(authority: Authority) -> None:
    world, a, pods = three(authority, own="bank")
    a.send_packet(ASKED.udp(b"question"))
    world.run(10)
    assert a.drops[Drop.FOREIGN_PROJECT] > 0
    assert not any(isinstance(event, SessionOpened) for event in a.events)
    assert not any(node.received for node in pods.values())
    assert any(isinstance(event, CallFailed) for event in a.events)
    assert a.drops[Drop.NO_SESSION] == 1


def test_where_calls_name_their_pod_nobody_else_may_answer(authority: Authority) -> None:
    world, a, pods = three(authority)
    world.meets = False
    a.send_packet(ASKED.udp(b"question"))
    world.run(10)
    assert a.drops[Drop.ADDRESS_NOT_NAMED] > 0
    assert not any(node.received for node in pods.values())


def with_ports(authority: Authority) -> tuple[World, Node, dict[str, Node]]:
    world, a, pods = three(authority)
    for node in pods.values():
        node.ports = {80: 8080}
        node.start()
    return world, a, pods


@pytest.mark.parametrize("kind", [Way.tcp, Way.udp, Way.sctp])
def test_receiver_gives_its_port_and_answers_leave_from_the_service_s(
    authority: Authority, kind: Any
) -> None:
    world, a, pods = with_ports(authority)
    a.send_packet(kind(ASKED, b"question"))
    world.run(1)
    [pod] = [one for one, node in pods.items() if node.received]
    there = way(A, 1000, pod, 8080)
    assert pods[pod].received == [kind(there, b"question")]
    pods[pod].send_packet(kind(there.turned(), b"answer"))
    world.run(1)
    assert a.received == [kind(ASKED.turned(), b"answer")]
    direct = replace(there, sport=1001)
    a.send_packet(kind(direct, b"to the program's port"))
    world.run(1)
    pods[pod].send_packet(kind(direct.turned(), b"from there"))
    world.run(1)
    assert a.received[-1] == kind(direct.turned(), b"from there")


def test_receiver_s_rules_see_its_port_and_its_refusal_comes_from_the_service(
    authority: Authority,
) -> None:
    world, a, pods = with_ports(authority)
    rules = '[[rule]]\nto = "web"\nprotocol = "tcp"\nports = [8080]\nfrom = []\n'
    for node in pods.values():
        node.policy.replace(parse_rules(rules, "r", "shop.example", "shop"), enforce=True)
    a.send_packet(ASKED.tcp(flags=SYN))
    world.run(1)
    assert not any(node.received for node in pods.values())
    [reset] = a.received
    assert reset[12:24] == ASKED.turned().tcp()[12:24]
    assert reset[33] == RST | ACK


def test_error_about_what_arrived_is_told_of_the_service_s_port(authority: Authority) -> None:
    world, a, pods = with_ports(authority)
    a.send_packet(ASKED.udp(b"question"))
    world.run(1)
    [pod] = [one for one, node in pods.items() if node.received]
    there = way(A, 1000, pod, 8080)
    pods[pod].send_packet(there.turned().error(there.udp(b"question")))
    world.run(1)
    assert a.received == [ASKED.turned().error(ASKED.udp(b"question"))]


def test_answer_that_does_not_fit_is_told_of_the_program_s_port(authority: Authority) -> None:
    world, a, pods = with_ports(authority)
    a.send_packet(ASKED.tcp(b"question"))
    world.run(1)
    [pod] = [one for one, node in pods.items() if node.received]
    large = way(pod, 8080, A, 1000).tcp(bytes(3000))
    pods[pod].send_packet(large)
    [error] = pods[pod].told
    assert (error[20], error[21]) == (3, 4)
    assert error[28:52] == large[:24]


def test_pod_that_the_network_leads_to_itself_serves_itself(authority: Authority) -> None:
    world, a, _ = three(authority)
    world.services = {VIP: [A]}
    a.send_packet(Way.tcp(ASKED, b"question"))
    world.run(2)
    assert a.told == [Way.tcp(way(VIP, 1000, A, 80), b"question")]
    assert not a.table.sessions
    a.send_packet(Way.tcp(way(A, 80, VIP, 1000), b"answer"))
    assert a.told[1:] == [Way.tcp(ASKED.turned(), b"answer")]
