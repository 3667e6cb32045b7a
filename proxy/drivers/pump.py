"""Moves packets between the devices and the cores: bounded reads a wake-up, one timer for all sessions."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from proxy.drivers.tun import Tun
from proxy.drivers.udp import SessionSocket
from proxy.drops import Drop, Drops
from proxy.inbound import Inbound
from proxy.outbound import Outbound, Sending
from proxy.session.events import CallFailed, Event, SessionOpened
from proxy.session.record import datagrams
from proxy.session.table import SessionTable

READS: Final = 32
"""Packets taken from one device before the others get their turn."""

_LARGEST: Final = 65_535 + 10


class Pump:
    """Runs in the event loop that made it, from `start` to `stop`."""

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        *,
        tun: Tun,
        sockets: Mapping[int, SessionSocket],
        table: SessionTable,
        outbound: Outbound,
        inbound: Inbound,
        drops: Drops,
        tell: Callable[[Event], None],
        fail: Callable[[OSError], None],
    ) -> None:
        """Join devices and cores; ``sockets`` by IP version.

        ``tell`` hears each event, ``fail`` that tenc0 is gone.
        """
        self._tun, self._sockets = tun, sockets
        self._table, self._outbound, self._inbound = table, outbound, inbound
        self._drops, self._tell, self._fail = drops, tell, fail
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(_LARGEST))
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take packets from now on."""
        self._loop.add_reader(self._tun.fileno(), self._from_tun)
        for session_socket in self._sockets.values():
            self._loop.add_reader(session_socket.fileno(), self._from_network, session_socket)

    def stop(self) -> None:
        """Take none, close all sessions in good order."""
        self._loop.remove_reader(self._tun.fileno())
        for session_socket in self._sockets.values():
            self._loop.remove_reader(session_socket.fileno())
        self._table.close(self._loop.time())
        self._settle()
        if self._timer is not None:
            self._timer.cancel()

    def settle(self) -> None:
        """Do what a call of the table by somebody else left to be done."""
        self._settle()

    def _from_tun(self) -> None:
        now = self._loop.time()
        buffer = self._buffer
        try:
            for _ in range(READS):
                size = self._tun.read_into(buffer)
                if not size:
                    break
                sending = self._outbound.packet(buffer[:size], now)
                if sending is not None:
                    self._send(sending)
        except OSError as error:
            self._fail(error)
        self._settle()

    def _from_network(self, session_socket: SessionSocket) -> None:
        now = self._loop.time()
        buffer = self._buffer
        try:
            for _ in range(READS):
                received = session_socket.receive(buffer)
                if received is None:
                    break
                size, source = received
                frame = self._inbound.datagram(buffer[:size], source, now)
                if frame is not None and not self._tun.write(frame):
                    self._drops[Drop.TUN] += 1
        except OSError as error:
            self._fail(error)
        self._settle()

    def _on_timer(self) -> None:
        self._timer = None
        self._table.handle_timer(self._loop.time())
        self._settle()

    def _settle(self) -> None:
        """Do what the last call left to be done: events, datagrams, the next timer."""
        while event := self._table.next_event():
            if isinstance(event, SessionOpened):
                for sending in self._outbound.flush(event.session, self._loop.time()):
                    self._send(sending)
            elif isinstance(event, CallFailed):
                self._outbound.give_up(event.address)
            self._tell(event)
        for data, endpoint in self._table.datagrams_to_send():
            self._send(([memoryview(data)], endpoint))
        due = self._table.next_timer()
        if self._timer is not None and (due is None or due != self._timer.when()):
            self._timer.cancel()
            self._timer = None
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._on_timer)

    def _send(self, sending: Sending) -> None:
        pieces, endpoint = sending
        session_socket = self._sockets.get(6 if ":" in endpoint[0] else 4)
        for data in pieces if len(pieces) == 1 else datagrams(pieces):
            if session_socket is None or not session_socket.send(data, endpoint):
                self._drops[Drop.SOCKET] += 1
