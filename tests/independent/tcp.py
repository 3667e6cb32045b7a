"""A program's end of a TCP connection over a session: enough of RFC 9293 for bulk both ways.

It takes data in order alone, repeats what is not acknowledged, and seals each packet with its
checksum unfinished, data as super-packets.
"""

import struct
from ipaddress import ip_address
from typing import Final

from independent.client import Client, Session
from independent.packets import UNFINISHED, layout, unfinished
from independent.talk import PORT, address
from independent.wire import PACKET
from support.forge import ip_packet
from support.namespaces import Pod

REPEAT_SECONDS: Final = 0.5
REPEATS: Final = 40
SEGMENTS: Final = 40  # of one super-packet
_SYN, _PSH, _ACK = 0x02, 0x08, 0x10
_FIRST: Final = (1 << 32) - 10_000  # so that numbers pass 2^32 on the way
_WINDOW: Final = 0xFFFF
_TCP: Final = 6


class Tcp:
    """Connects to `PORT` of the real pod. `received` grows while the client serves."""

    def __init__(self, client: Client, session: Session, pod: Pod, version: int) -> None:
        there = pod.ipv4 if version == 4 else pod.ipv6
        self.received = bytearray()
        self._client, self._session = client, session
        self._ends = ip_address(address(client, version)).packed, ip_address(there).packed
        self._next = self._acknowledged = _FIRST
        self._expected = 0
        self._read = len(session.packets)
        headers = 40 if version == 4 else 60
        self._deliver(_SYN, struct.pack("!BBH", 2, 4, client.mtu - headers))

    def send(self, data: bytes, size: int) -> None:
        """Have all of it acknowledged, in segments of `size` bytes."""
        for at in range(0, len(data), SEGMENTS * size):
            self._deliver(_ACK | _PSH, data=data[at : at + SEGMENTS * size], size=size)

    def receive(self, size: int) -> bytes:
        """Wait until so many bytes have come in all, and return what has."""
        self._client.wait_for("TCP's data", lambda: len(self._take()) >= size)
        return bytes(self.received)

    def _deliver(self, flags: int, options: bytes = b"", data: bytes = b"", size: int = 0) -> None:
        """Send until it is acknowledged."""
        after = (self._next + (len(data) or 1)) % (1 << 32)

        def acknowledged() -> bool:
            self._take()
            return self._acknowledged == after

        for _ in range(REPEATS):
            self._say(flags, options, data, size if len(data) > size else 0)
            try:
                self._client.wait_for("an acknowledgement", acknowledged, REPEAT_SECONDS)
            except TimeoutError:
                continue
            break
        self._next = after
        self._say(_ACK)

    def _say(self, flags: int, options: bytes = b"", data: bytes = b"", size: int = 0) -> None:
        numbers = (self._next, self._expected, (5 + len(options) // 4) << 4, flags, _WINDOW)
        header = struct.pack("!HHIIBBHHH", PORT, PORT, *numbers, 0, 0) + options
        packet = unfinished(ip_packet(*self._ends, _TCP, header + data))
        self._client.send(self._session, PACKET, packet, UNFINISHED, size)

    def _take(self) -> bytearray:
        """Read what has come and acknowledge data; all data so far."""
        fresh = self._session.packets[self._read :]
        self._read += len(fresh)
        heard = False
        for packet in fresh:
            where = layout(packet)
            if where.protocol != _TCP:
                continue
            number, acknowledged, _, flags = struct.unpack_from("!IIBB", packet, where.upper + 4)
            self._acknowledged = acknowledged
            if flags & _SYN:
                self._expected = (number + 1) % (1 << 32)
            data = packet[where.payload :]
            heard |= bool(data)
            if number == self._expected and data:
                self.received += data
                self._expected = (number + len(data)) % (1 << 32)
        if heard:
            self._say(_ACK)
        return self.received
