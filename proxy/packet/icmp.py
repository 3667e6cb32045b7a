"""ICMP errors that we write ourselves about an application's packet, to tenc0, as if from its destination.

tenc0 has no address of its own, and one of the pod's would be refused as a martian; the destination is what the
kernel believes to lie behind tenc0.
"""

from struct import Struct
from typing import Final

from proxy.packet.checksum import checksum
from proxy.packet.ip import IPV4_HEADER, IPV6_HEADER

IPV6_LEAST: Final = 1280
"""RFC 8200 5: an IPv6 packet of this size passes everywhere, and no less may be asked for."""

TTL: Final = 64
ICMP, ICMPV6 = 1, 58
_HEADER: Final = Struct(">BBHI")
_MOST_V4, _MOST_V6 = 576, IPV6_LEAST
"""Of an ICMP error in all: RFC 1812 4.3.2.3, RFC 4443 2.4 (c)."""


def error_v4(packet: memoryview, kind: int, code: int, word: int = 0) -> bytes | None:
    """Return the ICMP error of this type and code about a parsed packet; ``word`` is what it holds besides.

    None where none may be sent: about an ICMP error or a later fragment (RFC 1122 3.2.2).
    """
    header = (packet[0] & 15) * 4
    later = packet[6] & 0x1F or packet[7]
    # 0, 8 and 13 to 18 are questions and answers (RFC 792, 950); all others are errors.
    icmp_error = packet[9] == ICMP and (
        len(packet) <= header or packet[header] not in {0, 8, *range(13, 19)}
    )
    if later or icmp_error:
        return None
    quoted = bytes(packet[: _MOST_V4 - IPV4_HEADER - 8])
    icmp = bytearray(_HEADER.pack(kind, code, 0, word) + quoted)
    icmp[2:4] = checksum(icmp).to_bytes(2, "big")
    return header_v4(packet, ICMP, len(icmp)) + bytes(icmp)


def header_v4(packet: memoryview, protocol: int, size: int) -> bytes:
    """Return the IP header of an answer to a parsed packet's sender, before ``size`` bytes."""
    ip = bytearray(b"\x45\0" + (IPV4_HEADER + size).to_bytes(2, "big") + bytes(4))
    ip += bytes((TTL, protocol, 0, 0)) + packet[16:20] + packet[12:16]
    ip[10:12] = checksum(ip).to_bytes(2, "big")
    return bytes(ip)


def error_v6(packet: memoryview, kind: int, code: int, word: int = 0) -> bytes | None:
    """Return the ICMPv6 error of this type and code about a parsed packet, as `error_v4`."""
    if packet[6] == ICMPV6 and len(packet) > IPV6_HEADER and packet[IPV6_HEADER] < 128:
        return None
    quoted = bytes(packet[: _MOST_V6 - IPV6_HEADER - 8])
    icmp = bytearray(_HEADER.pack(kind, code, 0, word) + quoted)
    head = header_v6(packet, ICMPV6, len(icmp))
    pseudo = head[8:] + len(icmp).to_bytes(4, "big") + bytes((0, 0, 0, ICMPV6))
    icmp[2:4] = checksum(pseudo + icmp).to_bytes(2, "big")
    return head + bytes(icmp)


def header_v6(packet: memoryview, protocol: int, size: int) -> bytes:
    """Return the IP header of an answer to a parsed packet's sender, before ``size`` bytes."""
    head = b"\x60\0\0\0" + size.to_bytes(2, "big") + bytes((protocol, TTL))
    return head + bytes(packet[24:40]) + bytes(packet[8:24])
