"""What a change of credentials does to live sessions: a new certificate, other roots, a list of the withdrawn."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sim.nodes import PACKED_A, PACKED_B, A, B, agree, sealing_id, two
from sim.world import Node, World, udp_packet
from support.pki import START, Authority, Leaf

from proxy.credentials.credential import Credential
from proxy.credentials.trust import Revocations
from proxy.drops import Drop
from proxy.session.events import CallFailed, HandshakeRefused, SessionClosed
from proxy.session.upkeep import SPREAD

PEERS = 8


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def other() -> Authority:
    return Authority("other root")


def believing(credential: Credential, *authorities: Authority) -> Credential:
    return replace(credential, roots=tuple(authority.root for authority in authorities))


def adopt(node: Node, credential: Credential) -> None:
    node.credential = credential
    node.table.adopt(credential, node.world.now)
    node.settle()


def revoke(node: Node, revoked: Revocations) -> None:
    node.table.revoke(revoked, node.world.now)
    node.settle()


def reaches(a: Node, b: Node) -> bool:
    packet = udp_packet(a.address, b.address, b"does it?")
    b.received.clear()
    a.send_packet(packet)
    a.world.run(6)
    return b.received == [packet]


def three(first: Authority, second: Authority, third: Authority) -> tuple[World, Node, Node, Node]:
    """Return pods a, b and c of these authorities, which all believe both roots, and sessions of a with both."""
    world = World(1)
    nodes = [
        world.join(
            believing(authority.issue(Leaf(pod=name, addresses=(address,))), first, second, third)
        )
        for name, address, authority in (
            ("a", "10.0.0.1", first),
            ("b", "10.0.0.2", second),
            ("c", "10.0.0.3", third),
        )
    ]
    a, b, c = nodes
    assert reaches(a, b)
    assert reaches(a, c)
    return world, a, b, c


def test_new_certificate_is_shown_to_every_peer_and_no_packet_is_lost(
    authority: Authority,
) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(1)
    former = sealing_id(a, PACKED_B)
    b.received.clear()
    newer = authority.issue(Leaf(pod="a", addresses=(A, "fd00::1")))
    adopt(a, newer)
    for _ in range(int(SPREAD) * 10 + 20):
        a.send_packet(udp_packet(A, B, b"meanwhile"))
        world.run(0.1)
    assert len(b.received) == int(SPREAD) * 10 + 20
    assert agree(a, b)
    assert sealing_id(a, PACKED_B) != former
    assert b.table.current[PACKED_A].peer.fingerprint == newer.own.fingerprint


def test_handshakes_with_a_new_certificate_are_spread(authority: Authority) -> None:
    world = World(1)
    a = world.join(authority.issue(Leaf(pod="a", addresses=(A,))))
    peers = [
        world.join(authority.issue(Leaf(pod=f"p{n}", addresses=(f"10.0.0.{n}",))))
        for n in range(10, 10 + PEERS)
    ]
    assert all(reaches(a, peer) for peer in peers)
    before = a.table.sent["hello"]
    adopt(a, authority.issue(Leaf(pod="a", addresses=(A,))))
    began: list[int] = []
    for second in range(int(SPREAD) + 1):
        world.run(1)
        began += [second] * (a.table.sent["hello"] - before - len(began))
    assert len(began) == PEERS
    assert began[-1] - began[0] > SPREAD / 2
    assert max(began.count(second) for second in began) <= 3


def test_handshake_under_way_keeps_the_certificate_it_began_with(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(0.0005)
    assert not a.table.sessions
    adopt(a, authority.issue(Leaf(pod="a", addresses=(A, "fd00::1"))))
    world.run(1)
    assert b.received == [udp_packet(A, B, b"hello")]


def test_session_of_a_handshake_that_was_under_way_is_shown_the_new_certificate_too(
    authority: Authority,
) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(0.0005)
    newer = authority.issue(Leaf(pod="a", addresses=(A, "fd00::1")))
    adopt(a, newer)
    world.run(SPREAD + 1)
    assert agree(a, b)
    assert b.table.current[PACKED_A].peer.fingerprint == newer.own.fingerprint


def test_root_beside_the_old_one_closes_nothing(authority: Authority, other: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(1)
    before = sealing_id(a, PACKED_B)
    adopt(a, believing(a.credential, authority, other))
    world.run(SPREAD + 1)
    assert sealing_id(a, PACKED_B) == sealing_id(b, PACKED_A) == before


def test_root_that_is_gone_closes_the_sessions_that_need_it_and_no_others(
    authority: Authority, other: Authority
) -> None:
    _, a, b, c = three(authority, authority, other)
    kept = sealing_id(a, PACKED_B)
    adopt(a, believing(a.credential, authority))
    assert c.packed not in a.table.current
    assert [e.why for e in a.events if isinstance(e, SessionClosed)] == [str(Drop.UNTRUSTED)]
    assert sealing_id(a, PACKED_B) == kept
    assert reaches(a, b)
    assert not reaches(c, a)
    assert not reaches(a, c)
    assert a.drops[Drop.UNTRUSTED] > 1


@pytest.mark.parametrize("by", ["certificate", "pod", "issuer"])
def test_revoked_pod_loses_its_sessions_and_gets_no_other(
    authority: Authority, other: Authority, by: str
) -> None:
    _, a, b, c = three(authority, authority, other)
    kept = sealing_id(a, PACKED_B)
    revoked = {
        "certificate": Revocations(serials=frozenset({c.credential.chain[0].serial_number})),
        "pod": Revocations(pods=frozenset({"c"})),
        "issuer": Revocations(serials=frozenset({other.root.serial_number})),
    }[by]
    revoke(a, revoked)
    assert c.packed not in a.table.current
    assert sealing_id(a, PACKED_B) == kept
    assert reaches(a, b)
    assert not reaches(c, a)
    assert not reaches(a, c)
    refusals = [e.refusal.reason for e in a.events if isinstance(e, HandshakeRefused)]
    assert Drop.REVOKED in refusals
    revoke(a, Revocations())
    assert reaches(a, c)


def test_list_that_changes_during_a_handshake_is_heeded(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    # The responder has the initiator's HELLO and first flight, not its certificate.
    world.run(0.0009)
    assert not b.table.sessions
    assert b.table._answers._half_open
    revoke(b, Revocations(pods=frozenset({"a"})))
    world.run(10)
    assert not b.received
    assert not b.table.sessions
    assert b.drops[Drop.REVOKED]


def test_renewal_on_demand_loses_nothing(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(1)
    b.received.clear()
    for turn in range(20):
        before = sealing_id(a, PACKED_B)
        renewed = a.table.renew(world.now)
        a.settle()
        assert [session.session_id for session in renewed] == [before]
        for _ in range(10):
            a.send_packet(udp_packet(A, B, turn.to_bytes(4, "big")))
            world.run(0.001)
        world.run(1)
        assert agree(a, b)
        assert sealing_id(a, PACKED_B) != before
    assert len(b.received) == 200


def test_renewal_of_one_pod_leaves_others_alone(authority: Authority) -> None:
    world, a, b, c = three(authority, authority, authority)
    kept = sealing_id(a, b.packed)
    assert [session.peer.pod for session in a.table.renew(world.now, "c")] == ["c"]
    assert a.table.renew(world.now, "nobody") == []
    a.settle()
    before = sealing_id(a, c.packed)
    world.run(1)
    assert sealing_id(a, b.packed) == kept
    assert sealing_id(a, c.packed) != before


def test_pod_whose_certificate_has_ended_neither_calls_nor_answers_until_it_has_another(
    authority: Authority,
) -> None:
    world = World(1)
    b = world.join(authority.issue(Leaf(pod="b", addresses=(B,))))
    soon = START + timedelta(seconds=world.now + 5)
    short = authority.issue(Leaf(pod="a", addresses=(A,), ends=soon))
    a = world.join(replace(short, own=replace(short.own, not_after=soon.timestamp())))
    assert reaches(a, b)
    world.run(5)
    assert not a.table.sessions
    hellos = a.table.sent["hello"]
    assert not reaches(a, b)
    assert not reaches(b, a)
    assert a.table.sent["hello"] == hellos
    assert a.table.sent["flight"]
    assert a.drops[Drop.CERTIFICATE_TIME]
    failed = [event.refusal.reason for event in a.events if isinstance(event, CallFailed)]
    assert failed == [Drop.CERTIFICATE_TIME]
    adopt(a, authority.issue(Leaf(pod="a", addresses=(A,))))
    assert reaches(b, a)
    assert reaches(a, b)


def test_session_that_ends_soon_is_gone_then_and_its_peer_hears_of_it(authority: Authority) -> None:
    """The ends may differ, for clocks do: whoever still sends must be told, not left to silence."""
    world, a, b = two(authority)
    a.table.wall_offset += 24 * 3600 - world.now - 8
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(0.1)
    a.table.sessions[next(iter(a.table.sessions))].path.due = world.now + 100
    world.run(8)
    assert not a.table.sessions
    a.table.wall_offset -= 24 * 3600
    b.send_packet(udp_packet(B, A, b"lost"))
    world.run(0.5)
    b.send_packet(udp_packet(B, A, b"found"))
    world.run(0.5)
    assert a.received == [udp_packet(B, A, b"found")]


def test_who_has_no_list_makes_no_session_either_way_and_one_that_grows_old_ends_none(
    authority: Authority,
) -> None:
    world, a, b = two(authority)
    b.table.informed_until = 0.0  # it has heard nothing yet
    assert not reaches(a, b)
    assert not reaches(b, a)
    assert b.drops[Drop.LIST_STALE]
    assert not b.table.sessions
    b.table.informed_until = world.now + 30
    assert reaches(a, b)
    world.run(40)
    assert b.table.sessions
    assert reaches(b, a)
