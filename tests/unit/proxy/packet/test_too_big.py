"""ICMP errors that we write ourselves: whole, with right checksums, and never about an error."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.packet.ip import parse_packet
from proxy.packet.too_big import may_split, too_big

A, B = ip_address("10.0.0.1").packed, ip_address("10.0.0.2").packed
A6, B6 = ip_address("fd00::1").packed, ip_address("fd00::2").packed


def ipv4(protocol: int, body: bytes, *, flags: int = 0x40, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = bytes((0x40 | words, 0)) + (words * 4 + len(body)).to_bytes(2, "big") + b"\0\0"
    return head + bytes((flags, 0, 64, protocol, 0, 0)) + A + B + options + body


def ipv6(following: int, body: bytes) -> bytes:
    return b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((following, 64)) + A6 + B6 + body


def naive_sum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(max_size=1500), st.integers(1156, 1400))
def test_ipv4_error_is_a_whole_packet_from_the_destination(body: bytes, fits: int) -> None:
    packet = ipv4(17, body)
    error = too_big(memoryview(packet), fits)
    assert error is not None
    assert parse_packet(memoryview(error)) == (B, A)
    assert naive_sum(error[:20]) == naive_sum(error[20:]) == 0xFFFF
    assert error[20:22] == bytes((3, 4))
    assert int.from_bytes(error[26:28], "big") == fits
    assert packet.startswith(error[28:])
    assert len(error) <= 576


@given(st.binary(max_size=1500), st.integers(1156, 1400))
def test_ipv6_error_never_asks_for_less_than_1280(body: bytes, fits: int) -> None:
    packet = ipv6(17, body)
    error = too_big(memoryview(packet), fits)
    assert error is not None
    assert parse_packet(memoryview(error)) == (B6, A6)
    pseudo = error[8:40] + (len(error) - 40).to_bytes(4, "big") + bytes((0, 0, 0, 58))
    assert naive_sum(pseudo + error[40:]) == 0xFFFF
    assert error[40] == 2
    assert int.from_bytes(error[44:48], "big") == max(fits, 1280)
    assert packet.startswith(error[48:])
    assert len(error) <= 1280


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(1, bytes((3, 4)) + bytes(1400)),
        ipv4(1, bytes((11, 0)) + bytes(1400)),
        ipv4(1, b""),
        ipv4(17, bytes(1400), flags=0x41),
        ipv6(58, bytes((2, 0)) + bytes(1400)),
    ],
    ids=["unreachable", "time exceeded", "ICMP without a type", "later fragment", "ICMPv6 error"],
)
def test_nothing_is_said_about_errors_and_later_fragments(packet: bytes) -> None:
    assert too_big(memoryview(packet), 1200) is None


@pytest.mark.parametrize(
    "packet", [ipv4(1, bytes((8, 0)) + bytes(1400)), ipv6(58, bytes((128, 0)) + bytes(1400))]
)
def test_ping_is_told(packet: bytes) -> None:
    assert too_big(memoryview(packet), 1200) is not None


def test_only_what_nobody_may_ask_to_be_smaller_is_split() -> None:
    assert may_split(memoryview(ipv4(17, bytes(1400), flags=0)))
    assert not may_split(memoryview(ipv4(17, bytes(1400))))
    assert may_split(memoryview(ipv6(17, bytes(1240))))
    assert not may_split(memoryview(ipv6(17, bytes(1241))))
