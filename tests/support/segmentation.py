"""Segmentation as the RFCs have it, byte by byte and with whole checksums: what the fast path is compared with."""

from dataclasses import dataclass

FIN, SYN, PSH, CWR = 0x01, 0x02, 0x08, 0x80
TCP, UDP = 6, 17


def ones_sum(data: bytes) -> int:
    """Return the checksum over 16-bit words (RFC 1071), one at a time."""
    data += bytes(len(data) % 2)
    total = 0
    for at in range(0, len(data), 2):
        total += data[at] << 8 | data[at + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Connection:
    """Addresses and ports of a flow; packets are made whole, with right checksums."""

    source: bytes
    destination: bytes
    protocol: int
    ports: tuple[int, int] = (1000, 2000)
    options: bytes = b""

    def packet(self, payload: bytes, at: int = 0, flags: int = 0x10, number: int = 0) -> bytes:
        """Return the packet of a payload ``at`` bytes after the first; ``number`` counts IPv4 identifications."""
        ports = b"".join(port.to_bytes(2, "big") for port in self.ports)
        if self.protocol == TCP:
            words = 5 + len(self.options) // 4
            sequence = (0xFFFF_F000 + at & 0xFFFF_FFFF).to_bytes(4, "big")
            head = ports + sequence + bytes(4) + bytes((words << 4, flags, 1, 0))
            upper, where = head + bytes(4) + self.options + payload, 16
        else:
            upper, where = ports + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload, 6
        pseudo = self.source + self.destination + len(upper).to_bytes(4, "big")
        total = ones_sum(pseudo + self.protocol.to_bytes(4, "big") + upper) or 0xFFFF
        upper = upper[:where] + total.to_bytes(2, "big") + upper[where + 2 :]
        return self._ip(len(upper), number) + upper

    def _ip(self, size: int, number: int) -> bytes:
        if len(self.source) == 16:
            head = b"\x60\0\0\0" + size.to_bytes(2, "big") + bytes((self.protocol, 64))
            return head + self.source + self.destination
        identification = (0xFFFE + number & 0xFFFF).to_bytes(2, "big")
        head = b"\x45\0" + (20 + size).to_bytes(2, "big") + identification + b"\x40\0"
        head += bytes((64, self.protocol))
        addresses = self.source + self.destination
        return head + ones_sum(head + bytes(2) + addresses).to_bytes(2, "big") + addresses

    def segments(self, payload: bytes, size: int, flags: int = 0x10) -> list[bytes]:
        """Return the packets that segmentation makes of a payload: FIN and PSH on the last, CWR on the first alone."""
        starts = range(0, len(payload), size)
        packets = []
        for number, at in enumerate(starts):
            own = flags if number == len(starts) - 1 else flags & ~(FIN | PSH)
            own = own if number == 0 else own & ~CWR
            packets.append(self.packet(payload[at : at + size], at, own, number))
        return packets
