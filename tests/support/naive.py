"""Packets made whole from their parts, every checksum worked out anew: what translation in place is compared with."""

from dataclasses import dataclass
from typing import Final

from support.segmentation import TCP, UDP, Connection, ones_sum

SCTP, ICMP, ICMPV6, FRAGMENT = 132, 1, 58, 44
ECHO, ECHO_REPLY, UNREACHABLE = "echo", "reply", "unreachable"
_TYPES: Final = {
    (4, ECHO): 8,
    (4, ECHO_REPLY): 0,
    (4, UNREACHABLE): 3,
    (16, ECHO): 128,
    (16, ECHO_REPLY): 129,
    (16, UNREACHABLE): 1,
}


def crc32c(data: bytes) -> int:
    """Return Castagnoli's CRC (RFC 9260 appendix A), a bit at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Way:
    """From one address and port to another; of an echo the first port is the identifier."""

    source: bytes
    sport: int
    destination: bytes
    dport: int

    def turned(self) -> "Way":
        """Return the way back."""
        return Way(self.destination, self.dport, self.source, self.sport)

    def tcp(self, payload: bytes = b"", flags: int = 0x10, at: int = 0) -> bytes:
        """Return a TCP segment, ``at`` bytes after the first."""
        return self._connection(TCP).packet(payload, at, flags)

    def udp(self, payload: bytes = b"") -> bytes:
        """Return a UDP datagram."""
        return self._connection(UDP).packet(payload)

    def sctp(self, payload: bytes = b"") -> bytes:
        """Return an SCTP packet (RFC 9260 3)."""
        head = self._ports() + b"\1\2\3\4"
        total = crc32c(head + bytes(4) + payload).to_bytes(4, "little")
        return self.ip(SCTP, head + total + payload)

    def echo(self, payload: bytes = b"", kind: str = ECHO) -> bytes:
        """Return an echo request, or its reply from ``source``."""
        identifier = self.sport if kind == ECHO else self.dport
        return self._icmp(kind, identifier.to_bytes(2, "big") + b"\0\1" + payload)

    def error(self, quoted: bytes) -> bytes:
        """Return a "destination unreachable" that quotes a packet."""
        return self._icmp(UNREACHABLE, bytes(4) + quoted)

    def ip(self, protocol: int, body: bytes) -> bytes:
        """Return an IP packet."""
        if len(self.source) == 16:
            head = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((protocol, 64))
            return head + self.source + self.destination + body
        return header_v4(self, protocol, len(body)) + body

    def fragments(self, packet: bytes, size: int, identification: int = 7) -> list[bytes]:
        """Return an IP packet of this way in fragments of ``size`` bytes, a multiple of 8."""
        six = len(self.source) == 16
        protocol, body = (packet[6], packet[40:]) if six else (packet[9], packet[20:])
        made = []
        for at in range(0, len(body), size):
            part, more = body[at : at + size], at + size < len(body)
            if six:
                offset = (at | more).to_bytes(2, "big")
                head = bytes((protocol, 0)) + offset + identification.to_bytes(4, "big")
                made.append(self.ip(FRAGMENT, head + part))
            else:
                word = identification << 16 | more << 13 | at // 8
                made.append(header_v4(self, protocol, len(part), word) + part)
        return made

    def _connection(self, protocol: int) -> Connection:
        return Connection(self.source, self.destination, protocol, (self.sport, self.dport))

    def _ports(self) -> bytes:
        return self.sport.to_bytes(2, "big") + self.dport.to_bytes(2, "big")

    def _icmp(self, kind: str, rest: bytes) -> bytes:
        head = bytes((_TYPES[len(self.source), kind], 0))
        protocol, pseudo = ICMP, b""
        if len(self.source) == 16:
            size = (4 + len(rest)).to_bytes(4, "big")
            protocol, pseudo = ICMPV6, self.source + self.destination + size + b"\0\0\0\x3a"
        total = ones_sum(pseudo + head + bytes(2) + rest).to_bytes(2, "big")
        return self.ip(protocol, head + total + rest)


def header_v4(way: Way, protocol: int, size: int, word: int = 0x4000) -> bytes:
    """Return an IPv4 header; ``word`` is identification, flags and offset."""
    head = b"\x45\0" + (20 + size).to_bytes(2, "big") + word.to_bytes(4, "big")
    head += bytes((64, protocol))
    both = way.source + way.destination
    return head + ones_sum(head + bytes(2) + both).to_bytes(2, "big") + both


def unfinished(packet: bytes) -> bytes:
    """Return a TCP or UDP packet as a kernel with checksum offload has it: the pseudo-header's sum in the field."""
    six = packet[0] >> 4 == 6
    at, protocol = (40, packet[6]) if six else (20, packet[9])
    addresses = packet[8:40] if six else packet[12:20]
    pseudo = addresses + (len(packet) - at).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    where = at + (16 if protocol == TCP else 6)
    return packet[:where] + (~ones_sum(pseudo) & 0xFFFF).to_bytes(2, "big") + packet[where + 2 :]
