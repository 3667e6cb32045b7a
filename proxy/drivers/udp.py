"""The session port: one UDP socket an address family."""

import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from proxy.session.cookie import Endpoint

# linux/in.h and in6.h; Python names neither.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3

# Level, type, and option that asks for it: the ECN field of a datagram is the last two bits of each value.
_TOS: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS, socket.IP_RECVTOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS),
}
_ECN: Final = [struct.pack("i", ecn) for ecn in range(4)]
_ANCILLARY: Final = socket.CMSG_SPACE(4)

_BUFFER: Final = 8 << 20
"""Asked for; the kernel gives what net.core.rmem_max allows."""


class SessionSocket:
    """Receives into the caller's buffer, sends, never blocks and never fragments."""

    def __init__(self, address: IPv4Address | IPv6Address, port: int) -> None:
        """Bind to one of the pod's addresses. Raises OSError where that cannot be had."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._level, self._type, receive_tos = _TOS[family]
        self._socket.setsockopt(self._level, receive_tos, 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        # An ICMP "too big" is unauthenticated: never believe it, and never let the kernel fragment.
        if family == socket.AF_INET:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        try:
            self._socket.bind((str(address), port))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self._socket.fileno()

    def receive(self, buffer: memoryview) -> tuple[int, Endpoint, int] | None:
        """Receive one datagram: its size, whence, its ECN field; None when there is none."""
        try:
            size, ancillary, _, source = self._socket.recvmsg_into((buffer,), _ANCILLARY)
        except BlockingIOError:
            return None
        except OSError:
            # An error that ICMP queued concerns some earlier datagram of ours: unauthenticated, no event.
            return 0, ("", 0), 0
        # IPv4 gives one byte, IPv6 a C int.
        tos = int.from_bytes(ancillary[0][2], sys.byteorder) if ancillary else 0
        return size, source[:2], tos & 3

    def send(self, data: memoryview | bytes, endpoint: Endpoint, ecn: int = 0) -> bool:
        """Send one datagram with an ECN field; False when the kernel did not take it."""
        try:
            if ecn:
                tos = (self._level, self._type, _ECN[ecn])
                self._socket.sendmsg((data,), (tos,), 0, endpoint)
            else:
                self._socket.sendto(data, endpoint)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close it."""
        self._socket.close()
