"""ICMP errors of a peer: about what we sent to it, and nothing else."""

from ipaddress import ip_address

import pytest

from proxy.packet.icmp import error_v4, error_v6, header_v4, header_v6
from proxy.packet.quote import quotes_another

OWN = {4: "10.0.0.1", 6: "fd00::1"}
PEER = {4: "10.0.0.2", 6: "fd00::2"}
OTHER = {4: "10.0.0.3", 6: "fd00::3"}
ADDRESSES = [frozenset(ip_address(text).packed for text in one.values()) for one in (OWN, PEER)]
versions = pytest.mark.parametrize("version", [4, 6])


def udp(version: int, source: str, destination: str) -> memoryview:
    """A datagram; `header_v4` and `header_v6` write an answer to it, so its ends are turned."""
    ends = ip_address(destination).packed + ip_address(source).packed
    body = bytes((4, 210, 0, 80, 0, 12, 0, 0)) + b"data"
    if version == 4:
        return memoryview(
            header_v4(memoryview(bytes((0x45,)) + bytes(11) + ends), 17, len(body)) + body
        )
    return memoryview(header_v6(memoryview(bytes((0x60,)) + bytes(7) + ends), 17, len(body)) + body)


def error(version: int, source: str, destination: str) -> bytes:
    packet = udp(version, source, destination)
    made = error_v4(packet, 3, 4, 1000) if version == 4 else error_v6(packet, 2, 0, 1280)
    assert made is not None
    return made


@versions
def test_an_error_about_what_we_sent_to_the_peer_passes(version: int) -> None:
    packet = memoryview(error(version, OWN[version], PEER[version]))
    assert not quotes_another(packet, *ADDRESSES)


@versions
def test_an_error_about_another_peer_or_another_sender_does_not(version: int) -> None:
    for ends in ((OWN, OTHER), (OTHER, PEER), (PEER, OWN)):
        packet = memoryview(error(version, ends[0][version], ends[1][version]))
        assert quotes_another(packet, *ADDRESSES), ends


@versions
def test_an_error_that_does_not_show_what_it_is_about_does_not(version: int) -> None:
    whole = error(version, OWN[version], PEER[version])
    header = 20 if version == 4 else 40
    for size in range(header + 1, 2 * header + 8):
        assert quotes_another(memoryview(whole[:size]), *ADDRESSES), size


def test_an_error_in_fragments_or_behind_extension_headers_is_looked_at_too() -> None:
    whole = bytearray(error(4, OWN[4], PEER[4]))
    whole[6] = 0x20  # more fragments
    assert quotes_another(memoryview(whole), *ADDRESSES)
    for other, expected in ((PEER[6], False), (OTHER[6], True)):
        made = error(6, OWN[6], other)
        hidden = made[:6] + b"\x00" + made[7:40] + b"\x3a\x00\x01\x04" + bytes(4) + made[40:]
        assert quotes_another(memoryview(hidden), *ADDRESSES) is expected


@versions
def test_echoes_and_what_has_ports_pass(version: int) -> None:
    assert not quotes_another(udp(version, PEER[version], OWN[version]), *ADDRESSES)
    echo = bytearray(error(version, OTHER[version], OTHER[version]))
    echo[20 if version == 4 else 40] = 8 if version == 4 else 128
    assert not quotes_another(memoryview(echo), *ADDRESSES)
