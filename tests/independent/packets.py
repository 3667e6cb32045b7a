"""Inner packets: whose they are, and super-packets, docs/protocol.md section 8."""

from dataclasses import dataclass
from ipaddress import ip_address
from math import ceil
from typing import Final

from independent.records import Dropped

UNFINISHED: Final = 1  # the only flag of a PACKET's prefix
MOST_SEGMENTS: Final = 128

_TCP, _UDP = 6, 17
_CHECKSUM_AT: Final = {_TCP: 16, _UDP: 6}
_FIN_PSH, _SYN_RST, _CWR = 0x09, 0x06, 0x80
_OTHER_FAMILY: Final = 20
_ALL: Final = 0xFFFF


@dataclass(frozen=True)
class Layout:
    """Where things are in a TCP or UDP packet: TCP's or UDP's header, and the payload."""

    protocol: int
    upper: int
    payload: int

    @property
    def checksum(self) -> int:
        return self.upper + _CHECKSUM_AT[self.protocol]


def ecn(packet: bytes) -> int:
    """Return the ECN field of an inner packet."""
    return packet[1] & 3 if packet[0] >> 4 == 4 else packet[1] >> 4 & 3


def packet_addresses(packet: bytes) -> tuple[str, str]:
    """Return source and destination of an inner packet, once it is whole."""
    ipv4 = packet[:1] and packet[0] >> 4 == 4
    at, size = (12, 4) if ipv4 else (8, 16)
    addresses = [packet[start : start + size] for start in (at, at + size)]
    said = int.from_bytes(packet[2:4], "big") if ipv4 else 40 + int.from_bytes(packet[4:6], "big")
    if said != len(packet) or len(addresses[1]) != size:
        raise Dropped("packet not whole")
    source, destination = (str(ip_address(address)) for address in addresses)
    return source, destination


def layout(packet: bytes) -> Layout:
    """Find TCP or UDP right behind a whole packet's IP header; `Dropped` if it is not there."""
    ipv4 = packet[0] >> 4 == 4
    protocol, upper = (packet[9], 4 * (packet[0] & 15)) if ipv4 else (packet[6], 40)
    if protocol not in _CHECKSUM_AT or upper < 20:
        raise Dropped("checksum of neither TCP nor UDP")
    if ipv4 and int.from_bytes(packet[6:8], "big") & 0x3FFF:
        raise Dropped("checksum of a fragment")
    header, least = 8, 8
    if protocol == _TCP:
        header, least = (packet[upper + 12 : upper + 13] or b"\0")[0] >> 4 << 2, 20
    if header < least or upper + header > len(packet):
        raise Dropped("header outside the packet")
    if protocol == _UDP and int.from_bytes(packet[upper + 4 : upper + 6], "big") != (
        len(packet) - upper
    ):
        raise Dropped("length of UDP")
    return Layout(protocol, upper, upper + header)


def packets_of(body: bytes, flags: int, size: int, mtu: int) -> list[bytes]:
    """Return the packets that a PACKET's whole body stands for, their checksums finished.

    `size` is the prefix's segment size, `mtu` the receiver's own. `Dropped` for what section 8
    has a receiver drop.
    """
    if flags & ~UNFINISHED:
        raise Dropped("flags")
    if not flags:
        if size:
            raise Dropped("segment size without its flag")
        return [body]
    found = layout(body)
    if not size:
        return [_finished(body, found)]
    payload = body[found.payload :]
    count = ceil(len(payload) / size)
    if not 2 <= count <= MOST_SEGMENTS:
        raise Dropped("number of segments")
    if found.payload + size > mtu + _OTHER_FAMILY:
        raise Dropped("size of segments")
    if found.protocol == _TCP and body[found.upper + 13] & _SYN_RST:
        raise Dropped("SYN or RST of many segments")
    return [_segment(body, found, size, k, last=k == count - 1) for k in range(count)]


def unfinished(packet: bytes) -> bytes:
    """Return a whole TCP or UDP packet with the pseudo-header's sum alone in its checksum field."""
    found = layout(packet)
    return _put(packet, found.checksum, _sum(_pseudo_header(packet, found)))


def _segment(body: bytes, found: Layout, size: int, k: int, *, last: bool) -> bytes:
    start = found.payload + k * size
    packet = body[: found.payload] + body[start : start + size]
    if packet[0] >> 4 == 4:
        packet = _put(packet, 2, len(packet))
        packet = _put(packet, 4, int.from_bytes(packet[4:6], "big") + k & _ALL)
        header = _put(packet, 10, 0)[: found.upper]
        packet = _put(packet, 10, ~_sum(header) & _ALL)
    else:
        packet = _put(packet, 4, len(packet) - 40)
    at = found.upper
    if found.protocol == _UDP:
        return _finished(_put(packet, at + 4, len(packet) - at), found)
    sequence = int.from_bytes(packet[at + 4 : at + 8], "big") + k * size
    flags = packet[at + 13] & ~(0 if last else _FIN_PSH) & ~(_CWR if k else 0)
    changed = bytearray(packet)
    changed[at + 4 : at + 8] = (sequence & 0xFFFF_FFFF).to_bytes(4, "big")
    changed[at + 13] = flags
    return _finished(bytes(changed), found)


def _finished(packet: bytes, found: Layout) -> bytes:
    """Put the whole checksum in; what is in the field was vouched for, and is not looked at."""
    blank = _put(packet, found.checksum, 0)
    checksum = ~_sum(_pseudo_header(packet, found) + blank[found.upper :]) & _ALL
    if found.protocol == _UDP and not checksum:  # RFC 768: 0 would say that there is none
        checksum = _ALL
    return _put(packet, found.checksum, checksum)


def _pseudo_header(packet: bytes, found: Layout) -> bytes:
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    numbers = (len(packet) - found.upper, found.protocol)
    return addresses + b"".join(number.to_bytes(4, "big") for number in numbers)


def _sum(data: bytes) -> int:
    """Return the ones' complement sum of 16-bit words, each carry added back."""
    total = sum(
        int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2)
    )
    while total > _ALL:
        total = (total & _ALL) + (total >> 16)
    return total


def _put(data: bytes, at: int, number: int) -> bytes:
    return data[:at] + number.to_bytes(2, "big") + data[at + 2 :]
