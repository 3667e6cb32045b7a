"""The client's splitting of super-packets against segmentation done byte by byte."""

import random
from ipaddress import ip_address
from typing import Final

import pytest
from independent.packets import packets_of, unfinished
from independent.records import Dropped
from support.segmentation import CWR, FIN, PSH, TCP, UDP, Connection

MTU: Final = 1408
PAIRS: Final = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}


def connection(version: int, protocol: int, options: bytes = b"") -> Connection:
    source, destination = (ip_address(address).packed for address in PAIRS[version])
    return Connection(source, destination, protocol, options=options)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(("length", "size"), [(3000, 1000), (3001, 1000), (2, 1), (12_800, 100)])
def test_a_super_packet_is_the_packets_that_segmentation_makes(
    version: int, protocol: int, length: int, size: int
) -> None:
    flow = connection(version, protocol, b"\1" * 12 if protocol == TCP else b"")
    payload = random.Random(length).randbytes(length)
    every = 0x10 | FIN | PSH | CWR
    body = unfinished(flow.packet(payload, flags=every))
    assert packets_of(body, 1, size, MTU) == flow.segments(payload, size, every)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("length", [0, 1, 60_000])
def test_an_unfinished_checksum_is_finished(version: int, protocol: int, length: int) -> None:
    packet = connection(version, protocol).packet(random.Random(length).randbytes(length))
    assert unfinished(packet) != packet
    assert packets_of(unfinished(packet), 1, 0, MTU) == [packet]


def test_segments_may_fill_the_mtu_and_no_more() -> None:
    body = unfinished(connection(4, UDP).packet(bytes(3000)))
    assert {len(packet) for packet in packets_of(body, 1, MTU - 8, MTU)} == {MTU + 20, 228}
    with pytest.raises(Dropped):
        packets_of(body, 1, MTU - 7, MTU)
