"""Signed lists among whole nodes: who cannot reach the CA has the newest from a peer, and liars gain nothing."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from sim.nodes import PACKED_A, PACKED_B, A, B
from sim.world import Node, Weather, World, udp_packet
from support.pki import START, Authority, Leaf
from support.rosters import Lists, make_roster

from ca.lists import RosterEntry
from proxy.credentials.roster import HeldRoster
from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.lists.exchange import LAG, PATIENCE
from proxy.lists.messages import Part, Version
from proxy.session.events import ListsHeard
from proxy.session.session import RENEW_AFTER
from proxy.session.wire import LISTS

C = "10.0.0.3"
NOW = START.timestamp() + 100


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def ca() -> Lists:
    return Lists(NOW)


def pods(
    authority: Authority, ca: Lists, weather: Weather | None = None
) -> tuple[World, list[Node]]:
    """Return pods a, b and c that believe both roots, and have sessions a with b, and b with c."""
    world = World(1, weather)
    nodes = []
    for name, address in (("a", A), ("b", B), ("c", C)):
        credential = authority.issue(Leaf(pod=name, addresses=(address,)))
        roots = (authority.root, ca.issuer.root)
        nodes.append(world.join(replace(credential, roots=roots)))
    a, b, _ = nodes
    a.send_packet(udp_packet(A, B, b"hello"))
    b.send_packet(udp_packet(B, C, b"hello"))
    world.run(6)
    assert PACKED_B in a.table.current
    return world, nodes


def envelope(ca: Lists, version: int, pods: int = 2, issued: float = NOW) -> bytes:
    entries = tuple(
        RosterEntry(f"web-{n}", "web", (ip_address("10.1.0.0") + n,), int(NOW) + 3600)
        for n in range(pods)
    )
    return ca.sign(make_roster(issued, version=version, entries=entries))


def version(node: Node) -> int:
    return node.roster.age_key[0]


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_pod_that_cannot_reach_the_ca_gets_the_newer_roster_from_its_peer(
    authority: Authority, ca: Lists, loss: float
) -> None:
    world, (a, b, _) = pods(authority, ca)
    world.weather = Weather(loss=loss, duplication=loss, jitter=0.01)
    b.take_list(envelope(ca, 1))
    newer = envelope(ca, 2, pods=100)
    a.take_list(newer)
    world.run(30)
    assert version(b) == 2
    assert b.roster.envelope == newer


def test_roster_goes_on_from_peer_to_peer_and_each_piece_is_sealed(
    authority: Authority, ca: Lists
) -> None:
    world, (a, _, c) = pods(authority, ca)
    a.take_list(envelope(ca, 2))
    world.run(10)
    assert version(c) == 2
    assert not any(b"payload" in data for data in world.carried)


def test_pod_that_starts_anew_hears_of_the_roster_when_its_session_opens(
    authority: Authority, ca: Lists
) -> None:
    world, (a, b, _) = pods(authority, ca)
    a.take_list(envelope(ca, 2))
    world.run(5)
    b.start()
    b.send_packet(udp_packet(B, A, b"hello again"))
    world.run(5)
    assert version(b) == 2


def test_announcement_that_was_lost_is_made_up_for_at_the_next_session(
    authority: Authority, ca: Lists
) -> None:
    world, (a, b, _) = pods(authority, ca)
    world.weather = Weather(loss=1.0)
    a.take_list(envelope(ca, 2))
    world.run(1)
    world.weather = Weather()
    world.run(5)
    assert version(b) == 0
    world.run(RENEW_AFTER + 10)
    assert version(b) == 2


def test_large_roster_arrives_within_half_a_minute_and_packets_flow_meanwhile(
    authority: Authority, ca: Lists
) -> None:
    world, (a, b, _) = pods(authority, ca)
    a.take_list(envelope(ca, 2, pods=6000))
    b.received.clear()
    for _ in range(30):
        a.send_packet(udp_packet(A, B, b"meanwhile"))
        world.run(1)
    assert version(b) == 2
    assert len(b.received) == 30


def test_fresh_signature_of_a_known_version_reaches_who_has_an_old_one(
    authority: Authority, ca: Lists
) -> None:
    world, (a, b, _) = pods(authority, ca)
    b.take_list(envelope(ca, 1, issued=NOW - LAG))
    a.take_list(envelope(ca, 1))
    world.run(5)
    assert b.roster.age_key == (1, int(NOW))


def test_forged_roster_of_a_peer_is_refused_and_the_good_one_stays(
    authority: Authority, ca: Lists
) -> None:
    world, (a, b, _) = pods(authority, ca)
    good = envelope(ca, 1)
    b.take_list(good)
    world.run(5)
    # The peer is a member with a certificate: it believes another signer, and tells of what that signed.
    other = Lists(NOW)
    a.credential = replace(a.credential, roots=(authority.root, other.issuer.root))
    a.roster = HeldRoster()
    a.take_list(envelope(other, 9))
    world.run(10)
    assert b.roster.envelope == good
    assert b.drops[Drop.ROSTER] == 1
    b.take_list(envelope(ca, 2))
    assert version(b) == 2


def test_older_roster_that_is_told_of_as_newer_is_refused(authority: Authority, ca: Lists) -> None:
    world, (a, b, _) = pods(authority, ca)
    b.take_list(envelope(ca, 2))
    world.run(5)
    old = envelope(ca, 1)
    session = a.table.current[PACKED_B]
    a.lists.adopted(old, 9, int(NOW), world.now)
    a.settle()
    world.run(10)
    assert session.index in a.table.sessions
    assert version(b) == 2
    assert b.drops[Drop.ROSTER] == 1
    with pytest.raises(Dropped):
        b.take_list(old)


def test_pieces_nobody_asked_for_and_noise_cost_no_session(authority: Authority, ca: Lists) -> None:
    world, (a, b, _) = pods(authority, ca)
    session = a.table.current[PACKED_B]
    for body in (Part((9, 9), 0, 9, b"x").encode(), b"", b"\xff" * 1100):
        a.table.lists(session, body, world.now)
    a.settle()
    world.run(PATIENCE + 5)
    assert version(b) == 0
    assert b.drops == {Drop.PACKET_MALFORMED: 2}
    assert PACKED_A in b.table.current


def test_lists_of_a_peer_are_told_as_they_came(authority: Authority, ca: Lists) -> None:
    world, (a, b, _) = pods(authority, ca)
    a.table.lists(a.table.current[PACKED_B], Version((1, 2)).encode(), world.now)
    a.settle()
    world.run(0.1)
    heard = [event for event in b.events if isinstance(event, ListsHeard)]
    assert [(event.session.peer.pod, event.body) for event in heard] == [
        ("a", Version((1, 2)).encode())
    ]
    assert LISTS == 7
