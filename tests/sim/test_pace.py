"""Handshakes cost a bounded share of the processor, whoever asks for them and however it ends."""

import pytest
from sim.world import Node, World, udp_packet
from support.pki import Authority, Leaf

from proxy.drops import Drop
from proxy.session.budget import SHARES
from proxy.session.calls import BUDGET
from proxy.session.pair import MOST_RETIRED
from proxy.session.wire import HELLO_SIZE

SECONDS = 20


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def pod(world: World, authority: Authority, number: int) -> Node:
    return world.join(authority.issue(Leaf(pod=f"p{number}", addresses=(f"10.0.0.{number}",))))


def shake_without_end(attacker: Node, victim: Node) -> None:
    """Call again at once, whatever came of the last call."""
    attacker.table._calls._by_address.clear()
    attacker.table._calls._by_id.clear()
    attacker.table.connect(victim.packed, attacker.world.now)
    attacker.settle()
    attacker.world.at(attacker.world.now + 0.01, lambda: shake_without_end(attacker, victim))


def test_pod_that_shakes_hands_without_end_is_held_to_its_share(authority: Authority) -> None:
    world = World(1)
    attacker, victim, other = (pod(world, authority, n) for n in (1, 2, 3))
    other.send_packet(udp_packet("10.0.0.3", "10.0.0.2", b"before"))
    world.run(1)
    begun = 0
    new_tls = victim.table._registry.new_tls

    def count(*args: object) -> object:
        nonlocal begun
        begun += 1
        return new_tls(*args)  # type: ignore[arg-type]

    victim.table._registry.new_tls = count  # type: ignore[method-assign,assignment]
    shake_without_end(attacker, victim)
    victim.received.clear()
    for _ in range(SECONDS * 10):
        other.send_packet(udp_packet("10.0.0.3", "10.0.0.2", b"beside it"))
        world.run(0.1)
        assert len(victim.table.sessions) <= 2 + MOST_RETIRED + 16
    burst, rate = SHARES[0]
    assert begun > burst
    assert begun <= burst + rate * (SECONDS + 1)
    assert victim.drops[Drop.HANDSHAKES_PACED]
    assert len(victim.received) == SECONDS * 10


def test_pod_that_is_not_known_yet_is_served_beside_it(authority: Authority) -> None:
    world = World(1)
    attacker, victim, other = (pod(world, authority, n) for n in (1, 2, 3))
    shake_without_end(attacker, victim)
    world.run(5)
    other.send_packet(udp_packet("10.0.0.3", "10.0.0.2", b"hello"))
    world.run(1)
    assert udp_packet("10.0.0.3", "10.0.0.2", b"hello") in victim.received


def test_pod_that_everybody_refuses_does_not_burn_its_processor(authority: Authority) -> None:
    """As with a wrong clock: each packet begins a call, and each call comes to nothing."""
    world = World(1)
    refused = world.join(Authority("another").issue(Leaf(pod="r", addresses=("10.0.0.1",))))
    peers = [pod(world, authority, n) for n in range(10, 60)]
    for _ in range(SECONDS * 10):
        for peer in peers:
            refused.send_packet(udp_packet("10.0.0.1", peer.address, b"hello"))
        world.run(0.1)
    hellos = sum(len(data) == HELLO_SIZE and data[0] == 1 for data in world.carried)
    # Five attempts a call, the last after 3.75 s, and call after call; without pauses it would be hundreds.
    assert len(peers) * SECONDS <= hellos <= 1.5 * len(peers) * SECONDS


def test_calls_to_very_many_are_spread(authority: Authority) -> None:
    world = World(1)
    caller = pod(world, authority, 1)
    world.tamper = lambda _data, _from, _to: []
    for number in range(1000):
        caller.table.connect(bytes((10, 1, number >> 8, number & 255)), world.now)
    caller.settle()
    burst, rate = BUDGET
    assert caller.table.sent["hello"] == burst
    first = caller.table._calls._by_id.copy()
    world.run(1)
    begun = first.keys() | caller.table._calls._by_id.keys()
    assert burst < len(begun) <= burst + rate


def test_no_more_sessions_than_there_is_room_for(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.session.registry.MOST_SESSIONS", 3)
    world = World(1)
    hub = pod(world, authority, 1)
    for number in range(10, 15):
        peer = pod(world, authority, number)
        peer.send_packet(udp_packet(peer.address, "10.0.0.1", b"hello"))
        world.run(0.5)
    assert len(hub.table.sessions) == 3
    assert len(hub.received) == 3
    assert hub.drops[Drop.SESSIONS_FULL]
