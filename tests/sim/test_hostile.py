"""What a review by hostile eyes found: each of these once failed."""

import gc

import pytest
from sim.world import PORT, Node, World, udp_packet
from support.arrivals import deliver
from support.pki import START, Authority, Leaf

from proxy.drops import Drop
from proxy.flow.waiting import MOST_FOR_ONE, MOST_IN_ALL
from proxy.session.answers import MOST_HALF_OPEN
from proxy.session.events import SessionOpened
from proxy.session.pair import LAST_GENERATION
from proxy.session.pieces import datagrams
from proxy.session.timers import Timers
from proxy.session.tls import TlsEnd
from proxy.session.wire import (
    CLOSE,
    CONFIRM,
    DONE,
    FLIGHT,
    PING,
    PONG,
    RECORD,
    RECORD_HEADER,
    RETRY,
    FlightHeader,
)

A, B, M = "10.0.0.1", "10.0.0.2", "10.0.0.3"
PACKED_A, PACKED_B = b"\x0a\0\0\x01", b"\x0a\0\0\x02"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def two(authority: Authority) -> tuple[World, Node, Node]:
    world = World(1)
    a = world.join(authority.issue(Leaf(pod="a", addresses=(A, "fd00::1"))))
    b = world.join(authority.issue(Leaf(pod="b", addresses=(B, "fd00::2"))))
    return world, a, b


def untouched(data: bytes, _source: str, _to: str) -> list[bytes]:
    return [data]


def test_peer_that_answers_and_closes_in_one_batch_can_be_called_again(
    authority: Authority,
) -> None:
    world, a, b = two(authority)
    for number in range(MOST_FOR_ONE):
        a.send_packet(udp_packet(A, B, bytes((number,))))
    # DONE and CLOSE reach A in one wake-up, as the pump takes them: it settles after the batch.
    batch: list[bytes] = []

    def hold(data: bytes, source: str, _to: str) -> list[bytes]:
        if source == B and data[0] >= RECORD:
            batch.append(data)
            return []
        return [data]

    world.tamper = hold
    world.run(0.01)
    b.table.close(world.now)
    b.settle()
    for data in batch:
        assert not deliver(a.inbound, data, (B, PORT), world.now)
    a.settle()
    world.tamper = untouched
    world.run(20)
    a.send_packet(udp_packet(A, B, b"again"))
    world.run(1)
    assert udp_packet(A, B, b"again") in b.received


def test_full_queue_for_dead_addresses_does_not_keep_others_from_being_called(
    authority: Authority,
) -> None:
    world, a, b = two(authority)
    for dead in range(100, 100 + MOST_IN_ALL // MOST_FOR_ONE):
        for _ in range(MOST_FOR_ONE):
            a.send_packet(udp_packet(A, f"10.0.0.{dead}", b"x"))
    a.send_packet(udp_packet(A, B, b"first"))
    world.run(1)
    a.send_packet(udp_packet(A, B, b"second"))
    world.run(1)
    assert udp_packet(A, B, b"second") in b.received


def test_refused_first_record_leaves_the_handshake_as_it_was(authority: Authority) -> None:
    world, a, b = two(authority)
    world.tamper = lambda data, source, _to: [] if source == B and data[0] >= RECORD else [data]
    a.send_packet(udp_packet(A, B, b"waits"))
    world.run(0.05)
    (session,) = b.table.sessions.values()
    a.receive(bytes(session.seal(bytes((9, 0, 0, 0)), 1200, world.now)), (B, PORT))
    assert a.drops[Drop.GENERATION] == 1
    world.tamper = untouched
    world.run(20)
    for node, peer in ((a, PACKED_B), (b, PACKED_A)):
        assert peer in node.table.current


def test_generation_of_a_pod_that_is_gone_does_not_lock_its_address(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, a, evil = two(authority)
    monkeypatch.setattr(
        evil.table._registry, "next_generation", lambda _address: LAST_GENERATION - 1
    )
    evil.send_packet(udp_packet(B, A, b"poison"))
    world.run(1)
    heir = world.join(authority.issue(Leaf(pod="heir", addresses=(B, "fd00::2"), begins=START)))
    for _ in range(5):
        a.send_packet(udp_packet(A, B, b"to the heir"))
        world.run(1)
    assert udp_packet(A, B, b"to the heir") in heir.received


def test_peer_that_restarts_often_is_talking_again_as_soon_each_time(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"x"))
    world.run(70)
    for restart in range(12):
        b.start()
        b.received.clear()
        for _ in range(10):
            a.send_packet(udp_packet(A, B, b"x"))
            world.run(0.5)
        assert b.received, f"restart {restart}: nothing for 5 s"
        world.run(10)


def test_another_pod_cannot_take_a_sessions_hints_away(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"x"))
    world.run(1)
    index = a.table.current[PACKED_B].peer_index  # in clear in each record
    # M, a valid pod on the bridge: sends from B's address and port, and hears what goes there.
    m = Node(world, authority.issue(Leaf(pod="m", addresses=(M,))), M)
    m.own = [B]
    monkeypatch.setattr(m.table._registry, "new_index", lambda: index)
    world.nodes[B] = m
    m.table.connect(PACKED_A, world.now)
    m.settle()
    world.run(1)
    world.nodes[B] = b
    b.start()
    for _ in range(5):
        a.send_packet(udp_packet(A, B, b"again"))
        world.run(1)
    assert udp_packet(A, B, b"again") in b.received


def test_stranger_of_the_same_64_cannot_keep_pods_from_calling(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(1)
    a = world.join(authority.issue(Leaf(pod="a", addresses=("fd00::1",))))
    b = world.join(authority.issue(Leaf(pod="b", addresses=("fd00::2",))))
    # No certificate of ours is needed: only an address at which RETRY arrives.
    stranger = world.join(Authority("nobody").issue(Leaf(pod="s", addresses=("fd00::66",))))

    def hear_cookies_alone(
        total: int, _size: int, source: tuple[str, int], now: float, _ecn: int
    ) -> tuple[memoryview, ...]:
        data = stranger.inbound.buffer[:total]
        if data[0] == RETRY:
            stranger.table.receive_datagram(data, source, now)
        return ()

    monkeypatch.setattr(stranger.inbound, "datagrams", hear_cookies_alone)

    def flood() -> None:
        stranger.table._calls._by_address.clear()
        stranger.table.connect(b.packed, world.now)
        stranger.settle()
        world.at(world.now + 0.05, flood)

    flood()
    world.run(3)
    assert b.drops[Drop.HANDSHAKES_FULL]
    a.send_packet(udp_packet("fd00::1", "fd00::2", b"hello"))
    world.run(1)
    assert b.received


def live_tls() -> int:
    return sum(type(one) is TlsEnd for one in gc.get_objects())


def test_half_open_handshakes_that_made_room_keep_no_memory(authority: Authority) -> None:
    world = World(1)
    b = world.join(authority.issue(Leaf(pod="b", addresses=(B,))))
    gc.collect()
    before = live_tls()
    for number in range(1, 2000):
        source = (f"10.0.{number >> 8}.{number & 255}", PORT)
        # The cookie is what a RETRY to this source says: who hears it can send this.
        cookie = b.table._answers._jar.bake(source, number, world.now)
        flight = FlightHeader(7, number, 0, cookie, 1).encode(0, 0, b"\x16")
        deliver(b.inbound, flight, source, world.now)
        b.settle()
    assert live_tls() - before <= MOST_HALF_OPEN


def test_finished_handshake_frees_its_tls_without_the_collector(authority: Authority) -> None:
    world, a, b = two(authority)
    gc.collect()
    before = live_tls()
    gc.disable()
    try:
        for _ in range(20):
            a.table.connect(b.packed, world.now)
            a.settle()
            world.run(6)
            a.events.clear()
            b.events.clear()
        assert live_tls() == before
    finally:
        gc.enable()


def test_flood_from_one_address_does_not_silence_hints_to_others(authority: Authority) -> None:
    world, a, _ = two(authority)

    def strange(index: int) -> bytes:
        head = bytes((RECORD, 0, 0, 30)) + index.to_bytes(4, "big")
        return head + bytes(RECORD_HEADER + 30 - len(head))

    for index in range(1, 12_000):
        a.receive(strange(index), ("10.0.0.66", PORT))
    before = len(world.carried)
    a.receive(strange(77), ("10.0.0.3", PORT))
    assert len(world.carried) == before + 1


def test_flush_counts_what_it_could_not_seal(authority: Authority) -> None:
    world, a, _ = two(authority)
    a.send_packet(udp_packet(A, B, b"x"))
    world.run(1)
    session = a.table.current[PACKED_B]
    for number in range(5):
        a.outbound._waiting.add(PACKED_B, bytes(4) + udp_packet(A, B, bytes((number,))))
    session.sealer.blocks = 1 << 34
    assert list(a.outbound.heard(SessionOpened(session), world.now)) == []
    assert a.drops[Drop.NO_SESSION] == 5


def test_exception_in_one_timer_loses_no_other() -> None:
    timers, ran = Timers(), list[float]()

    def fail(_now: float) -> None:
        raise ValueError("a bug")

    timers.at(1, fail)
    timers.at(1, ran.append)
    with pytest.raises(ValueError, match="a bug"):
        timers.run(1)
    timers.run(2)
    assert ran == [2]


def test_altered_index_costs_an_attempt_and_not_the_call(authority: Authority) -> None:
    world, a, b = two(authority)
    spoilt: list[bytes] = []

    def alter(data: bytes, source: str, _to: str) -> list[bytes]:
        if data[0] == FLIGHT and source == A and (not spoilt or data[8:16] == spoilt[0]):
            spoilt[:] = [data[8:16]]
            return [data[:4] + bytes((data[4] ^ 1,)) + data[5:]]
        return [data]

    world.tamper = alter
    a.send_packet(udp_packet(A, B, b"waits"))
    world.run(4.9)
    assert b.received == [udp_packet(A, B, b"waits")]


def test_inner_segment_size_that_was_not_offered_is_refused(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"x"))
    world.run(1)
    session = a.table.current[PACKED_B]
    plain = b"\0\0\x05\xb4" + udp_packet(A, B, b"gso")
    b.receive(bytes(session.seal(plain, 1452, world.now)), (A, PORT))
    assert b.received == [udp_packet(A, B, b"x")]
    assert b.drops[Drop.PACKET_MALFORMED] == 1


@pytest.mark.parametrize("kind", [DONE, PING, CLOSE])
def test_control_record_of_several_datagrams_is_refused(authority: Authority, kind: int) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"x"))
    world.run(1)
    session = a.table.current[PACKED_B]
    sent = b.table.sent["control"]
    for data in datagrams(
        session.seal(bytes((kind, 0, 0, 0)) + bytes(60_000), 1452, world.now), 1452
    ):
        b.receive(bytes(data), (A, PORT))
    assert b.drops[Drop.PACKET_MALFORMED] == 1
    assert b.table.sent["control"] == sent
    assert PACKED_A in b.table.current


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("kind", [PING, PONG])
def test_ping_without_its_bytes_is_dropped(authority: Authority, kind: int, size: int) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"x"))
    world.run(1)
    before = b.table.sent["control"]
    b.receive(sealed(a, bytes((kind, 0, 0, 0)) + bytes(size)), (A, PORT))
    assert b.drops[Drop.PACKET_MALFORMED] == 1
    assert b.table.sent["control"] == before


def test_each_role_sends_its_own_words(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"x"))
    world.run(1)
    before = b.table.sent["control"]
    b.receive(sealed(a, bytes((DONE, 0, 0, 0)) + (9).to_bytes(8, "big")), (A, PORT))
    a.receive(sealed(b, bytes((CONFIRM, 0, 0, 0)), PACKED_A), (B, PORT))
    assert (a.drops[Drop.UNKNOWN_KIND], b.drops[Drop.UNKNOWN_KIND]) == (1, 1)
    assert b.table.sent["control"] == before


def sealed(node: Node, plain: bytes, peer: bytes = PACKED_B) -> bytes:
    return bytes(node.table.current[peer].seal(plain, 1452, node.world.now))
