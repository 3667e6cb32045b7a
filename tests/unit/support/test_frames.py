"""The captures' own parser: a test that finds nothing must have been able to find it."""

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frames import FrameError, kind_of, parse_packet, parse_pcap, write_pcap

IPV4_FRAME = bytes(12) + b"\x08\x00"
IPV6_FRAME = bytes(12) + b"\x86\xdd"
frames = st.lists(st.binary(max_size=200), max_size=20)
ports = st.integers(0, 65535)


def udp(source_port: int, destination_port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def ipv4(protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0)
    return IPV4_FRAME + header + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    addresses = IPv6Address("fd00::1").packed + IPv6Address("fd00::2").packed
    return (
        IPV6_FRAME + struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload
    )


@given(frames)
def test_a_capture_file_gives_back_its_frames(held: list[bytes]) -> None:
    assert parse_pcap(write_pcap(held)) == held


@given(frames.filter(bool), st.data())
def test_a_cut_capture_file_is_refused_or_a_frame_shorter(
    held: list[bytes], data: st.DataObject
) -> None:
    whole = write_pcap(held)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with contextlib.suppress(FrameError):
        left = parse_pcap(whole[:cut])
        assert left == held[: len(left)]
        assert len(left) < len(held)


@given(st.binary(max_size=60), st.sampled_from([b"", IPV4_FRAME + b"\x45", IPV6_FRAME + b"\x60"]))
def test_only_a_frame_error_leaves_the_parsers(noise: bytes, prefix: bytes) -> None:
    for parse in (parse_packet, parse_pcap, lambda data: parse_pcap(write_pcap([])[:24] + data)):
        with contextlib.suppress(FrameError):
            parse(prefix + noise)
    assert kind_of(prefix + noise, 15443)


@given(ports, ports, st.binary(max_size=100), st.sampled_from([ipv4, ipv6]), st.binary(max_size=30))
def test_a_datagram_is_read_as_it_was_written(
    source: int, destination: int, payload: bytes, family: type, padding: bytes
) -> None:
    packet = parse_packet(family(17, udp(source, destination, payload)) + padding)
    assert packet is not None
    datagram = packet.udp()
    assert datagram is not None
    assert (datagram.source_port, datagram.destination_port) == (source, destination)
    assert datagram.payload == payload
    assert packet.source in {IPv4Address("10.0.0.1"), IPv6Address("fd00::1")}
    assert packet.destination in {IPv4Address("10.0.0.2"), IPv6Address("fd00::2")}


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (ipv4(17, udp(15443, 15443, b"\x80sealed")), "session RECORD"),
        (ipv6(17, udp(15443, 15443, b"\x01hello")), "session HELLO"),
        (ipv4(17, udp(15443, 15443, b"")), "session empty"),
        (ipv4(17, udp(15443, 53, b"\x80")), "UDP"),
        (ipv4(17, b"rest", fragment=185), "UDP fragment"),
        (ipv6(44, b"\x11\0\0\x08\0\0\0\x01rest"), "UDP fragment"),
        (ipv6(0, b"\x3a\0\x05\x02\0\0\0\0\x8f"), "multicast listener discovery"),
        (ipv6(58, b"\x87"), "neighbour discovery"),
        (ipv6(58, b"\x80"), "ICMPv6"),
        (ipv4(253, b""), "protocol 253"),
        (ipv4(6, b"")[:-1], "malformed"),
        (bytes(12) + b"\x08\x06", "ARP"),
        (bytes(12) + b"\x12\x34", "ethertype 0x1234"),
        (b"short", "malformed"),
    ],
)
def test_frames_are_named_by_what_a_listener_sees(frame: bytes, kind: str) -> None:
    assert kind_of(frame, 15443) == kind
