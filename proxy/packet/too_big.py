"""What tells an application that its packet does not fit the path: ICMP, written to tenc0 as if from the destination.

tenc0 has no address of its own, and one of the pod's would be refused as a martian; the destination is what the
kernel believes to lie behind tenc0.
"""

from struct import Struct
from typing import Final

from proxy.packet.checksum import checksum
from proxy.packet.ip import IPV4_HEADER, IPV6_HEADER

IPV6_LEAST: Final = 1280
"""RFC 8200 5: an IPv6 packet of this size passes everywhere, and no less may be asked for."""

_TTL: Final = 64
_ICMP, _ICMPV6 = 1, 58
_ICMP_HEADER: Final = Struct(">BBHHH")
_ICMPV6_HEADER: Final = Struct(">BBHI")
_MOST_V4, _MOST_V6 = 576, IPV6_LEAST
"""Of an ICMP error in all: RFC 1812 4.3.2.3, RFC 4443 2.4 (c)."""


def may_split(packet: memoryview) -> bool:
    """Say whether a packet may go as several datagrams: IPv4 without DF, IPv6 that nobody may ask to be smaller."""
    if packet[0] >> 4 == 4:
        return not packet[6] & 0x40
    return len(packet) <= IPV6_LEAST


def too_big(packet: memoryview, size: int) -> bytes | None:
    """Return the ICMP error for a parsed packet of which ``size`` bytes would fit (RFC 1191 4, RFC 4443 3.2).

    None where none may be sent: about an ICMP error or a later fragment (RFC 1122 3.2.2).
    """
    return _too_big_v4(packet, size) if packet[0] >> 4 == 4 else _too_big_v6(packet, size)


def _too_big_v4(packet: memoryview, size: int) -> bytes | None:
    header = (packet[0] & 15) * 4
    later = packet[6] & 0x1F or packet[7]
    # 0, 8 and 13 to 18 are questions and answers (RFC 792, 950); all others are errors.
    icmp_error = packet[9] == _ICMP and (
        len(packet) <= header or packet[header] not in {0, 8, *range(13, 19)}
    )
    if later or icmp_error:
        return None
    quoted = bytes(packet[: _MOST_V4 - IPV4_HEADER - 8])
    icmp = bytearray(_ICMP_HEADER.pack(3, 4, 0, 0, size) + quoted)
    icmp[2:4] = checksum(icmp).to_bytes(2, "big")
    ip = bytearray(b"\x45\0" + (IPV4_HEADER + len(icmp)).to_bytes(2, "big") + bytes(4))
    ip += bytes((_TTL, _ICMP, 0, 0)) + packet[16:20] + packet[12:16]
    ip[10:12] = checksum(ip).to_bytes(2, "big")
    return bytes(ip + icmp)


def _too_big_v6(packet: memoryview, size: int) -> bytes | None:
    if packet[6] == _ICMPV6 and len(packet) > IPV6_HEADER and packet[IPV6_HEADER] < 128:
        return None
    quoted = bytes(packet[: _MOST_V6 - IPV6_HEADER - 8])
    icmp = bytearray(_ICMPV6_HEADER.pack(2, 0, 0, max(size, IPV6_LEAST)) + quoted)
    addresses = bytes(packet[24:40]) + bytes(packet[8:24])
    pseudo = addresses + len(icmp).to_bytes(4, "big") + bytes((0, 0, 0, _ICMPV6))
    icmp[2:4] = checksum(pseudo + icmp).to_bytes(2, "big")
    head = b"\x60\0\0\0" + len(icmp).to_bytes(2, "big") + bytes((_ICMPV6, _TTL))
    return head + addresses + bytes(icmp)
