"""What a frame shows: built by hand, byte by byte."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from proxy.verify.frames import ENTRY, MOST_ENTRIES, Watch

OWN, PEER, OTHER = (ip_address(f"10.0.0.{n}").packed for n in (1, 2, 3))
OWN6, PEER6 = (ip_address(f"fd00::{n}").packed for n in (1, 2))
PORT = 15443
OUT, BACK = b"O" * 16, b"B" * 16
GATEWAY = ip_address("192.0.2.1").packed


def watch() -> Watch:
    made = Watch((OWN, OWN6), (PEER, PEER6), PORT, ((GATEWAY, 40001),))
    made.arm(OUT, BACK)
    return made


def v4(source: bytes, destination: bytes, protocol: int, body: bytes, fragment: int = 0) -> bytes:
    size = (20 + len(body)).to_bytes(2, "big")
    head = b"\x45\0" + size + b"\0\0" + fragment.to_bytes(2, "big") + b"\x40"
    return head + bytes((protocol, 0, 0)) + source + destination + body


def v6(source: bytes, destination: bytes, following: int, body: bytes, hops: int = 64) -> bytes:
    size = len(body).to_bytes(2, "big")
    return b"\x60\0\0\0" + size + bytes((following, hops)) + source + destination + body


def udp(payload: bytes, source: int = PORT, destination: int = PORT) -> bytes:
    size = (8 + len(payload)).to_bytes(2, "big")
    return source.to_bytes(2, "big") + destination.to_bytes(2, "big") + size + b"\0\0" + payload


def see(at: Watch, packet: bytes, *, outgoing: bool = True, segment: int = 0) -> Watch:
    kind = b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd"
    frame = bytearray(12) + kind + packet + bytes(6)  # padding, as a NIC adds
    at.outside(frame, len(frame), segment, outgoing=outgoing)
    return at


def entries(at: Watch) -> list[tuple[bool, int, bytes]]:
    return list(ENTRY.iter_unpack(at.entries))


def test_super_datagram_is_cut_into_its_datagrams_and_padding_left_out() -> None:
    payload = b"".join(bytes([n]) * 100 for n in range(3)) + b"\x03" * 10

    at = see(watch(), v4(OWN, PEER, 17, udp(payload)), segment=100)

    assert entries(at) == [
        *((True, 100, bytes([n]) * 24) for n in range(3)),
        (True, 10, b"\x03" * 10 + bytes(14)),
    ]
    assert not at.tallies.clear_out


@pytest.mark.parametrize("outgoing", [True, False])
def test_sessions_datagrams_are_kept_at_addresses_and_behind_source_nat(*, outgoing: bool) -> None:
    ends = (OWN, PEER) if outgoing else (PEER, OWN)
    behind = (OWN, GATEWAY) if outgoing else (GATEWAY, OWN)
    ports = (PORT, 40001) if outgoing else (40001, PORT)
    at = watch()

    see(at, v4(*ends, 17, udp(b"\x80" * 50)), outgoing=outgoing)
    see(at, v4(*behind, 17, udp(b"\x81" * 60, *ports)), outgoing=outgoing)

    assert entries(at) == [(outgoing, 50, b"\x80" * 24), (outgoing, 60, b"\x81" * 24)]


@pytest.mark.parametrize(
    "packet",
    [
        v4(OWN, PEER, 6, bytes(20)),
        v4(OTHER, PEER, 6, bytes(20)),
        v4(OWN, PEER, 17, udp(b"x", 53)),
        v4(OWN, PEER, 17, udp(b"x" * 40), fragment=0x2000),
        v4(OWN, PEER, 17, b"\x3c\x53"),
        v4(OWN, PEER, 1, bytes(8)),
        v6(OWN6, PEER6, 58, b"\x80" + bytes(7)),
        v6(OWN6, PEER6, 58, b"\x87" + bytes(23), hops=64),
        v6(OWN6, PEER6, 44, bytes(8) + udp(b"x")),
    ],
)
def test_whatever_else_leaves_towards_the_peer_is_clear(packet: bytes) -> None:
    at = see(watch(), packet)

    assert at.tallies.clear_out == 1
    assert not at.entries
    (text,) = at.texts
    assert text.startswith("clear left: ")


def test_what_concerns_others_or_the_link_is_passed_over() -> None:
    at = watch()

    see(at, v4(OWN, OTHER, 6, bytes(20)))
    see(at, v4(OWN, GATEWAY, 17, udp(b"x", PORT, 53)))
    see(at, v6(OWN6, PEER6, 58, b"\x87" + bytes(23), hops=255))
    see(at, v4(PEER, OTHER, 6, bytes(20)), outgoing=False)

    assert at.tallies == watch().tallies
    assert not at.entries
    assert not at.texts


def test_what_anybody_could_have_sent_is_counted_apart() -> None:
    at = see(watch(), v4(PEER, OWN, 6, bytes(20)), outgoing=False)

    assert (at.tallies.clear_in, at.tallies.clear_out, at.texts) == (1, 0, {})


@pytest.mark.parametrize("canary", [OUT, BACK])
@pytest.mark.parametrize("outgoing", [True, False])
def test_canary_is_found_in_any_frame_and_strangers_are_not_named(
    canary: bytes, *, outgoing: bool
) -> None:
    at = see(watch(), v4(OTHER, OTHER, 6, bytes(20) + canary), outgoing=outgoing)
    raw = bytearray(b"\xff" * 40 + canary)
    at.outside(raw, len(raw), 0, outgoing=outgoing)

    assert (at.tallies.canaries_out, at.tallies.canaries_in) == ((2, 0) if outgoing else (0, 2))
    assert not any("10.0.0" in text for text in at.texts)


def test_nothing_is_looked_for_before_the_canaries_are_known() -> None:
    at = Watch((OWN,), (PEER,), PORT)

    see(at, v4(OWN, OTHER, 6, bytes(60)))

    assert not at.tallies.canaries_out


def test_inside_each_direction_family_and_protocol_shows_its_own_canary() -> None:
    shown = []
    for packet, outgoing in (
        (v4(OWN, PEER, 6, bytes(20) + OUT), True),
        (v4(PEER, OWN, 17, udp(BACK)), False),
        (v6(OWN6, PEER6, 17, udp(OUT)), True),
        (v6(PEER6, OWN6, 6, bytes(20) + BACK), False),
        (v4(OWN, PEER, 6, bytes(20) + BACK), True),
        (v4(OWN, PEER, 1, bytes(20) + OUT), True),
    ):
        at = watch()
        at.inside(bytearray(packet), len(packet), outgoing=outgoing)
        shown.append(at.tallies.inside)

    assert shown == [1 << 1, 1 << 2, 1 << 7, 1 << 4, 0, 0]


def test_datagrams_behind_the_bound_cost_no_memory_and_what_leaves_unjudged_is_missed() -> None:
    at = watch()
    frame, back = (v4(*ends, 17, udp(bytes(60_000))) for ends in ((OWN, PEER), (PEER, OWN)))

    for outgoing in (False, True):
        for _ in range(60):
            see(at, frame if outgoing else back, segment=60, outgoing=outgoing)

    assert len(at.entries) == 2 * MOST_ENTRIES * ENTRY.size
    assert at.tallies == replace(watch().tallies, missed=10_000)


def test_answer_to_another_port_of_the_peer_is_for_the_daemon_to_judge() -> None:
    at = see(watch(), v4(OWN, PEER, 17, udp(b"\2" * 36, PORT, 4242)))

    assert not at.tallies.clear_out
    assert entries(at) == [(True, 36, b"\2" * 24)]
