"""Moves packets between the devices and the cores: bounded reads a wake-up, one timer for all sessions."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from proxy.drivers.tun import Tun
from proxy.drivers.udp import READS, Lane, SessionSocket
from proxy.drops import Drop, Drops
from proxy.inbound import Inbound
from proxy.outbound import Outbound, Sending
from proxy.session.events import CallFailed, Event, SessionOpened
from proxy.session.record import datagrams
from proxy.session.table import SessionTable

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
        for lane in self._lanes():
            self._loop.add_reader(lane.fileno(), self._from_network, lane)

    def stop(self) -> None:
        """Take none, close all sessions in good order."""
        self._loop.remove_reader(self._tun.fileno())
        for lane in self._lanes():
            self._loop.remove_reader(lane.fileno())
        self._table.close(self._loop.time())
        self.settle()
        if self._timer is not None:
            self._timer.cancel()

    def _lanes(self) -> list[Lane]:
        return [lane for sockets in self._sockets.values() for lane in sockets.lanes]

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
        self.settle()

    def _from_network(self, lane: Lane) -> None:
        now = self._loop.time()
        buffer = self._buffer
        try:
            for _ in range(lane.reads):
                received = lane.receive(buffer)
                if received is None:
                    break
                size, source, ecn = received
                frame = self._inbound.datagram(buffer[:size], source, now, ecn)
                if frame is not None and not self._tun.write(frame):
                    self._drops[Drop.TUN] += 1
        except OSError as error:
            self._fail(error)
        self.settle()

    def _on_timer(self) -> None:
        self._timer = None
        self._table.handle_timer(self._loop.time())
        self.settle()

    def settle(self) -> None:
        """Do what the last call left to be done: events, datagrams, the next timer."""
        while event := self._table.next_event():
            if isinstance(event, SessionOpened):
                for sending in self._outbound.flush(event.session, self._loop.time()):
                    self._send(sending)
            elif isinstance(event, CallFailed):
                self._outbound.give_up(event.address)
            self._tell(event)
        for data, endpoint in self._table.datagrams_to_send():
            self._send(([memoryview(data)], endpoint, 0))
        self._reply()
        due = self._table.next_timer()
        if self._timer is not None and (due is None or due != self._timer.when()):
            self._timer.cancel()
            self._timer = None
        if due is not None and self._timer is None:
            self._timer = self._loop.call_at(due, self._on_timer)

    def _reply(self) -> None:
        """Write to tenc0 what an application must be told of packets that were refused."""
        replies = self._outbound.replies
        for frame in replies:
            if not self._tun.write(memoryview(frame)):
                self._drops[Drop.TUN] += 1
        replies.clear()

    def _send(self, sending: Sending) -> None:
        pieces, endpoint, ecn = sending
        session_socket = self._sockets.get(6 if ":" in endpoint[0] else 4)
        for data in pieces if len(pieces) == 1 else datagrams(pieces):
            if session_socket is None or not session_socket.send(data, endpoint, ecn):
                self._drops[Drop.SOCKET] += 1
