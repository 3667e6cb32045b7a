"""What a second review by hostile eyes found in paths, budgets and renewals: each of these once failed."""

from collections.abc import Callable
from functools import partial

import pytest
from sim.nodes import PACKED_A, PACKED_B, A, B, agree, sealing_id, two
from sim.test_paths import FOUND_OUT, OTHER, endpoint_of_a, talking
from sim.test_trust import adopt
from sim.world import LARGEST, PORT, Node, World, udp_packet
from support.pki import Authority, Leaf

from proxy.drops import Drop
from proxy.session.answers import MOST_HALF_OPEN
from proxy.session.pair import MOST_RETIRED
from proxy.session.path_size import BASE, PATIENCE, STEP, TRIES
from proxy.session.session import RENEW_AFTER, SESSION_LIFE
from proxy.session.upkeep import KEEP_ALIVE, RENEW_AGAIN, SPREAD
from proxy.session.wire import FLIGHT, FLIGHT_HEADER, FLIGHT_TLS, RECORD, FlightHeader

THIEF = ("10.0.0.66", PORT)
AT_ONCE = 1e-6
"""Seconds: sooner than what the network itself delivers."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class Thief:
    """Sees what goes between A and B, sends it again from any address before it arrives, and drops on demand."""

    def __init__(self, world: World, a: Node, b: Node) -> None:
        """Watch ``world``."""
        self.world, self.a, self.b = world, a, b
        self.copies: Callable[[bytes, str], bool] = lambda _data, _source: True
        self.silences = False
        self.passes_on = True
        world.tamper = self.tamper

    def tamper(self, data: bytes, source: str, to: str) -> list[bytes]:
        """Copy to the other end from his own address; pass on what comes to it as if from B."""
        if to == THIEF[0]:
            if source == B and self.passes_on:
                self.send(self.a, data, (B, PORT))
            return []
        if self.copies(data, source):
            self.send(self.b if source == A else self.a, data, THIEF)
        return [] if self.silences else [data]

    def send(self, to: Node, data: bytes, source: tuple[str, int]) -> None:
        """Deliver at once."""
        self.world.at(self.world.now + AT_ONCE, partial(to.receive, data, source))


def chat(world: World, a: Node, seconds: float, step: float = 0.1) -> None:
    for _ in range(round(seconds / step)):
        a.send_packet(udp_packet(A, B, b"busy"))
        world.run(step)


# Whoever sees records and is faster than they are.


def test_thief_who_takes_the_answers_of_the_old_address_moves_nothing(authority: Authority) -> None:
    """He drops nothing: his copy of the PING to the old address comes first, so its PONG would go to him."""
    world, a, b = talking(authority)
    Thief(world, a, b)
    for _ in range(50):
        chat(world, a, 0.1)
        assert endpoint_of_a(b) == (A, PORT)


def test_thief_who_takes_answers_about_large_pings_narrows_no_path(authority: Authority) -> None:
    world, a, b = talking(authority)
    thief = Thief(world, a, b)
    thief.copies = lambda data, source: source == A and len(data) > BASE
    thief.passes_on = False
    for _ in range(20):
        chat(world, a, 1, 0.5)
        assert a.table.current[PACKED_B].path.size == LARGEST


def test_idle_peers_whose_answers_a_thief_takes_stay_together(authority: Authority) -> None:
    world, a, b = talking(authority)
    Thief(world, a, b).passes_on = False
    before = sealing_id(a, PACKED_B)
    world.run(10 * KEEP_ALIVE)
    assert agree(a, b)
    assert sealing_id(a, PACKED_B) == before


def test_session_comes_back_from_a_thief_who_silenced_its_path_for_a_moment(
    authority: Authority,
) -> None:
    world, a, b = talking(authority)
    thief = Thief(world, a, b)
    thief.silences, thief.copies = True, lambda _data, source: source == A
    chat(world, a, 1)
    assert endpoint_of_a(b) == THIEF
    thief.silences = False
    thief.copies = lambda _data, _source: False
    chat(world, a, 3)
    assert endpoint_of_a(b) == (A, PORT)


def test_thief_who_passed_a_handshake_on_from_his_own_address_does_not_keep_its_session(
    authority: Authority,
) -> None:
    world, a, b = two(authority)
    world.nat[A, PORT] = THIEF
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(0.002)
    assert endpoint_of_a(b) == THIEF
    # From now on A is reached directly too; the thief passes on, and still is faster.
    world.nat.clear()
    Thief(world, a, b)
    chat(world, a, 3)
    assert endpoint_of_a(b) == (A, PORT)


# Budgets.


def client_hello(node: Node, called: bytes) -> bytes:
    tls = node.table._registry.new_tls(called, node.world.now)
    assert tls.step(b"") is None
    return tls.outgoing()


@pytest.mark.parametrize(
    ("tls", "network"),
    [(b"\x16", "fd00::{:x}"), (b"\x16\x03\x01\x00\x01\x09", "fd00::{:x}"), (None, "fd00:{:x}::66")],
    ids=["places of its /64", "time of its /64", "places of all"],
)
def test_strangers_do_not_keep_a_known_pod_from_renewing(
    authority: Authority, tls: bytes | None, network: str
) -> None:
    """They need no certificate of ours, only addresses that hear RETRY: a /64 is one host's to draw on."""
    world = World(1)
    a = world.join(authority.issue(Leaf(pod="a", addresses=("fd00::1",))))
    b = world.join(authority.issue(Leaf(pod="b", addresses=("fd00::2",))))
    a.send_packet(udp_packet("fd00::1", "fd00::2", b"hello"))
    world.run(1)
    before = sealing_id(a, b.packed)
    spoken = tls or client_hello(a, b.packed)
    count = 0

    def flood() -> None:
        nonlocal count
        count += 1
        source = (network.format(0x100 + count % 200), PORT)
        cookie = b.table._answers._jar.bake(source, count, world.now)
        header = FlightHeader(7, count, 0, cookie, 1)
        for at in range(0, len(spoken), FLIGHT_TLS):
            b.receive(header.encode(at, 0, spoken[at : at + FLIGHT_TLS]), source)
        world.at(world.now + 0.0005, flood)

    flood()
    world.run(3)
    assert b.drops[Drop.HANDSHAKES_FULL] + b.drops[Drop.HANDSHAKES_PACED]
    a.table.renew(world.now)
    a.settle()
    world.run(5)
    assert sealing_id(a, b.packed) != before


def test_stranger_who_may_not_begin_takes_nobodys_place(authority: Authority) -> None:
    _, _, b = two(authority)

    def begin(number: int) -> None:
        source = (f"10.0.{number >> 8}.{number & 255}", PORT)
        cookie = b.table._answers._jar.bake(source, number, b.world.now)
        b.receive(FlightHeader(7, number, 0, cookie, 1).encode(0, 0, b"\x16"), source)

    for number in range(1, 1 + MOST_HALF_OPEN):
        begin(number)
    before = set(b.table._answers._half_open)
    assert len(before) == MOST_HALF_OPEN
    begin(1000)
    assert b.drops[Drop.HANDSHAKES_PACED] == 1
    assert set(b.table._answers._half_open) == before


def test_repeated_flight_costs_its_sender_as_much_as_it_brings_about(authority: Authority) -> None:
    """Whoever heard a cookie can send its flights from any address: the victim must not get many times more."""
    world, a, b = two(authority)
    flights: list[bytes] = []
    brought = 0

    def keep(data: bytes, source: str, _to: str) -> list[bytes]:
        nonlocal brought
        if source == B:
            brought += len(data)
            return [data] if data[0] < RECORD else []
        if data[0] == FLIGHT:
            flights.append(data)
        return [data]

    world.tamper = keep
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(0.05)
    assert b.table.sessions
    brought = spent = 0
    short = flights[-1][: FLIGHT_HEADER + 1]
    for _ in range(200):
        b.receive(short, (A, PORT))
        spent += len(short)
    assert 0 < brought <= 3 * spent


# Sizes.


def test_size_of_a_new_path_is_found_out_as_soon_as_that_of_the_first(authority: Authority) -> None:
    world, a, b = talking(authority)
    world.run(1)
    world.nat[A, PORT] = OTHER
    world.mtu = lambda _from, _to: 1300
    a.send_packet(udp_packet(A, B, b"from elsewhere"))
    world.run(0.45)
    assert endpoint_of_a(b) == OTHER
    world.run(TRIES * PATIENCE)
    assert b.table.current[PACKED_A].path.size <= 1300
    world.run(FOUND_OUT)
    assert 1300 - STEP <= b.table.current[PACKED_A].path.size <= 1300


def test_renewal_on_a_narrow_path_tells_no_application_a_smaller_size(authority: Authority) -> None:
    world, a, _ = two(authority)
    world.mtu = lambda _from, _to: 1300
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(FOUND_OUT)
    before, size = sealing_id(a, PACKED_B), a.table.current[PACKED_B].path.size
    a.table.renew(world.now)
    a.settle()
    for _ in range(100):
        world.run(TRIES * PATIENCE / 10)
        assert a.table.current[PACKED_B].path.size >= size
    assert sealing_id(a, PACKED_B) != before


# Renewals.


@pytest.mark.parametrize("adopter", ["initiator", "responder"])
def test_certificate_that_comes_during_a_handshake_is_shown_all_the_same(
    authority: Authority, adopter: str
) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(0.0009)
    assert b.table._answers._half_open
    node, other = (a, b) if adopter == "initiator" else (b, a)
    newer = authority.issue(Leaf(pod=node.credential.own.pod, addresses=(node.address,)))
    adopt(node, newer)
    world.run(SPREAD + 1)
    assert agree(a, b)
    assert other.table.current[node.packed].peer.fingerprint == newer.own.fingerprint


def test_sessions_that_are_gone_leave_no_timers_for_their_whole_life(authority: Authority) -> None:
    """A pod that renews as often as it may would fill a peer's memory with what is due in 15 minutes."""
    world, a, b = talking(authority)
    for _ in range(200):
        a.table.renew(world.now)
        a.settle()
        world.run(0.5)
    world.run(2 * KEEP_ALIVE)
    for node in (a, b):
        assert len(node.table._registry.timers._heap) < 10 * (1 + MOST_RETIRED)


def test_session_still_ends_and_renews_on_time(authority: Authority) -> None:
    world, a, b = talking(authority)
    world.tamper = lambda data, _from, _to: [data] if data[0] >= RECORD else []
    before = a.table.sent["hello"]
    world.run(RENEW_AFTER - 5)
    assert a.table.sent["hello"] == before
    world.run(10)
    assert a.table.sent["hello"] > before
    before = a.table.sent["hello"]
    world.run(RENEW_AGAIN + 5)
    assert a.table.sent["hello"] > before
    world.run(SESSION_LIFE - RENEW_AFTER)
    assert not a.table.sessions
    assert not b.table.sessions
