"""Super-packets: what the virtio header says becomes two numbers and comes back; cutting is what the RFCs say."""

import random
from contextlib import suppress
from ipaddress import ip_address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.segmentation import CWR, FIN, PSH, TCP, UDP, Connection, ones_sum

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.packet.checksum import CHECKSUM_AT, checksum, complete, pseudo_header
from proxy.packet.segments import alone, cut, split
from proxy.packet.transport import find_transport
from proxy.packet.virtio import UNFINISHED, VNET_HEADER, arrive, leave

V4 = ip_address("10.0.0.1").packed, ip_address("10.0.0.2").packed
V6 = ip_address("fd00::1").packed, ip_address("fd00::2").packed
MTU = 1408
NONE, TCPV4, TCPV6, UDP_L4, ECN = 0, 1, 4, 5, 0x80

connections = st.builds(
    Connection,
    st.just(V4[0]),
    st.just(V4[1]),
    st.sampled_from([TCP, UDP]),
    options=st.sampled_from([b"", bytes(12), bytes(40)]),
) | st.builds(Connection, st.just(V6[0]), st.just(V6[1]), st.sampled_from([TCP, UDP]))


def unfinished(packet: bytes) -> bytearray:
    """Return a packet as a kernel with checksum offload has it: the sum of the pseudo-header in the field."""
    made = bytearray(packet)
    found = find_transport(memoryview(made))
    assert found is not None
    where = found[1] + CHECKSUM_AT[found[0]]
    total = pseudo_header(memoryview(made), found[0], len(made) - found[1])
    made[where : where + 2] = total.to_bytes(2, "big")
    return made


def frame(packet: bytes | bytearray, kind: int = NONE, size: int = 0, flags: int = 1) -> bytearray:
    found = find_transport(memoryview(packet))
    start, at = (found[1], CHECKSUM_AT[found[0]]) if found else (0, 0)
    return bytearray(pack("=BBHHHH", flags, kind, 0, size, start, at) + packet)


def kind_of(packet: bytes | bytearray, *, ecn: bool = False) -> int:
    if packet[9 if packet[0] >> 4 == 4 else 6] == UDP:
        return UDP_L4
    return (TCPV4 if packet[0] >> 4 == 4 else TCPV6) | ECN * ecn


def finished(packet: bytes | bytearray) -> bytes:
    """Return a packet whose checksum its kernel finishes."""
    made = bytearray(packet)
    found = find_transport(memoryview(made))
    assert found is not None
    complete(memoryview(made), found[1], CHECKSUM_AT[found[0]])
    return bytes(made)


@given(data=st.binary(max_size=3001))
def test_checksum_is_that_of_the_naive_sum(data: bytes) -> None:
    assert checksum(data) == ones_sum(data)


@given(
    connection=connections,
    size=st.integers(1, 1300),
    count=st.integers(2, 45),
    most=st.integers(1, 45),
    flags=st.sampled_from([0x10, 0x10 | FIN | PSH, 0x10 | CWR, 0x10 | CWR | PSH]),
    seed=st.integers(),
)
def test_cutting_makes_the_packets_of_naive_segmentation(
    *, connection: Connection, size: int, count: int, most: int, flags: int, seed: int
) -> None:
    payload = random.Random(seed).randbytes(size * (count - 1) + 1 + seed % size)
    naive = connection.segments(payload, size, flags)
    whole = unfinished(connection.packet(payload, 0, flags))
    found = find_transport(memoryview(whole))
    assert found is not None
    cut: list[bytes] = []
    for part, part_size in split(memoryview(whole), found, size, most):
        assert len(part) - found[2] <= most * size
        if part_size:
            # What is still a super-packet is cut further, as the kernel would.
            inner = split(memoryview(part), found, part_size, 1)
            cut += [finished(one) for one, _ in inner]
        else:
            cut.append(finished(part))
    assert cut == naive


@given(connection=connections, size=st.integers(30, 1300), count=st.integers(2, 45))
def test_super_packet_keeps_its_header_from_kernel_to_kernel(
    connection: Connection, size: int, count: int
) -> None:
    packet = unfinished(connection.packet(bytes(size * count), 0, 0x10 | CWR))
    kind = kind_of(packet, ecn=True)
    assert leave(memoryview(frame(packet, kind, size))) == (UNFINISHED, size)
    found = find_transport(memoryview(packet))
    assert found is not None
    expected = pack("=BBHHHH", 1, kind, found[2], size, found[1], CHECKSUM_AT[found[0]])
    assert arrive(memoryview(packet), UNFINISHED, size, MTU) == (expected, count)


@given(connection=connections, payload=st.binary(max_size=1300))
def test_unfinished_checksum_is_left_to_the_receiving_kernel(
    connection: Connection, payload: bytes
) -> None:
    packet = unfinished(connection.packet(payload))
    assert leave(memoryview(frame(packet))) == (UNFINISHED, 0)
    header, count = arrive(memoryview(packet), UNFINISHED, 0, MTU)
    assert (header[0], header[1], count) == (1, NONE, 1)


@pytest.mark.parametrize("flags", [0, 2])
def test_finished_packet_needs_no_header(flags: int) -> None:
    packet = Connection(*V4, TCP).packet(b"data")
    assert leave(memoryview(frame(packet, flags=flags))) == (0, 0)
    assert arrive(memoryview(packet), 0, 0, MTU) == (bytes(VNET_HEADER), 1)


def test_checksum_that_the_receiver_could_not_finish_is_finished_here() -> None:
    """A tunnel inside the pod: the kernel leaves the inner TCP's checksum to do, not the outer header's."""
    inner = Connection(*V6, TCP)
    outer = Connection(*V4, UDP)
    packet = bytearray(outer.packet(bytes(unfinished(inner.packet(b"inner data")))))
    data = bytearray(pack("=BBHHHH", 1, NONE, 0, 0, 28 + 40, 16) + packet)
    assert leave(memoryview(data)) == (0, 0)
    assert data[VNET_HEADER + 28 :] == inner.packet(b"inner data")


def test_zero_checksum_of_udp_is_written_as_ones() -> None:
    """RFC 768: zero would say that there is none."""
    connection = Connection(*V4, UDP)
    plain = connection.packet(bytes(2))
    total = int.from_bytes(plain[26:28], "big")
    payload = total.to_bytes(2, "big")
    whole = connection.packet(payload)
    assert whole[26:28] == b"\xff\xff"
    assert finished(unfinished(whole)) == whole


@pytest.mark.parametrize(
    ("start", "at"),
    [(65_535, 16), (0, 65_535), (40, 16), (60_000, 0), (0, 12), (0, 16), (2, 14), (19, 0)],
    ids=str,
)
def test_checksum_outside_the_payload_is_refused(start: int, at: int) -> None:
    packet = Connection(*V4, TCP).packet(b"data")
    data = bytearray(pack("=BBHHHH", 1, NONE, 0, 0, start, at) + packet)
    assert refused(lambda: leave(memoryview(data))) is Drop.PACKET_MALFORMED


@pytest.mark.parametrize(
    ("flags", "kind", "size"), [(0, TCPV4, 1000), (1, TCPV4, 0), (2, TCPV4, 1000)], ids=str
)
def test_super_packet_whose_header_is_wrong_is_refused(flags: int, kind: int, size: int) -> None:
    packet = unfinished(Connection(*V4, TCP).packet(bytes(3000)))
    data = memoryview(frame(packet, kind, size, flags))
    assert refused(lambda: leave(data)) is Drop.PACKET_MALFORMED


@pytest.mark.parametrize("flags", [0x02, 0x12, 0x04, 0x14])
def test_super_packet_that_begins_or_resets_a_connection_is_refused(flags: int) -> None:
    """Else one record would hold a handshake's segment and 60 KB behind it."""
    packet = unfinished(Connection(*V4, TCP).packet(bytes(3000), 0, flags))
    assert refused(lambda: leave(memoryview(frame(packet, TCPV4, 1000)))) is Drop.PACKET_MALFORMED
    assert (
        refused(lambda: arrive(memoryview(packet), UNFINISHED, 1000, MTU)) is Drop.PACKET_MALFORMED
    )


@pytest.mark.parametrize("kind", [2, 3, UDP_L4, TCPV6, 6])
def test_super_packet_of_another_type_than_its_packet_is_refused(kind: int) -> None:
    packet = unfinished(Connection(*V4, TCP).packet(bytes(3000)))
    assert refused(lambda: leave(memoryview(frame(packet, kind, 1000)))) is Drop.PACKET_MALFORMED


def test_super_packet_of_one_segment_is_an_ordinary_packet() -> None:
    packet = unfinished(Connection(*V4, TCP).packet(bytes(1000)))
    assert leave(memoryview(frame(packet, TCPV4, 1000))) == (UNFINISHED, 0)


@pytest.mark.parametrize("size", [1, 23, 3000, 3001, MTU - 39, 65_535])
def test_segments_too_many_too_few_or_too_large_are_refused(size: int) -> None:
    packet = memoryview(unfinished(Connection(*V4, TCP).packet(bytes(3000))))
    assert refused(lambda: arrive(packet, UNFINISHED, size, MTU)) is Drop.PACKET_MALFORMED


@pytest.mark.parametrize(
    ("size", "start"),
    [(1, 48), (22, 48), (1000, 0), (1000, 40), (1000, 47), (1000, 65_535)],
    ids=str,
)
def test_super_packet_behind_extension_headers_is_cut_within_bounds(size: int, start: int) -> None:
    packet = bytearray(Connection(*V6, TCP).packet(bytes(3000)))
    options = bytes((TCP, 0, 1, 4, 0, 0, 0, 0))
    whole = packet[:4] + (len(packet) - 32).to_bytes(2, "big") + b"\x3c" + packet[7:40] + options
    data = memoryview(
        bytearray(pack("=BBHHHH", 1, TCPV6, 0, size, start, 16)) + whole + packet[40:]
    )
    assert leave(data) == (0, size)
    assert refused(lambda: list(alone(data))) is Drop.PACKET_MALFORMED


@pytest.mark.parametrize("size", [24, MTU - 40])
def test_segments_at_the_bounds_are_taken(size: int) -> None:
    packet = memoryview(unfinished(Connection(*V4, TCP).packet(bytes(3000))))
    header, count = arrive(packet, UNFINISHED, size, MTU)
    assert (header[1], count) == (TCPV4, -(-3000 // size))


@given(connection=connections, size=st.integers(30, 1300), count=st.integers(2, 45))
def test_frame_that_the_kernel_does_not_take_is_cut_into_frames_that_it_takes(
    connection: Connection, size: int, count: int
) -> None:
    payload = bytes(range(256)) * (size * count // 256 + 1)
    payload = payload[: size * count]
    packet = unfinished(connection.packet(payload))
    header, _ = arrive(memoryview(packet), UNFINISHED, size, MTU)
    frames = list(cut(memoryview(header + packet)))
    assert [finished(one[VNET_HEADER:]) for one in frames] == connection.segments(payload, size)
    assert all(leave(memoryview(bytearray(one))) == (UNFINISHED, 0) for one in frames)


def test_single_packet_is_not_cut() -> None:
    packet = Connection(*V4, TCP).packet(bytes(100))
    assert not list(cut(memoryview(bytes(VNET_HEADER) + packet)))


def refused(call: object) -> Drop:
    assert callable(call)
    with pytest.raises(Dropped) as caught:
        call()
    return caught.value.reason


@given(data=st.binary(min_size=VNET_HEADER + 20, max_size=200), size=st.integers(0, 65_535))
def test_noise_raises_nothing_but_dropped(data: bytes, size: int) -> None:
    for version in (0x45, 0x60):
        packet = bytearray(data)
        packet[VNET_HEADER] = version
        for attempt in (
            lambda p=packet: leave(memoryview(p)),
            lambda p=packet: arrive(memoryview(p)[VNET_HEADER:], p[0], size, MTU),
        ):
            with suppress(Dropped):
                attempt()
