"""Two whole nodes over a seeded network: what a pod's owner is promised, by the clock of the simulation."""

import pytest
from sim.nodes import A6, B6, FAIR, FOUL, PACKED_A, PACKED_B, SECRET, A, B, agree, sealing_id, two
from sim.world import Weather, udp_packet
from support.pki import Authority
from support.segmentation import TCP, Connection

from proxy.drops import Drop
from proxy.session.events import CallFailed, SessionClosed, SessionOpened
from proxy.session.session import RENEW_AFTER, RETIRED_LIFE, SESSION_LIFE
from proxy.session.upkeep import KEEP_ALIVE, PING_PACE, PINGS_TO_END

SYN, RST, ACK = 2, 4, 16


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_first_packet_arrives_unchanged_and_never_in_clear(authority: Authority) -> None:
    world, a, b = two(authority)
    packet = udp_packet(A, B, SECRET)
    a.send_packet(packet)
    world.run(1)
    assert b.received == [packet]
    assert world.carried
    assert not any(SECRET in data for data in world.carried)
    assert not a.drops
    assert not b.drops


def test_both_families_share_one_session(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"4"))
    world.run(1)
    b.send_packet(udp_packet(B6, A6, b"6"))
    world.run(1)
    assert a.received == [udp_packet(B6, A6, b"6")]
    assert len(a.table.sessions) == len(b.table.sessions) == 1


@pytest.mark.parametrize("seed", range(60))
def test_handshake_survives_loss_reordering_and_duplication(
    authority: Authority, seed: int
) -> None:
    world, a, b = two(authority, seed, FOUL)
    a.send_packet(udp_packet(A, B, SECRET))
    world.run(10)
    assert agree(a, b)
    assert sum(isinstance(event, SessionOpened) for event in b.events) == 1


@pytest.mark.parametrize("seed", range(60))
def test_both_ends_calling_at_once_end_in_one_session(authority: Authority, seed: int) -> None:
    world, a, b = two(authority, seed, FOUL if seed % 2 else Weather(jitter=0.01))
    a.send_packet(udp_packet(A, B, b"from a"))
    b.send_packet(udp_packet(B, A, b"from b"))
    world.run(10)
    assert agree(a, b)
    world.weather = FAIR
    world.run(RETIRED_LIFE)
    assert len(a.table.sessions) == len(b.table.sessions) == 1
    a.send_packet(udp_packet(A, B, b"after"))
    b.send_packet(udp_packet(B, A, b"after"))
    world.run(1)
    assert b.received[-1] == udp_packet(A, B, b"after")
    assert a.received[-1] == udp_packet(B, A, b"after")


def test_no_record_is_delivered_twice_however_often_it_is_sent(authority: Authority) -> None:
    world, a, b = two(authority, weather=Weather(duplication=1.0, jitter=0.01))
    for number in range(50):
        a.send_packet(udp_packet(A, B, bytes((number,))))
    world.run(2)
    assert sorted(b.received) == sorted(udp_packet(A, B, bytes((n,))) for n in range(50))
    assert b.drops[Drop.REPLAY] >= 50


@pytest.mark.parametrize("who_speaks", ["restarted", "other"])
def test_peer_that_restarts_is_talking_again_within_a_second(
    authority: Authority, who_speaks: str
) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"before"))
    world.run(1)
    b.start()
    b.received.clear()
    a.received.clear()
    if who_speaks == "restarted":
        b.send_packet(udp_packet(B, A, b"hello again"))
        world.run(1)
        assert a.received == [udp_packet(B, A, b"hello again")]
    else:
        # The first record finds no session: its hint starts a handshake, and the next packet goes through.
        a.send_packet(udp_packet(A, B, b"lost"))
        world.run(0.5)
        a.send_packet(udp_packet(A, B, b"found"))
        world.run(0.5)
        assert b.received == [udp_packet(A, B, b"found")]
    assert agree(a, b)


def test_session_is_renewed_before_it_ends_and_loses_nothing(authority: Authority) -> None:
    world, a, b = two(authority)
    sent = 0
    while world.now < 100 + SESSION_LIFE + RENEW_AFTER:
        a.send_packet(udp_packet(A, B, sent.to_bytes(4, "big")))
        sent += 1
        world.run(7)
    assert len(b.received) == sent
    assert agree(a, b)
    assert not any(isinstance(event, CallFailed) for event in a.events + b.events)


def test_idle_session_is_kept_alive_by_few_datagrams(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(6)
    before = sealing_id(a, PACKED_B)
    world.carried.clear()
    world.run(300)
    assert sealing_id(a, PACKED_B) == sealing_id(b, PACKED_A) == before
    assert 300 / KEEP_ALIVE - 2 <= len(world.carried) / 2 <= 300 / KEEP_ALIVE + 2


def test_peer_that_only_listens_is_not_taken_for_dead(authority: Authority) -> None:
    world, a, b = two(authority)
    for _ in range(120):
        a.send_packet(udp_packet(A, B, b"to a sink"))
        world.run(1)
    assert len(b.received) == 120
    assert sum(isinstance(event, SessionOpened) for event in a.events) == 1


def test_peer_that_vanished_is_noticed_and_found_again(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(1)
    world.tamper = lambda _data, _from, _to: []
    world.run(KEEP_ALIVE + PINGS_TO_END * PING_PACE + 1)
    assert not a.table.sessions
    assert any(
        isinstance(event, SessionClosed) and event.why == "peer silent" for event in a.events
    )
    world.tamper = lambda data, _from, _to: [data]
    b.received.clear()
    a.send_packet(udp_packet(A, B, b"again"))
    world.run(1)
    assert b.received == [udp_packet(A, B, b"again")]


def test_session_that_has_sealed_much_is_renewed_in_time(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.session.upkeep.REKEY_BLOCKS", 500)
    world, a, b = two(authority)
    sent = 0
    while world.now < 160:
        a.send_packet(udp_packet(A, B, sent.to_bytes(4, "big") + bytes(300)))
        sent += 1
        world.run(0.5)
    assert len(b.received) == sent
    assert 2 <= sum(isinstance(event, SessionOpened) for event in a.events) <= 5
    assert agree(a, b)


def test_orderly_stop_tells_the_peer(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(1)
    a.table.close(world.now)
    a.settle()
    world.run(1)
    assert not b.table.sessions


@pytest.mark.parametrize("flags", [ACK, SYN | ACK])
def test_open_connection_is_not_reset_by_a_peer_that_is_away(
    authority: Authority, flags: int
) -> None:
    world, a, _ = two(authority)
    away = Connection(PACKED_A, b"\x0a\0\0\x4d", TCP)
    a.send_packet(away.packet(b"", flags=flags))
    world.run(10)
    (told,) = a.told
    assert (told[9], told[20], told[21]) == (1, 3, 1)  # ICMP, host unreachable
    a.told.clear()
    a.send_packet(away.packet(b"", flags=SYN))
    world.run(10)
    (told,) = a.told
    assert (told[9], told[33]) == (TCP, RST | ACK)


def test_nobody_there_gives_the_packet_up_and_says_so(authority: Authority) -> None:
    world, a, _ = two(authority)
    a.send_packet(udp_packet(A, "10.0.0.77", b"anybody"))
    world.run(10)
    assert a.drops[Drop.NO_SESSION] == 1
    failed = [event for event in a.events if isinstance(event, CallFailed)]
    assert [event.refusal.reason for event in failed] == [Drop.HANDSHAKE_TIMEOUT]
    assert not a.table.sessions
