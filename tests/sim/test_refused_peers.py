"""Two whole nodes: who is refused, and what a forger of handshakes and hints gets."""

from dataclasses import replace

import pytest
from sim.nodes import (
    B6,
    PACKED_A,
    PACKED_B,
    SECRET,
    STRANGE_RECORD,
    A,
    B,
    agree,
    sealing_id,
    two,
)
from sim.world import PORT, udp_packet
from support.pki import BOTH_ENDS, HOUR, START, Authority, Leaf

from proxy.drops import Drop
from proxy.packet.icmp import error_v4, header_v4
from proxy.session.events import HandshakeRefused, SessionOpened
from proxy.session.wire import FLIGHT, HINT, Hint

WRONG_PEERS = {
    "another trust domain": (Leaf(trust_domain="bank.example"), Drop.FOREIGN_PROJECT),
    "another project": (Leaf(namespace="bank"), Drop.FOREIGN_PROJECT),
    "expired": (Leaf(ends=START + HOUR / 60), Drop.CERTIFICATE_TIME),
    "not valid yet": (Leaf(begins=START + HOUR), Drop.CERTIFICATE_TIME),
    "no purpose": (Leaf(purposes=BOTH_ENDS[:1]), Drop.CERTIFICATE_PROFILE),
    "the CA's identity": (
        Leaf(uris=["spiffe://shop.example/tencrypt/ca"]),
        Drop.CERTIFICATE_PROFILE,
    ),
    "no identity": (Leaf(uris=[]), Drop.CERTIFICATE_PROFILE),
    "another project's name": (Leaf(dns="other.bank.pod"), Drop.CERTIFICATE_PROFILE),
}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.mark.parametrize("which", [*WRONG_PEERS, "another address", "our own address"])
def test_answering_peer_with_a_wrong_certificate_is_refused(
    authority: Authority, which: str
) -> None:
    leaf, reason = WRONG_PEERS.get(which, (Leaf(addresses=("10.0.0.66",)), Drop.ADDRESS_NOT_NAMED))
    if which in WRONG_PEERS:
        leaf = replace(leaf, addresses=(B,))
    elif which == "our own address":
        leaf, reason = Leaf(addresses=(B, A)), Drop.OWN_ADDRESS
    world, a, b = two(authority)
    world.now += 120
    b.credential = authority.issue(leaf)
    b.start()
    a.send_packet(udp_packet(A, B, SECRET))
    world.run(10)
    assert a.drops[reason] >= 1
    assert not a.table.sessions
    assert not b.table.sessions
    assert b.received == []


@pytest.mark.parametrize("which", [*WRONG_PEERS, "our own address"])
def test_calling_peer_with_a_wrong_certificate_is_refused_and_hears_of_it(
    authority: Authority, which: str
) -> None:
    leaf, reason = WRONG_PEERS.get(which, (Leaf(), Drop.OWN_ADDRESS))
    leaf = replace(leaf, addresses=(B, A) if which == "our own address" else (B,))
    world, a, b = two(authority)
    world.now += 120
    b.credential = authority.issue(leaf)
    # B believes itself to be in order: it calls.
    mistaken = replace(b.credential.own, addresses=frozenset({PACKED_B}))
    b.credential = replace(b.credential, own=mistaken)
    b.start()
    b.send_packet(udp_packet(B, A, SECRET))
    world.run(10)
    assert a.drops[reason] >= 1
    assert a.received == []
    assert not a.table.sessions
    assert not b.table.sessions
    assert b.drops[Drop.PEER_REFUSED] >= 1


def test_peer_of_another_authority_is_refused(authority: Authority) -> None:
    world, a, b = two(authority)
    b.credential = Authority("somebody else's").issue(Leaf(pod="b", addresses=(B, B6)))
    b.start()
    a.send_packet(udp_packet(A, B, SECRET))
    world.run(10)
    assert a.drops[Drop.UNTRUSTED] >= 1
    assert not a.table.sessions


def test_peer_with_foreign_source_is_refused(authority: Authority) -> None:
    world, a, b = two(authority)
    a.outbound._own = frozenset({PACKED_A, b"\x0a\0\0\x09"})
    a.send_packet(udp_packet(A, B, b"mine"))
    world.run(1)
    a.send_packet(udp_packet("10.0.0.9", B, b"not mine"))
    world.run(1)
    assert b.received == [udp_packet(A, B, b"mine")]
    assert b.drops[Drop.FOREIGN_SOURCE] == 1


def test_peer_with_foreign_destination_is_refused(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"yours"))
    world.run(1)
    a.table.current[b"\x0a\0\0\x09"] = a.table.current[PACKED_B]
    a.send_packet(udp_packet(A, "10.0.0.9", b"not yours"))
    world.run(1)
    assert b.received == [udp_packet(A, B, b"yours")]
    assert b.drops[Drop.FOREIGN_DESTINATION] == 1


def test_peer_that_tells_of_a_packet_to_somebody_else_is_refused(authority: Authority) -> None:
    """An ICMP error changes the path to whoever its quote names: only the peer's own."""
    world, a, b = two(authority)
    for named in (B, "10.0.0.3"):
        quoted = error_v4(memoryview(udp_packet(A, named, b"sent by A")), 3, 4, 600)
        assert quoted is not None
        b.send_packet(
            header_v4(memoryview(udp_packet(A, B, b"")), 1, len(quoted) - 20) + quoted[20:]
        )
        world.run(1)
    (received,) = a.received
    assert PACKED_A + PACKED_B in received[28:]
    assert a.drops[Drop.FOREIGN_QUOTE] == 1


@pytest.mark.parametrize("at", [4, 8, 16, 44, 48, 57, 59, 60, 700])
@pytest.mark.parametrize("victim", [A, B])
def test_altering_a_flight_spoils_that_attempt_and_ends_no_session(
    authority: Authority, at: int, victim: str
) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"before"))
    world.run(1)
    before = sealing_id(a, PACKED_B)

    def alter(data: bytes, source: str, _to: str) -> list[bytes]:
        if data[0] != FLIGHT or source != victim or len(data) <= at:
            return [data]
        return [data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]]

    world.tamper = alter
    a.table.connect(PACKED_B, world.now)
    a.settle()
    world.run(20)
    a.send_packet(udp_packet(A, B, b"after"))
    b.send_packet(udp_packet(B, A, b"after"))
    world.run(1)
    assert b.received[-1] == udp_packet(A, B, b"after")
    assert a.received[-1] == udp_packet(B, A, b"after")
    assert agree(a, b)
    if at not in {57, 59}:  # another offset or acknowledgement only delays
        assert sealing_id(a, PACKED_B) == before


def test_forged_hint_starts_a_handshake_at_most_and_rarely(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(2)
    session = a.table.current[PACKED_B]
    for _ in range(100):
        genuine = Hint(session.peer_index, session.sealer.counter).encode()
        a.receive(genuine, (B, PORT))
        a.receive(Hint(session.peer_index, 1 << 50).encode(), (B, PORT))
        a.receive(Hint(session.peer_index ^ 1, 1).encode(), (B, PORT))
    assert session.index in a.table.sessions
    world.run(1)
    opened = [event for event in a.events if isinstance(event, SessionOpened)]
    assert len(opened) == 2
    assert a.drops[Drop.HINT] == 299
    assert agree(a, b)


def test_hint_never_answers_a_hint(authority: Authority) -> None:
    world, a, _ = two(authority)
    a.receive(Hint(5, 5).encode(), (B, PORT))
    world.run(1)
    assert not [data for data in world.carried if data[0] == HINT]
    a.receive(STRANGE_RECORD, (B, PORT))
    assert [data[0] for data in world.carried] == [HINT]


def test_hints_are_few_however_many_strange_records_come(authority: Authority) -> None:
    world, a, _ = two(authority)
    for _ in range(1000):
        a.receive(STRANGE_RECORD, (B, PORT))
    assert len(world.carried) == 4
    a.receive(STRANGE_RECORD, ("10.0.0.3", PORT))
    assert len(world.carried) == 5


def test_late_copy_of_a_finished_handshake_begins_no_other(authority: Authority) -> None:
    world, a, b = two(authority)
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(1)
    flights = [data for data in world.carried if data[0] == FLIGHT]
    before = len(world.carried)
    for data in flights:
        b.receive(data, (A, PORT))
    assert len(world.carried) == before
    assert b.drops[Drop.UNKNOWN_HANDSHAKE] == len(flights)


def test_captured_flight_from_another_address_makes_no_state(authority: Authority) -> None:
    world, a, b = two(authority)
    world.tamper = lambda data, _from, to: [data] if data[0] != FLIGHT or to != B else []
    a.send_packet(udp_packet(A, B, b"hello"))
    world.run(0.05)
    captured = next(data for data in world.carried if data[0] == FLIGHT)
    b.receive(captured, ("10.0.0.3", PORT))
    assert b.drops[Drop.COOKIE] == 1
    assert not b.table._answers._half_open


def test_refused_handshake_is_told_by_reason(authority: Authority) -> None:
    world, a, b = two(authority)
    b.credential = authority.issue(Leaf(pod="b", namespace="bank", addresses=(B,)))
    b.start()
    a.send_packet(udp_packet(A, B, SECRET))
    world.run(1)
    refused = next(event for event in a.events if isinstance(event, HandshakeRefused))
    assert refused.refusal.reason is Drop.FOREIGN_PROJECT
    assert "spiffe://shop.example/ns/bank/sa/web" in refused.refusal.detail
