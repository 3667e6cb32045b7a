"""The session port: three UDP sockets an address family, so that no flood of one kind drowns the others.

All share address and port (SO_REUSEPORT); a classic BPF program in the kernel sorts arriving datagrams by their
first byte. A flood of HELLOs, which anybody may send, then fills the queue of HELLOs and no other: records and
handshakes under way wait in queues of their own, and each has its turn in the event loop.
"""

import ctypes
import errno
import math
import socket
import struct
import sys
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from proxy.drivers import clock
from proxy.session.cookie import Endpoint
from proxy.session.pieces import datagrams
from proxy.session.wire import HELLO, RECORD

# linux/in.h and in6.h; Python names neither.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
# asm-generic/socket.h and linux/bpf_common.h.
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_LOAD_BYTE, _JUMP_IF_AT_LEAST, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x35, 0x15, 0x06

# Level, type, and option that asks for it: the ECN field of a datagram is the last two bits of each value.
_TOS: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS, socket.IP_RECVTOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS),
}
_ECN: Final = [struct.pack("i", ecn) for ecn in range(4)]
_ANCILLARY: Final = 2 * socket.CMSG_SPACE(4)
# linux/udp.h.
_UDP_SEGMENT, _UDP_GRO = 103, 104

_BUSY: Final = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}
"""A full queue, where the same datagrams one by one would fare no better."""

_CUT_AGAIN: Final = 60.0
"""Seconds after which a kernel that failed to cut is asked again."""

_BUFFER: Final = 8 << 20
"""Asked for; the kernel gives what net.core.rmem_max allows."""

_READS: Final = 16
_READS_OF_HANDSHAKES: Final = 8
"""Receives at a turn at most: of records, and of handshakes (a HELLO costs some 15 us, a FLIGHT up to 1 ms)."""

# In the order of the sockets in their group: the program returns an index.
_LANES: Final = (_READS, _READS_OF_HANDSHAKES, _READS_OF_HANDSHAKES)
_SORT: Final = (
    (_LOAD_BYTE, 0, 0, 0),
    (_JUMP_IF_AT_LEAST, 0, 1, RECORD),
    (_RETURN, 0, 0, 0),
    (_JUMP_IF_EQUAL, 0, 1, HELLO),
    (_RETURN, 0, 0, 2),
    (_RETURN, 0, 0, 1),
)
"""Code, jump if true, jump if false, constant (struct sock_filter): records, other handshakes, HELLOs."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One of the sockets, and how many datagrams are taken from it before the others get their turn."""

    socket: socket.socket
    reads: int

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self.socket.fileno()

    def receive(self, buffer: memoryview) -> tuple[int, int, Endpoint, int] | None:
        """Receive datagrams of one sender: their bytes in all, the size of each but the last, whence, their ECN field.

        None when there are none.
        """
        try:
            total, ancillary, _, source = self.socket.recvmsg_into((buffer,), _ANCILLARY)
        except BlockingIOError:
            return None
        except OSError:
            # An error that ICMP queued concerns some earlier datagram of ours: unauthenticated, no event.
            return 0, 0, ("", 0), 0
        size, tos = total, 0
        for level, kind, value in ancillary:
            # IPv4's TOS comes as one byte, all others as a C int.
            if kind == _UDP_GRO and level == socket.SOL_UDP:
                size = int.from_bytes(value, sys.byteorder)
            else:
                tos = int.from_bytes(value, sys.byteorder)
        return total, size, source[:2], tos & 3


class SessionSocket:
    """Receives into the caller's buffer, sends, never blocks and never fragments."""

    def __init__(
        self,
        address: IPv4Address | IPv6Address,
        port: int,
        offloads: Collection[str] = frozenset({"gso", "gro"}),
    ) -> None:
        """Bind to one of the pod's addresses. Raises OSError where that cannot be had.

        ``offloads``: "gso" lets the kernel cut what is sent, "gro" lets it join what arrives.
        """
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._level, self._type, _ = _TOS[family]
        opened: list[socket.socket] = []
        try:
            for _ in _LANES:
                opened.append(_open(family))
                opened[-1].bind((str(address), port))
            _attach(opened[0])
        except OSError:
            for one in opened:
                one.close()
            raise
        self.lanes = tuple(Lane(*pair) for pair in zip(opened, _LANES, strict=True))
        self._socket = opened[0]
        self.joins = "gro" in offloads and _join(opened[0])
        """Whether the kernel may hand over many datagrams at once (UDP_GRO, Linux 5.0)."""
        self._cut_again = 0.0 if "gso" in offloads else math.inf

    @property
    def cuts(self) -> bool:
        """Whether the kernel cuts what is sent (UDP_SEGMENT, Linux 4.18)."""
        return not self._cut_again

    def send(self, data: memoryview | bytes, size: int, endpoint: Endpoint, ecn: int = 0) -> bool:
        """Send datagrams of ``size`` bytes, the last maybe less, with an ECN field; False when one was not taken."""
        try:
            if len(data) > size:
                self._send_many(data, size, endpoint, ecn)
            elif ecn:
                self._socket.sendmsg((data,), self._mark(ecn), 0, endpoint)
            else:
                self._socket.sendto(data, endpoint)
        except OSError:
            return False
        return True

    def _send_many(self, data: memoryview | bytes, size: int, endpoint: Endpoint, ecn: int) -> None:
        failed = False
        if not self._cut_again or clock.monotonic() >= self._cut_again:
            options = [(socket.SOL_UDP, _UDP_SEGMENT, struct.pack("H", size)), *self._mark(ecn)]
            try:
                self._socket.sendmsg((data,), options, 0, endpoint)
            except OSError as error:
                if error.errno in _BUSY:
                    raise
                failed = True
            else:
                self._cut_again = 0.0
                return
        for one in datagrams(data, size):
            self._socket.sendmsg((one,), self._mark(ecn), 0, endpoint)
        if failed:
            # One by one they go, and not at once: the kernel or its device cannot cut (too old, no checksums).
            self._cut_again = clock.monotonic() + _CUT_AGAIN

    def _mark(self, ecn: int) -> list[tuple[int, int, bytes]]:
        return [(self._level, self._type, _ECN[ecn])] if ecn else []

    def close(self) -> None:
        """Close all of it."""
        for lane in self.lanes:
            lane.socket.close()


def _open(family: socket.AddressFamily) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    level, _, receive_tos = _TOS[family]
    opened.setsockopt(level, receive_tos, 1)
    # An ICMP "too big" is unauthenticated: never believe it, and never let the kernel fragment.
    if family == socket.AF_INET:
        opened.setsockopt(level, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    else:
        opened.setsockopt(level, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    return opened


def _join(opened: socket.socket) -> bool:
    try:
        opened.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
    except OSError:
        return False
    return True


def _attach(first: socket.socket) -> None:
    """Let the kernel choose the socket of the group; its data begins at the UDP payload."""
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _SORT)
    held = ctypes.create_string_buffer(program)
    # struct sock_fprog: number of instructions, and where they are until setsockopt has copied them.
    option = struct.pack("HP", len(_SORT), ctypes.addressof(held))
    first.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, option)
