"""What tells a sender that its packet was refused: believed by its kernel, and never an answer to an answer."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.segmentation import TCP, UDP, Connection, ones_sum

from proxy.packet.ip import parse_packet
from proxy.packet.refusal import refuse

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
A6, B6 = bytes.fromhex("fd00" + 14 * "00"), bytes.fromhex("fd00" + 13 * "00" + "02")
FAMILIES = [(A, B), (A6, B6)]
FIN, SYN, RST, ACK = 1, 2, 4, 16


def ip(source: bytes, destination: bytes, protocol: int, body: bytes, fragment: int = 0) -> bytes:
    if len(source) == 16:
        head = b"\x60\0\0\0" + struct.pack(">HBB", len(body), protocol, 64)
        return head + source + destination + body
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 7, fragment, 64, protocol, 0)
    return head + source + destination + body


def segment(  # noqa: PLR0917 - of a header
    source: bytes, destination: bytes, sequence: int, acknowledged: int, flags: int, payload: bytes
) -> bytes:
    tcp = struct.pack(">HHIIBBHHH", 4000, 80, sequence, acknowledged, 5 << 4, flags, 1, 0, 0)
    return ip(source, destination, TCP, tcp + payload)


def upper_of(answer: bytes, protocol: int) -> bytes:
    """Return what a whole packet carries, its checksums being right."""
    if answer[0] >> 4 == 4:
        assert answer[9] == protocol
        assert ones_sum(answer[:20]) == 0
        pseudo, upper = answer[12:20], answer[20:]
    else:
        assert answer[6] == protocol
        pseudo, upper = answer[8:40], answer[40:]
    if protocol != 1:
        pseudo += len(upper).to_bytes(4, "big") + protocol.to_bytes(4, "big")
        assert ones_sum(pseudo + upper) == 0
    else:
        assert ones_sum(upper) == 0
    return upper


NUMBERS = st.integers(0, 0xFFFF_FFFF)


@given(
    st.sampled_from(FAMILIES),
    NUMBERS,
    NUMBERS,
    st.sampled_from([SYN, SYN | ACK, ACK, ACK | FIN, FIN, 0, SYN | FIN]),
    st.binary(max_size=9),
)
def test_a_refusal_of_tcp_is_a_reset_that_its_sender_believes(
    ends: tuple[bytes, bytes], sequence: int, acknowledged: int, flags: int, payload: bytes
) -> None:
    packet = segment(*ends, sequence, acknowledged, flags, payload)
    answer = refuse(memoryview(packet))
    assert answer is not None
    assert parse_packet(memoryview(answer)) == ends[::-1]
    tcp = upper_of(answer, TCP)
    sport, dport, number, acked, offset, said = struct.unpack_from(">HHIIBB", tcp)
    assert (sport, dport, offset >> 4, len(tcp)) == (80, 4000, 5, 20)
    if flags & ACK:
        # RFC 9293 3.10.7.4 and RFC 5961 3.2: exactly the next number that the sender waits for.
        assert (number, said) == (acknowledged, RST)
    else:
        # RFC 9293 3.10.7.3: in SYN-SENT a reset must acknowledge the SYN, and nothing that was not sent.
        sent = len(payload) + bool(flags & SYN) + bool(flags & FIN)
        assert (number, acked, said) == (0, (sequence + sent) % 2**32, RST | ACK)


@pytest.mark.parametrize("ends", FAMILIES)
def test_a_reset_is_not_answered(ends: tuple[bytes, bytes]) -> None:
    for flags in (RST, RST | ACK):
        assert refuse(memoryview(segment(*ends, 1, 2, flags, b""))) is None


@pytest.mark.parametrize("size", [0, 20, 3000])
@pytest.mark.parametrize(
    ("ends", "wanted", "most"), [((A, B), (1, 3, 13), 576), ((A6, B6), (58, 1, 1), 1280)]
)
def test_a_refusal_of_anything_else_is_icmp_prohibited_and_quotes_what_fits(
    ends: tuple[bytes, bytes], wanted: tuple[int, int, int], most: int, size: int
) -> None:
    packet = Connection(*ends, UDP).packet(bytes(size))
    answer = refuse(memoryview(packet))
    assert answer is not None
    assert parse_packet(memoryview(answer)) == ends[::-1]
    icmp = upper_of(answer, wanted[0])
    assert (icmp[0], icmp[1]) == wanted[1:]
    assert packet.startswith(icmp[8:])
    assert len(answer) == min(most, len(answer) - len(icmp) + 8 + len(packet))


@pytest.mark.parametrize("kind", [3, 4, 11, 12])
def test_an_icmp_error_is_not_answered(kind: int) -> None:
    assert refuse(memoryview(ip(A, B, 1, bytes((kind, 0)) + bytes(40)))) is None


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 127])
@pytest.mark.parametrize("extensions", [0, 1, 2])
def test_an_icmpv6_error_is_not_answered_wherever_it_lies(kind: int, extensions: int) -> None:
    body = bytes((kind, 0)) + bytes(40)
    following = 58
    for _ in range(extensions):
        body, following = bytes((following, 0, 1, 4)) + bytes(4) + body, 60
    assert refuse(memoryview(ip(A6, B6, following, body))) is None


@pytest.mark.parametrize("ends", FAMILIES)
def test_of_a_packet_in_fragments_the_first_alone_is_answered(ends: tuple[bytes, bytes]) -> None:
    def fragment(offset: int) -> memoryview:
        body = bytes(24)
        if len(ends[0]) == 4:
            return memoryview(ip(*ends, UDP, body, 0x2000 | offset))
        return memoryview(ip(*ends, 44, struct.pack(">BBHI", UDP, 0, offset << 3 | 1, 7) + body))

    assert refuse(fragment(0)) is not None
    assert refuse(fragment(1)) is None
    assert refuse(fragment(185)) is None


@pytest.mark.parametrize(("ends", "soft"), [((A, B), (1, 3, 1)), ((A6, B6), (58, 1, 0))])
def test_an_open_connection_is_not_ended_by_what_passes_and_one_that_begins_is(
    ends: tuple[bytes, bytes], soft: tuple[int, int, int]
) -> None:
    for flags in (ACK, SYN | ACK, FIN | ACK):
        packet = segment(*ends, 1, 2, flags, b"text")
        answer = refuse(memoryview(packet), passes=True)
        assert answer is not None
        icmp = upper_of(answer, soft[0])
        assert (icmp[0], icmp[1]) == soft[1:]
        assert packet.startswith(icmp[8:])
    begins = memoryview(segment(*ends, 1, 0, SYN, b""))
    assert refuse(begins, passes=True) == refuse(begins)
    question = memoryview(Connection(*ends, UDP).packet(b"question"))
    assert refuse(question, passes=True) == refuse(question)
