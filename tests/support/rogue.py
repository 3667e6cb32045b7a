"""A pod with a good certificate that runs no proxy: what it seals and sends, the test decides."""

import asyncio
import os
import select
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final, Self

from support import joining
from support.arrivals import deliver
from support.capture import SESSION_PORT
from support.namespaces import Pod
from support.processes import HarnessError
from support.servers import CHUNK, SOCKET_SECONDS, bound
from support.tencrypt import ProjectCA

from ca.messages import SignResponse
from proxy.credentials.csr import make_key_and_csr
from proxy.drivers import ca_client, clock
from proxy.drops import Drops
from proxy.inbound import Inbound
from proxy.session.events import SessionOpened
from proxy.session.pieces import datagrams
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.session.wire import PREFIX, RECORD_OVERHEAD

LARGEST: Final = 1452
"""Bytes of UDP payload over IPv6 on an interface of 1,500."""

CLOSING_SECONDS: Final = 0.25

PLAIN_PREFIX: Final = bytes(PREFIX)
"""In front of a packet: kind 0, a zero, no segment size."""


class Rogue:
    """The product's own sessions over one IPv4 socket, driven only while a method runs."""

    def __init__(self, pod: Pod, ca: ProjectCA) -> None:
        """Have the CA certify the pod, and bind its session port."""
        self.pod = pod
        key, csr = make_key_and_csr()
        asked, token = ca_client.Ca(ca.address, ca.fingerprint, ca.trust_domain), ca.token(pod)

        async def obtain() -> SignResponse:
            answer = await joining.obtain(asked, token, csr)
            # aiohttp closes TLS connections a moment later ("Graceful Shutdown" in its manual).
            await asyncio.sleep(CLOSING_SECONDS)
            return answer

        answer = pod.call(lambda: asyncio.run(obtain()))
        self._credential = joining.built(key, answer)
        self._offset = answer.time - clock.monotonic()
        self._socket = bound(pod, pod.ipv4, socket.SOCK_DGRAM, SESSION_PORT)
        self._opened: list[Session] = []
        self.sent: list[bytes] = []
        """Each handshake datagram and control record of its own, in order."""
        self.restart()

    def __enter__(self) -> Self:
        """Be closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self._socket.close()

    def restart(self) -> None:
        """Forget all sessions and handshakes, and what has not been heard yet."""
        self.sent.clear()
        while select.select([self._socket], [], [], 0)[0]:
            self._socket.recv(CHUNK)
        self._table = SessionTable(
            self._credential,
            SESSION_PORT,
            os.urandom,
            Drops(),
            wall_offset=self._offset,
            largest=LARGEST,
        )
        self._inbound = Inbound(
            self._table, self._credential.own.addresses, Drops(), LARGEST - RECORD_OVERHEAD
        )

    def handshake(self, victim: Pod) -> Session:
        """Complete a handshake with the victim, beside what there is; the session, confirmed."""
        self._opened.clear()
        self._call(victim)
        self.run_until("a session", self._is_opened)
        return self._opened[0]

    def try_handshake(self, victim: Pod, patience: float) -> bool:
        """Begin a handshake and say whether it is complete within `patience` seconds."""
        self._opened.clear()
        self._call(victim)
        give_up = clock.monotonic() + patience
        self.run_until("its end", lambda: self._is_opened() or clock.monotonic() > give_up)
        return bool(self._opened)

    def ask(self, victim: Pod, datagram: bytes, kind: int) -> bytes:
        """Send a datagram from the session port; the next of type `kind` that comes back."""
        self._socket.sendto(datagram, (victim.ipv4, SESSION_PORT))
        return self.hear(kind)

    def hear(self, kind: int) -> bytes:
        """Give the next datagram of type `kind`, which no session here sees, nor what is before."""
        while (data := self._socket.recv(CHUNK))[0] != kind:
            pass
        return data

    def _call(self, victim: Pod) -> None:
        self._table.connect(ip_address(victim.ipv4).packed, clock.monotonic())

    def _is_opened(self) -> bool:
        while event := self._table.next_event():
            if isinstance(event, SessionOpened):
                self._opened.append(event.session)
        return bool(self._opened)

    def run_until(self, what: str, done: Callable[[], bool]) -> None:
        """Send, receive and keep time until `done`."""
        give_up = clock.monotonic() + SOCKET_SECONDS
        while True:
            self._transmit()
            if done():
                return
            now = clock.monotonic()
            if now > give_up:
                raise HarnessError(f"{self.pod.label} waited {SOCKET_SECONDS:g} s for {what}")
            due = self._table.next_timer()
            pause = min(give_up, now + 0.1 if due is None else due) - now
            if select.select([self._socket], [], [], max(0.0, pause))[0]:
                data, source = self._socket.recvfrom(CHUNK)
                deliver(self._inbound, data, source, clock.monotonic())
            self._table.handle_timer(clock.monotonic())

    def seal(self, session: Session, plain: bytes, size: int = LARGEST) -> list[bytes]:
        """Seal prefix and body as they are; the datagrams."""
        sealed = session.seal(plain, size, clock.monotonic())
        return [bytes(one) for one in datagrams(sealed, size)]

    def send(self, session: Session, *records: bytes) -> int:
        """Send datagrams to where the session's peer is; how many."""
        for record in records:
            self._socket.sendto(record, session.endpoint)
        return len(records)

    def _transmit(self) -> None:
        for data, endpoint in self._table.datagrams_to_send():
            self.sent.append(data)
            self._socket.sendto(data, endpoint)
