"""Lets canaries run, as any program would: from ordinary sockets, by the kernel's own choice of way.

The bytes of a flow are one canary over and over: each packet that carries 31 of them holds it whole.
"""

from __future__ import annotations

import codecs
import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from proxy.verify.orders import Address, Flow, Flowed

TCP_BYTES: Final = 64 << 10
DATAGRAMS: Final = 16
DATAGRAM_BYTES: Final = 1024
_NUMBER: Final = 4
_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 0.2
_MOST_CALLERS: Final = 8

# Loads when first used, and by then we may be unable to read where Python is installed.
_CODEC: Final = codecs.lookup("idna")


def run(flow: Flow, there: bytes, back: bytes) -> list[Flowed]:
    """Let canaries run there and back, by TCP and by UDP; what fails is said, not raised."""
    with ThreadPoolExecutor(2) as both:
        return [
            one.result() for one in [both.submit(way, flow, there, back) for way in (_tcp, _udp)]
        ]


class Listener:
    """Takes canaries at one own address and answers with others, in threads that end with the process.

    Of the peer's addresses alone: others, who are no members and come by eth0, are let go unread.
    """

    def __init__(self, address: Address, peer: frozenset[str], there: bytes, back: bytes) -> None:
        """Listen at ports of the kernel's choice. Raises OSError."""
        self._peer, self._there, self._back = peer, there, back
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._tcp = socket.socket(family, socket.SOCK_STREAM)
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        for one in (self._tcp, self._udp):
            one.bind((str(address), 0))
        self._tcp.listen(_MOST_CALLERS)
        self.ports = self._tcp.getsockname()[1], self._udp.getsockname()[1]
        for serve in (self._serve_tcp, self._serve_udp):
            threading.Thread(target=serve, daemon=True).start()

    def _serve_tcp(self) -> None:
        for _ in range(_MOST_CALLERS):
            caller, (host, *_) = self._tcp.accept()
            if host in self._peer:
                threading.Thread(target=self._serve_caller, args=(caller,), daemon=True).start()
            else:
                caller.close()

    def _serve_caller(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError):
            caller.settimeout(_SECONDS)
            # Who does not know the canary gets no answer.
            if _read(caller, TCP_BYTES) == _filled(self._there, TCP_BYTES):
                caller.sendall(_filled(self._back, TCP_BYTES))

    def _serve_udp(self) -> None:
        expected = _filled(self._there, DATAGRAM_BYTES - _NUMBER)
        answer = _filled(self._back, DATAGRAM_BYTES - _NUMBER)
        while True:
            with contextlib.suppress(OSError):
                data, caller = self._udp.recvfrom(DATAGRAM_BYTES + 1)
                if caller[0] in self._peer and data[_NUMBER:] == expected:
                    self._udp.sendto(data[:_NUMBER] + answer, caller)


def _tcp(flow: Flow, there: bytes, back: bytes) -> Flowed:
    with socket.socket(_family(flow), socket.SOCK_STREAM) as caller:
        returned, error = b"", ""
        try:
            caller.settimeout(_SECONDS)
            caller.bind((str(flow.source), 0))
            caller.connect((str(flow.destination), flow.tcp))
            caller.sendall(_filled(there, TCP_BYTES))
            caller.shutdown(socket.SHUT_WR)
            returned = _read(caller, TCP_BYTES)
        except OSError as failed:
            error = _why(failed)
        right = returned == _filled(back, TCP_BYTES)
        error = error or ("" if right else "other bytes came back")
        return _flowed("TCP", flow, caller, flow.tcp, TCP_BYTES, TCP_BYTES * right, error)


def _udp(flow: Flow, there: bytes, back: bytes) -> Flowed:
    answer = _filled(back, DATAGRAM_BYTES - _NUMBER)
    answered, error = 0, ""
    give_up = _now() + _SECONDS
    with socket.socket(_family(flow), socket.SOCK_DGRAM) as caller:
        try:
            caller.bind((str(flow.source), 0))
            caller.connect((str(flow.destination), flow.udp))
            for number in range(DATAGRAMS):
                head = number.to_bytes(_NUMBER, "big")
                datagram = head + _filled(there, DATAGRAM_BYTES - _NUMBER)
                while _now() < give_up and answered == number:
                    caller.send(datagram)
                    answered += _hears(caller, head + answer)
        except OSError as failed:
            error = _why(failed)
        sent, returned = DATAGRAMS * DATAGRAM_BYTES, answered * DATAGRAM_BYTES
        error = error or ("" if returned == sent else "no answer")
        return _flowed("UDP", flow, caller, flow.udp, sent, returned, error)


def _hears(caller: socket.socket, answer: bytes) -> bool:
    """Wait a little for this datagram; later answers to former ones are passed over."""
    until = _now() + _ANSWER_SECONDS
    while (left := until - _now()) > 0:
        caller.settimeout(left)
        try:
            if caller.recv(DATAGRAM_BYTES + 1) == answer:
                return True
        except TimeoutError:
            return False
    return False


def _read(caller: socket.socket, most: int) -> bytes:
    """Read to the end, but not more than one byte above ``most``."""
    parts, left = [], most + 1
    while left and (part := caller.recv(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _flowed(  # noqa: PLR0913, PLR0917 - a row
    protocol: str,
    flow: Flow,
    caller: socket.socket,
    port: int,
    sent: int,
    returned: int,
    error: str,
) -> Flowed:
    source = caller.getsockname()[1]
    ways = _joined(flow.source, source), _joined(flow.destination, port)
    return Flowed(protocol, *ways, sent, returned, error)


def _joined(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _filled(canary: bytes, size: int) -> bytes:
    return (canary * (size // len(canary) + 1))[:size]


def _family(flow: Flow) -> socket.AddressFamily:
    return socket.AF_INET if flow.source.version == 4 else socket.AF_INET6


def _why(error: OSError) -> str:
    return "timed out" if isinstance(error, TimeoutError) else error.strerror or str(error)


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - a program of its own, without an event loop
