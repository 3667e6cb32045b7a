"""Services' addresses at the sender: a flow keeps its endpoint, its application sees the virtual address alone."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from support.endpoints import endpoint, read, served
from support.naive import ECHO_REPLY, Way, unfinished

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.flow.flows import (
    CLOSED_IDLE,
    ECHO_IDLE,
    FRAGMENT_LIFE,
    SCTP_IDLE,
    TCP_IDLE,
    UDP_IDLE,
    Flows,
)
from proxy.flow.services import Services
from proxy.flow.translation import PINNED, Translation
from proxy.packet.name import made_name
from proxy.packet.rewrite import End
from proxy.packet.upper import TCP

OWN, VIP = "10.0.0.1", "172.30.0.9"
PODS = ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
OWN6, VIP6, PODS6 = "fd00::1", "fd00:1::9", ["fd00::2", "fd00::3"]
SYN, RST, FIN, ACK = 2, 4, 1, 16


def packed(text: str) -> bytes:
    return ip_address(text).packed


def way(source: str = OWN, sport: int = 1000, destination: str = VIP, dport: int = 80) -> Way:
    return Way(packed(source), sport, packed(destination), dport)


class Sender:
    """A pod's translation, and the time."""

    def __init__(self, *items: Any, flows: Flows | None = None) -> None:
        own = frozenset({packed(OWN), packed(OWN6)})
        self.translation = Translation(own, lambda _: True, flows)
        self.now = 1.0
        if items:
            self.translation.replace(read(*items))

    def send(self, packet: bytes, *, unfinished: bool = False) -> bytes:
        """Return what is sealed."""
        made = memoryview(bytearray(packet))
        destination = self.translation.outgoing(made, self.now, unfinished=unfinished)
        assert destination in bytes(made[:40])
        return bytes(made)

    def receive(self, packet: bytes, *, unfinished: bool = False) -> bytes:
        """Return what the application gets."""
        made = memoryview(bytearray(packet))
        source = bytes(made[12:16] if made[0] >> 4 == 4 else made[8:24])
        if source in self.translation.answering:
            self.translation.incoming(made, self.now, unfinished=unfinished)
        return bytes(made)

    def pod(self, one: Way, kind: Any = Way.udp) -> str:
        """Send a packet; return the pod that it goes to."""
        made = self.send(kind(one))
        return str(ip_address(made[16:20] if made[0] >> 4 == 4 else made[24:40]))


def refused(call: Any) -> Drop:
    with pytest.raises(Dropped) as caught:
        call()
    return caught.value.reason


@pytest.mark.parametrize("kind", [Way.tcp, Way.udp, Way.sctp])
@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
def test_packets_go_to_an_endpoint_and_answers_come_from_the_service(
    kind: Any, *, six: bool
) -> None:
    asked = way(OWN6, 1000, VIP6, 80) if six else way()
    pods = PODS6 if six else PODS
    sender = Sender(*served(VIP6 if six else VIP, 80, pods, 8080))
    pod = sender.pod(asked, kind)
    assert pod in pods
    there = replace(asked, destination=packed(pod), dport=8080)
    assert sender.send(kind(asked, b"data")) == kind(there, b"data")
    assert sender.receive(kind(there.turned(), b"answer")) == kind(asked.turned(), b"answer")


def test_checksums_left_to_hardware_stay_so_both_ways() -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]], 8080))
    there = way(destination=PODS[0], dport=8080)
    made = sender.send(unfinished(way().tcp(bytes(3000))), unfinished=True)
    assert made == unfinished(there.tcp(bytes(3000)))
    answer = sender.receive(unfinished(there.turned().tcp(bytes(3000))), unfinished=True)
    assert answer == unfinished(way().turned().tcp(bytes(3000)))


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
def test_ping_of_a_service_is_answered_by_it(*, six: bool) -> None:
    asked = way(OWN6, 7, VIP6, 0) if six else way(OWN, 7, VIP, 0)
    sender = Sender(*served(VIP6 if six else VIP, 80, [PODS6[0] if six else PODS[0]]))
    there = replace(asked, destination=packed(PODS6[0] if six else PODS[0]))
    assert sender.send(asked.echo(b"x")) == there.echo(b"x")
    reply = there.turned().echo(b"x", ECHO_REPLY)
    assert sender.receive(reply) == asked.turned().echo(b"x", ECHO_REPLY)


def test_flows_are_spread_over_the_endpoints_and_each_keeps_its_own() -> None:
    sender = Sender(*served(VIP, 80, PODS))
    chosen = {port: sender.pod(way(sport=port)) for port in range(1000, 1100)}
    assert set(chosen.values()) == set(PODS)
    assert chosen == {port: sender.pod(way(sport=port)) for port in range(1000, 1100)}


def test_flow_keeps_its_endpoint_when_others_come_and_when_it_takes_no_new_flows() -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]]))
    assert sender.pod(way(), Way.tcp) == sender.pod(way()) == PODS[0]
    ending = endpoint(PODS[0], ready=False, serving=True, terminating=True)
    sender.translation.replace(read(*served(VIP, 80, [ending, PODS[1]])))
    assert sender.pod(way(), Way.tcp) == sender.pod(way()) == PODS[0]
    assert {sender.pod(way(sport=port), Way.tcp) for port in range(1100, 1150)} == {PODS[1]}


def test_connection_to_a_pod_that_is_gone_stays_and_datagrams_choose_anew() -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]]))
    for kind in (Way.tcp, Way.udp, Way.sctp):
        sender.send(kind(way()))
    sender.translation.replace(read(*served(VIP, 80, [PODS[1]])))
    assert sender.pod(way(), Way.tcp) == sender.pod(way(), Way.sctp) == PODS[0]
    assert sender.pod(way(), Way.udp) == PODS[1]


def test_connections_outlive_their_service() -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]]))
    sender.send(way().tcp())
    sender.translation.replace(Services())
    assert packed(VIP) in sender.translation.addresses
    assert sender.pod(way(), Way.tcp) == PODS[0]


@pytest.mark.parametrize(
    "ended",
    [[("out", RST)], [("in", RST)], [("out", FIN | ACK), ("in", FIN | ACK)]],
    ids=["reset by us", "reset by the peer", "FIN both ways"],
)
def test_new_connection_from_the_port_of_a_closed_one_chooses_anew(
    ended: list[tuple[str, int]],
) -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]]))
    sender.send(way().tcp(flags=SYN))
    sender.translation.replace(read(*served(VIP, 80, [PODS[1]])))
    for direction, flags in ended:
        if direction == "out":
            assert sender.send(way().tcp(flags=flags))[16:20] == packed(PODS[0])
        else:
            sender.receive(way(destination=PODS[0]).turned().tcp(flags=flags))
    assert sender.send(way().tcp(flags=SYN))[16:20] == packed(PODS[1])


def test_opening_that_is_repeated_stays_and_one_of_another_connection_chooses_anew() -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]]))
    sender.send(way().tcp(flags=SYN))
    sender.translation.replace(read(*served(VIP, 80, [PODS[1]])))
    assert sender.send(way().tcp(flags=SYN))[16:20] == packed(PODS[0])
    assert sender.send(way().tcp(flags=SYN, at=77))[16:20] == packed(PODS[1])


@pytest.mark.parametrize(
    ("kind", "idle"),
    [(Way.tcp, TCP_IDLE), (Way.udp, UDP_IDLE), (Way.sctp, SCTP_IDLE), (Way.echo, ECHO_IDLE)],
    ids=["TCP", "UDP", "SCTP", "echo"],
)
def test_flow_is_forgotten_when_idle_and_not_before(kind: Any, idle: float) -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]]))
    sender.send(kind(way()))
    answer = way(destination=PODS[0]).turned()
    reply = answer.echo(kind=ECHO_REPLY) if kind is Way.echo else kind(answer)
    sender.now += idle - 1
    assert sender.receive(reply) != reply
    sender.now += idle - 1
    assert sender.receive(reply) != reply
    sender.now += idle
    assert sender.receive(reply) == reply


def test_closed_connection_is_forgotten_soon() -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]]))
    sender.send(way().tcp(flags=RST))
    sender.now += CLOSED_IDLE
    answer = way(destination=PODS[0]).turned().tcp()
    assert sender.receive(answer) == answer


def test_table_is_bounded_and_forgets_what_was_not_used_for_longest() -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]]), flows=Flows(3))
    for port in (1, 2, 3, 1, 4):
        sender.send(way(sport=port).udp())
    known = []
    for port in (1, 2, 3, 4):
        answer = way(sport=port, destination=PODS[0]).turned().udp()
        known.append(sender.receive(answer) != answer)
    assert known == [True, False, True, True]


def test_two_services_of_one_pod_do_not_share_its_answers() -> None:
    """From one port of ours to both: the second goes to another pod, or nowhere."""
    other = "172.30.0.10"
    both = [*served(VIP, 80, [PODS[0]], 8080), *served(other, 80, [PODS[0]], 8080, name="alias")]
    sender = Sender(*both)
    assert sender.pod(way()) == PODS[0]
    assert refused(lambda: sender.send(way(destination=other).udp())) is Drop.NO_ENDPOINT
    assert sender.pod(way(sport=1001, destination=other)) == PODS[0]
    more = [*both[:2], *served(other, 80, PODS[:2], 8080, name="alias")]
    sender.translation.replace(read(*more))
    assert sender.pod(way(destination=other)) == PODS[1]
    sender.now += UDP_IDLE
    sender.translation.replace(read(*both))
    assert sender.pod(way(destination=other)) == PODS[0]


@pytest.mark.parametrize(
    "packet",
    [way().tcp(flags=SYN), way().udp(), way(dport=81).tcp(), way().echo(), way().ip(47, bytes(8))],
    ids=["TCP", "UDP", "another port", "echo", "GRE"],
)
def test_nobody_serves_is_said_at_once(packet: bytes) -> None:
    sender = Sender(*served(VIP, 80, [endpoint(PODS[0], ready=False)], protocols=("TCP", "UDP")))
    assert refused(lambda: sender.send(packet)) is Drop.NO_ENDPOINT


def test_client_with_affinity_keeps_its_endpoint_for_its_time() -> None:
    spec: dict[str, Any] = {
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
    }
    sender = Sender(*served(VIP, 80, [PODS[2]], **spec))
    assert sender.pod(way(sport=1)) == PODS[2]
    sender.translation.replace(read(*served(VIP, 80, PODS, **spec)))
    fresh = Sender(*served(VIP, 80, PODS, **spec)).pod(way())
    for port in range(2, 40):
        sender.now += 30
        assert sender.pod(way(sport=port)) == PODS[2]
    sender.now += 60
    assert {sender.pod(way(sport=port)) for port in range(100, 140)} == {fresh}
    sender.translation.replace(
        read(*served(VIP, 80, [one for one in PODS if one != fresh], **spec))
    )
    assert sender.pod(way(sport=200)) != fresh


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
def test_errors_are_translated_with_what_they_quote_both_ways(*, six: bool) -> None:
    asked = way(OWN6, 1000, VIP6, 80) if six else way()
    pod = packed(PODS6[0] if six else PODS[0])
    sender = Sender(*served(VIP6 if six else VIP, 80, [PODS6[0] if six else PODS[0]], 8080))
    there = replace(asked, destination=pod, dport=8080)
    sender.send(asked.udp(b"data"))
    told = sender.receive(there.turned().error(there.udp(b"data")))
    assert told == asked.turned().error(asked.udp(b"data"))
    answer = asked.turned().udp(b"answer")
    assert sender.send(asked.error(answer)) == there.error(there.turned().udp(b"answer"))


def test_error_about_a_flow_of_another_pod_is_not_translated() -> None:
    sender = Sender(*served(VIP, 80, PODS))
    pods = {sender.pod(way(sport=port)) for port in range(1000, 1100)}
    assert len(pods) > 1
    pod = sender.pod(way())
    other = next(iter(pods - {pod}))
    forged = way(destination=other).turned().error(way(destination=pod).udp())
    assert sender.receive(forged) == forged


def test_what_tells_an_application_in_the_endpoint_s_name_is_turned_back() -> None:
    sender = Sender(*served(VIP, 80, [PODS[0]], 8080))
    there = way(destination=PODS[0], dport=8080)
    sender.send(way().tcp(flags=SYN))
    reset = memoryview(bytearray(there.turned().tcp(flags=RST | ACK)))
    sender.translation.back(reset)
    assert reset == way().turned().tcp(flags=RST | ACK)


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
def test_later_fragments_follow_the_first(*, six: bool) -> None:
    asked = way(OWN6, 1000, VIP6, 80) if six else way()
    sender = Sender(*served(VIP6 if six else VIP, 80, [PODS6[0] if six else PODS[0]], 8080))
    there = replace(asked, destination=packed(PODS6[0] if six else PODS[0]), dport=8080)
    whole = asked.fragments(asked.udp(bytes(200)), 64)
    made = [sender.send(one) for one in whole]
    assert made == there.fragments(there.udp(bytes(200)), 64)
    answers = there.turned().fragments(there.turned().udp(bytes(200)), 64)
    back = [sender.receive(one) for one in answers]
    assert back == asked.turned().fragments(asked.turned().udp(bytes(200)), 64)
    sender.now += FRAGMENT_LIFE
    assert refused(lambda: sender.send(whole[1])) is Drop.NO_ENDPOINT


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", [Way.tcp, Way.udp, Way.sctp])
def test_pod_that_serves_itself_sees_the_service_at_both_ends(kind: Any, *, six: bool) -> None:
    own, vip = (OWN6, VIP6) if six else (OWN, VIP)
    asked = way(own, 1000, vip, 80)
    sender = Sender(*served(vip, 80, [own], 8080))
    arrives = way(vip, 1000, own, 8080)
    assert sender.send(kind(asked, b"data")) == kind(arrives, b"data")
    assert sender.send(kind(arrives.turned(), b"answer")) == kind(asked.turned(), b"answer")
    refusal = arrives.turned().error(kind(arrives, b"data"))
    assert sender.send(refusal) == asked.turned().error(kind(asked, b"data"))


def test_pod_that_serves_itself_answers_its_own_ping() -> None:
    sender = Sender(*served(VIP, 80, [OWN]))
    asked = way(OWN, 7, VIP, 0)
    arrives = replace(asked, source=packed(VIP), destination=packed(OWN))
    assert sender.send(asked.echo()) == arrives.echo()
    assert sender.send(arrives.turned().echo(kind=ECHO_REPLY)) == asked.turned().echo(
        kind=ECHO_REPLY
    )


def test_after_a_restart_open_connections_find_their_endpoints_again() -> None:
    items = served(VIP, 80, PODS)
    before, after = Sender(*items), Sender(*items)
    for port in range(1000, 1050):
        pod = before.pod(way(sport=port), Way.tcp)
        assert after.pod(way(sport=port), Way.tcp) == pod


def test_after_a_restart_an_endpoint_s_packet_may_come_first() -> None:
    items = served(VIP, 80, PODS, 8080)
    pod = Sender(*items).pod(way(), Way.tcp)
    after = Sender(*items)
    after.translation.restore(
        made_name(End(packed(OWN), 1000), End(packed(VIP), 80), TCP), after.now
    )
    answer = way(destination=pod, dport=8080).turned().tcp(b"data")
    assert after.receive(answer) == way().turned().tcp(b"data")


# Where no endpoints are known.


def test_pod_that_answered_a_call_gets_new_flows_for_its_time_and_old_ones_stay() -> None:
    sender = Sender()
    pods = [frozenset({packed(one), packed(six)}) for one, six in zip(PODS, PODS6, strict=False)]
    sender.translation.rendezvous(packed(VIP), pods[0], sender.now)
    assert sender.pod(way(), Way.tcp) == PODS[0]
    sender.now += PINNED
    assert sender.pod(way(sport=1001), Way.tcp) == VIP  # to be called
    assert sender.pod(way(), Way.tcp) == PODS[0]
    sender.translation.rendezvous(packed(VIP), pods[1], sender.now)
    assert sender.pod(way(sport=1001), Way.tcp) == PODS[1]
    assert sender.pod(way(), Way.tcp) == PODS[0]


def test_pod_that_is_gone_gets_no_new_flows() -> None:
    sender = Sender()
    sender.translation.rendezvous(packed(VIP), {packed(PODS[0])}, sender.now)
    assert sender.pod(way()) == PODS[0]
    sender.translation.gone({packed(PODS[0])})
    assert sender.pod(way(sport=1001)) == VIP


def test_pod_of_the_other_family_serves_no_address() -> None:
    sender = Sender()
    sender.translation.rendezvous(packed(VIP), {packed(PODS6[0])}, sender.now)
    assert not sender.translation.addresses


def test_service_whose_endpoints_are_known_is_never_called() -> None:
    sender = Sender(*served(VIP, 80, PODS))
    assert not sender.translation.may_meet(packed(VIP))
    assert sender.translation.may_meet(packed("172.30.0.10"))
