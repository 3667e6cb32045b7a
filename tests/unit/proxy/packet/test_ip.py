"""Inner packets: their two addresses, or one exception."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.packet.ip import parse_packet

A, B = ip_address("10.0.0.1").packed, ip_address("10.0.0.2").packed
A6, B6 = ip_address("fd00::1").packed, ip_address("fd00::2").packed


def v4(body: bytes = b"", protocol: int = 17, options: bytes = b"", fragment: int = 0) -> bytes:
    total = (20 + len(options) + len(body)).to_bytes(2, "big")
    first = bytes((0x45 + len(options) // 4, 0))
    head = first + total + b"\0\0" + fragment.to_bytes(2, "big") + bytes((64, protocol, 0, 0))
    return head + A + B + options + body


def v6(body: bytes = b"", following: int = 17) -> bytes:
    return b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((following, 64)) + A6 + B6 + body


def reason(packet: bytes) -> Drop | None:
    try:
        parse_packet(memoryview(packet))
    except Dropped as dropped:
        return dropped.reason
    return None


@pytest.mark.parametrize("protocol", [1, 6, 17, 132, 253])
def test_addresses_of_any_protocol(protocol: int) -> None:
    assert parse_packet(memoryview(v4(b"\x08body", protocol))) == (A, B)
    assert parse_packet(memoryview(v6(b"\x08body", protocol))) == (A6, B6)


def test_fragments_pass_whole_or_later() -> None:
    assert reason(v4(b"later", 17, fragment=0x2001)) is None
    assert reason(v6(bytes((17, 0, 0x05, 0xA0)) + bytes(4) + b"later", 44)) is None


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        bytes(40),
        v4() + b"trailing",
        v4(b"cut")[:-1],
        b"\x44" + v4()[1:],
        b"\x4f" + v4()[1:],
        v6() + b"trailing",
        v6(b"cut")[:-1],
        v6(b"\x11", 0),
        v6(bytes((0, 0, 0, 0, 0, 0, 0, 0)) * 9, 0),
        v4(options=bytes((7, 1, 0, 0))),
    ],
)
def test_malformed_packet_is_refused(packet: bytes) -> None:
    assert reason(packet) is Drop.PACKET_MALFORMED


@pytest.mark.parametrize(
    "packet",
    [
        v4(options=bytes((131, 3, 4, 0))),
        v4(options=bytes((1, 137, 3, 4))),
        v4(b"\x05\0\0\0", protocol=1),
        v6(bytes((17, 0)) + bytes(6), 43),
        v6(bytes((137,)) + bytes(7), 58),
        v6(bytes((135,)) + bytes(7), 58),
        v6(bytes((58, 0)) + bytes(6) + bytes((136,)), 60),
    ],
)
def test_packet_that_would_steer_a_link_is_refused(packet: bytes) -> None:
    assert reason(packet) is Drop.PACKET_FORBIDDEN


@given(
    st.one_of(
        st.binary(max_size=120),
        st.binary(max_size=60).map(lambda n: v4()[:20] + n),
        st.binary(max_size=60).map(lambda n: v6(n, 0)),
    )
)
def test_noise_raises_nothing_but_dropped(packet: bytes) -> None:
    reason(packet)
