"""A Service's port at the receiver: arrivals get the container's, answers leave as their receiver knows them."""

from dataclasses import replace

from support.naive import Way

from proxy.flow.flows import UDP_IDLE
from proxy.flow.target_ports import TargetPorts

ASKED = Way(b"\x0a\0\0\1", 1000, b"\x0a\0\0\2", 80)
HAD = replace(ASKED, dport=8080)


def arriving(ports: TargetPorts, packet: bytes, now: float = 1.0) -> bytes:
    made = memoryview(bytearray(packet))
    ports.arriving(made, now)
    return bytes(made)


def leaving(ports: TargetPorts, packet: bytes, now: float = 1.0) -> bytes:
    made = memoryview(bytearray(packet))
    ports.leaving(made, now)
    return bytes(made)


def test_only_mapped_ports_change() -> None:
    ports = TargetPorts({80: 8080, 443: 443})
    assert arriving(ports, ASKED.tcp(b"x")) == HAD.tcp(b"x")
    for port in (81, 443, 8080):
        other = replace(ASKED, dport=port).tcp(b"x")
        assert arriving(ports, other) == other


def test_only_answers_to_what_was_mapped_change() -> None:
    ports = TargetPorts({80: 8080})
    direct = replace(HAD, sport=1001)
    arriving(ports, ASKED.udp())
    arriving(ports, direct.udp())
    assert leaving(ports, HAD.turned().udp(b"x")) == ASKED.turned().udp(b"x")
    assert leaving(ports, direct.turned().udp(b"x")) == direct.turned().udp(b"x")


def test_what_is_idle_is_forgotten() -> None:
    ports = TargetPorts({80: 8080})
    arriving(ports, ASKED.udp(), 1.0)
    answer = HAD.turned().udp()
    assert leaving(ports, answer, UDP_IDLE) != answer
    assert leaving(ports, answer, 2 * UDP_IDLE) == answer


def test_of_two_ports_that_lead_to_one_the_later_has_the_answers() -> None:
    ports = TargetPorts({80: 8080, 81: 8080})
    later = replace(ASKED, dport=81)
    assert arriving(ports, ASKED.udp()) == arriving(ports, later.udp()) == HAD.udp()
    assert leaving(ports, HAD.turned().udp()) == later.turned().udp()


def test_later_fragments_arrive_as_the_first() -> None:
    ports = TargetPorts({80: 8080})
    whole = ASKED.fragments(ASKED.udp(bytes(200)), 64)
    assert [arriving(ports, one) for one in whole] == HAD.fragments(HAD.udp(bytes(200)), 64)


def test_ping_is_left_alone() -> None:
    ports = TargetPorts({80: 8080})
    assert arriving(ports, ASKED.echo()) == ASKED.echo()
