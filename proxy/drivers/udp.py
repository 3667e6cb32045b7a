"""The session port: one UDP socket an address family."""

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from proxy.session.cookie import Endpoint

# linux/in.h and in6.h; Python names neither.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3

_BUFFER: Final = 8 << 20
"""Asked for; the kernel gives what net.core.rmem_max allows."""


class SessionSocket:
    """Receives into the caller's buffer, sends, never blocks and never fragments."""

    def __init__(self, address: IPv4Address | IPv6Address, port: int) -> None:
        """Bind to one of the pod's addresses. Raises OSError where that cannot be had."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
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

    def receive(self, buffer: memoryview) -> tuple[int, Endpoint] | None:
        """Receive one datagram; None when there is none."""
        try:
            size, source = self._socket.recvfrom_into(buffer)
        except BlockingIOError:
            return None
        except OSError:
            # An error that ICMP queued concerns some earlier datagram of ours: unauthenticated, no event.
            return 0, ("", 0)
        return size, source[:2]

    def send(self, data: memoryview | bytes, endpoint: Endpoint) -> bool:
        """Send one datagram; False when the kernel did not take it."""
        try:
            self._socket.sendto(data, endpoint)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close it."""
        self._socket.close()
