"""ECN: the checksum stays right, nothing else of a packet changes. Who wins: tests/sim/test_paths.py."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from proxy.packet.ecn import CE, NOT_ECT, combine, decapsulate, inner_ecn


def naive_checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4_header(tos: int, identification: int, source: int) -> bytearray:
    header = bytearray(b"\x45" + bytes((tos,)) + b"\0\x14" + identification.to_bytes(2, "big"))
    header += b"\0\0\x40\x11\0\0" + ip_address(source).packed + ip_address("10.0.0.2").packed
    header[10:12] = naive_checksum(bytes(header)).to_bytes(2, "big")
    return header


@given(st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 3))
def test_ipv4_checksum_is_right_after_any_mark(
    tos: int, identification: int, source: int, outer: int
) -> None:
    header = ipv4_header(tos, identification, source)
    before = bytes(header)
    if outer == CE and tos & 3 == NOT_ECT:
        return
    decapsulate(memoryview(header), outer)
    assert naive_checksum(bytes(header)) == 0
    assert header[1] >> 2 == tos >> 2
    assert header[2:10] + header[12:] == before[2:10] + before[12:]


@given(st.integers(0, 255), st.integers(0, 0xFFFFF), st.integers(1, 3))
def test_ipv6_keeps_dscp_and_flow_label(traffic_class: int, label: int, outer: int) -> None:
    first = 6 << 28 | traffic_class << 20 | label
    packet = bytearray(first.to_bytes(4, "big") + bytes(36))
    if outer == CE and traffic_class & 3 == NOT_ECT:
        return
    decapsulate(memoryview(packet), outer)
    after = int.from_bytes(packet[:4], "big")
    assert after & ~(3 << 20) == first & ~(3 << 20)
    assert after >> 20 & 3 == inner_ecn(memoryview(packet))


def test_one_marked_datagram_marks_its_record() -> None:
    for other in range(4):
        assert combine(CE, other) == combine(other, CE) == CE
        assert combine(other, other) == other
