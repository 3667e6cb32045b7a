"""Paths between two nodes: an outer address that changes, sizes that do not get through, marks of congestion."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from sim.nodes import A6, B6, PACKED_A, PACKED_B, A, B, two
from sim.world import LARGEST, PORT, Node, Weather, World, udp_packet
from support.pki import Authority

from proxy.drops import Drop
from proxy.packet.ecn import CE, ECT_0, ECT_1, NOT_ECT, inner_ecn
from proxy.session.events import SessionMoved, SessionOpened
from proxy.session.path_size import BASE, PATIENCE, RAISE_EVERY, STEP, TRIES
from proxy.session.wire import HELLO_SIZE, RECORD_OVERHEAD

OUTER = ("10.9.9.9", 40_000)
OTHER = ("10.9.9.9", 40_001)
FOUND_OUT = 8 * TRIES * PATIENCE
"""Seconds for the search: a factor of two a step."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def talking(authority: Authority, weather: Weather | None = None) -> tuple[World, Node, Node]:
    world, a, b = two(authority, weather=weather or Weather())
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(2)
    b.received.clear()
    return world, a, b


def endpoint_of_a(b: Node) -> tuple[str, int]:
    return b.table.current[PACKED_A].endpoint


def with_df(packet: bytes) -> bytes:
    return packet[:6] + b"\x40" + packet[7:]


# An outer address that changes.


def test_pod_behind_source_nat_talks_both_ways(authority: Authority) -> None:
    world, a, b = two(authority)
    world.nat[A, PORT] = OUTER
    a.send_packet(udp_packet(A, B, b"out"))
    world.run(1)
    b.send_packet(udp_packet(B, A, b"back"))
    world.run(1)
    assert b.received == [udp_packet(A, B, b"out")]
    assert a.received == [udp_packet(B, A, b"back")]
    assert endpoint_of_a(b) == OUTER


def test_idle_pod_behind_source_nat_keeps_its_mapping(authority: Authority) -> None:
    world, a, b = two(authority)
    world.nat[A, PORT] = OUTER
    a.send_packet(udp_packet(A, B, b"out"))
    world.run(1)
    spoke: list[float] = [world.now]

    def watch(data: bytes, source: str, _to: str) -> list[bytes]:
        if source == A:
            spoke.append(world.now)
        return [data]

    world.tamper = watch
    world.run(200)
    assert max(later - one for one, later in pairwise(spoke)) < 30
    assert endpoint_of_a(b) == OUTER


def test_peer_whose_outer_address_changes_is_talking_again_within_a_second(
    authority: Authority,
) -> None:
    world, a, b = talking(authority)
    world.nat[A, PORT] = OUTER
    a.send_packet(udp_packet(A, B, b"from elsewhere"))
    world.run(0.9)
    b.send_packet(udp_packet(B, A, b"found you"))
    world.run(0.1)
    # Not even the packet that told of it was lost, and the session is the same.
    assert b.received == [udp_packet(A, B, b"from elsewhere")]
    assert a.received == [udp_packet(B, A, b"found you")]
    assert endpoint_of_a(b) == OUTER
    assert sum(isinstance(event, SessionOpened) for event in b.events) == 1
    assert sum(isinstance(event, SessionMoved) for event in b.events) == 1


def test_address_may_change_again_and_again(authority: Authority) -> None:
    world, a, b = talking(authority)
    for outer in (OUTER, OTHER, OUTER):
        world.nat[A, PORT] = outer
        a.send_packet(udp_packet(A, B, b"from elsewhere"))
        world.run(2)
        assert endpoint_of_a(b) == outer


def test_copied_record_that_comes_first_from_elsewhere_moves_nothing(authority: Authority) -> None:
    world, a, b = talking(authority)
    thief = ("10.0.0.66", PORT)

    def race(data: bytes, source: str, _to: str) -> list[bytes]:
        if source == A:
            b.receive(data, thief)
        return [data]

    world.tamper = race
    for _ in range(20):
        a.send_packet(udp_packet(A, B, b"raced"))
        world.run(0.5)
        b.send_packet(udp_packet(B, A, b"back"))
        assert endpoint_of_a(b) == (A, PORT)
    world.run(1)
    assert len(a.received) == 20
    assert len(b.received) == 20


def test_thief_who_passes_on_what_he_gets_moves_nothing(authority: Authority) -> None:
    """He relays both ways, so the PING to his address is answered: but the old address answers too."""
    world, a, b = talking(authority)
    thief = ("10.0.0.66", PORT)
    relayed = 0

    def relay(data: bytes, source: str, to: str) -> list[bytes]:
        nonlocal relayed
        if source == A:
            b.receive(data, thief)
        if to == thief[0]:
            relayed += 1
            a.receive(data, (B, PORT))
        return [data]

    world.tamper = relay
    for _ in range(10):
        a.send_packet(udp_packet(A, B, b"raced"))
        world.run(0.5)
        assert endpoint_of_a(b) == (A, PORT)
    assert relayed


def test_thief_cannot_move_a_session_whose_peer_is_cut_off(authority: Authority) -> None:
    world, a, b = talking(authority)
    thief = ("10.0.0.66", PORT)

    def cut_off(data: bytes, source: str, _to: str) -> list[bytes]:
        if source == A:
            b.receive(data, thief)
        return []

    world.tamper = cut_off
    for _ in range(10):
        a.send_packet(udp_packet(A, B, b"raced"))
        world.run(0.5)
        assert endpoint_of_a(b) == (A, PORT)
    assert b.received


def test_trial_costs_an_unproved_address_no_more_than_three_times_what_came(
    authority: Authority,
) -> None:
    world, a, b = talking(authority)
    thief = ("10.0.0.66", PORT)
    got = sent = 0

    def race(data: bytes, source: str, to: str) -> list[bytes]:
        nonlocal got, sent
        if source == A:
            b.receive(data, thief)
            got += len(data)
        if to == thief[0]:
            sent += len(data)
        return [data]

    world.tamper = race
    a.table.sessions[next(iter(a.table.sessions))].path.due = world.now + 100
    a.send_packet(udp_packet(A, B, b""))
    world.run(3)
    assert 0 < sent <= 3 * got


def test_first_record_counts_only_from_where_the_handshake_was(authority: Authority) -> None:
    world, a, b = two(authority)
    thief = ("10.0.0.66", PORT)

    def race(data: bytes, source: str, _to: str) -> list[bytes]:
        if source == A and data[0] >= 128:
            b.receive(data, thief)
        return [data]

    world.tamper = race
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(1)
    assert b.drops[Drop.WRONG_ENDPOINT]
    assert endpoint_of_a(b) == (A, PORT)
    assert b.received == [udp_packet(A, B, b"hello")]


# Sizes.


@pytest.mark.parametrize("narrow", [BASE, 1300, 1388, LARGEST - 1])
def test_narrow_path_is_found_out_and_packets_get_through(
    authority: Authority, narrow: int
) -> None:
    world, a, b = two(authority)
    world.mtu = lambda _from, _to: narrow
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(FOUND_OUT)
    size = a.table.current[PACKED_B].path.size
    assert narrow - STEP <= size <= narrow
    packet = with_df(udp_packet(A, B, bytes(size - RECORD_OVERHEAD - 28)))
    a.send_packet(packet)
    world.run(1)
    assert b.received[-1] == packet


def test_path_that_becomes_narrow_and_wide_again_is_followed(authority: Authority) -> None:
    world, a, _ = talking(authority)

    def chat(seconds: float) -> int:
        for _ in range(int(seconds)):
            a.send_packet(udp_packet(A, B, b"busy"))
            world.run(1)
        return a.table.current[PACKED_B].path.size

    assert chat(2) == LARGEST
    world.mtu = lambda _from, _to: 1300
    assert 1300 - STEP <= chat(12) <= 1300
    world.mtu = lambda _from, _to: 65_535
    assert chat(RAISE_EVERY + 10) == LARGEST


def test_silent_path_says_nothing_about_its_size(authority: Authority) -> None:
    world, a, _ = talking(authority)
    a.send_packet(udp_packet(A, B, b"busy"))
    world.tamper = lambda _data, _from, _to: []
    world.run(15)
    assert a.table.current[PACKED_B].path.size == LARGEST


def test_renewed_session_knows_the_size_of_the_path(authority: Authority) -> None:
    world, a, _ = two(authority)
    world.mtu = lambda _from, _to: 1300
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(FOUND_OUT)
    size = a.table.current[PACKED_B].path.size
    a.table.connect(PACKED_B, world.now)
    a.settle()
    world.run(0.1)
    assert sum(isinstance(event, SessionOpened) for event in a.events) == 2
    assert a.table.current[PACKED_B].path.size == size


@pytest.mark.parametrize(
    ("packet", "kind", "told"),
    [
        (lambda size: with_df(udp_packet(A, B, bytes(size - 28))), (3, 4), 0),
        (lambda size: udp_packet(A6, B6, bytes(size - 48)), (2, 0), 1280),
    ],
    ids=["IPv4 with DF", "IPv6"],
)
def test_application_is_told_what_fits(
    authority: Authority, packet: Callable[[int], bytes], kind: tuple[int, int], told: int
) -> None:
    world, a, b = two(authority)
    world.mtu = lambda _from, _to: 1300
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(FOUND_OUT)
    b.received.clear()
    fits = a.table.current[PACKED_B].path.size - RECORD_OVERHEAD
    a.send_packet(packet(1400))
    world.run(1)
    assert b.received == []
    assert a.drops[Drop.TOO_BIG] == 1
    (error,) = a.told
    icmp = error[20:] if error[0] >> 4 == 4 else error[40:]
    assert (icmp[0], icmp[1]) == kind
    assert int.from_bytes(icmp[4:8], "big") == (told or fits)
    assert icmp[8:].startswith(packet(1400)[:28])


@pytest.mark.parametrize("source", [A, A6])
def test_packet_that_may_not_be_refused_goes_in_two_datagrams(
    authority: Authority, source: str
) -> None:
    """IPv4 without DF, and IPv6 of 1,280 bytes: the least that it may count on."""
    world, a, b = two(authority)
    world.mtu = lambda _from, _to: 1200
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(FOUND_OUT)
    b.received.clear()
    packet = udp_packet(A, B, bytes(1380)) if source == A else udp_packet(A6, B6, bytes(1280 - 48))
    a.send_packet(packet)
    world.run(1)
    assert b.received == [packet]
    assert not a.told


def test_path_too_narrow_for_a_hello_makes_no_session(authority: Authority) -> None:
    world, a, b = two(authority)
    world.mtu = lambda _from, _to: HELLO_SIZE - 1
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(10)
    assert not a.table.sessions
    assert not b.received
    assert a.drops[Drop.NO_SESSION] == 1


# Marks of congestion (RFC 6040 figure 4).


def marked(source: str, destination: str, ecn: int) -> bytes:
    packet = bytearray(udp_packet(source, destination, b"marked"))
    packet[1] |= ecn if packet[0] >> 4 == 4 else ecn << 4
    return bytes(packet)


@pytest.mark.parametrize(("source", "destination"), [(A, B), (A6, B6)])
@pytest.mark.parametrize("inner", [NOT_ECT, ECT_0, ECT_1, CE])
def test_datagram_wears_the_inner_ecn_and_no_dscp(
    authority: Authority, source: str, destination: str, inner: int
) -> None:
    world, a, b = talking(authority)
    world.worn.clear()
    packet = marked(source, destination, inner)
    a.send_packet(packet)
    world.run(0.1)
    assert world.worn == [inner]
    assert b.received == [packet]


@pytest.mark.parametrize(("source", "destination"), [(A, B), (A6, B6)])
@pytest.mark.parametrize("inner", [NOT_ECT, ECT_0, ECT_1, CE])
@pytest.mark.parametrize("outer", [NOT_ECT, ECT_0, ECT_1, CE])
def test_marks_of_the_path_reach_the_application(
    authority: Authority, source: str, destination: str, inner: int, outer: int
) -> None:
    world, a, b = talking(authority)
    world.mark = lambda _ecn: outer
    a.send_packet(marked(source, destination, inner))
    world.run(0.1)
    if (inner, outer) == (NOT_ECT, CE):
        assert b.received == []
        assert b.drops[Drop.ECN] == 1
        return
    # The standard's table, written out: rows are what the packet wore, columns what the datagram did.
    expected = {
        NOT_ECT: {NOT_ECT: NOT_ECT, ECT_0: NOT_ECT, ECT_1: NOT_ECT},
        ECT_0: {NOT_ECT: ECT_0, ECT_0: ECT_0, ECT_1: ECT_1, CE: CE},
        ECT_1: {NOT_ECT: ECT_1, ECT_0: ECT_1, ECT_1: ECT_1, CE: CE},
        CE: dict.fromkeys((NOT_ECT, ECT_0, ECT_1, CE), CE),
    }[inner][outer]
    (packet,) = b.received
    assert inner_ecn(memoryview(packet)) == expected
    assert packet[12:] == marked(source, destination, inner)[12:]
