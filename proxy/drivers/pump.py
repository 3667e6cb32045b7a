"""Moves packets between the devices and the cores: bounded reads a wake-up, one timer for all sessions."""

import asyncio
import select
from collections.abc import Callable, Mapping
from typing import Final

from proxy.drivers.tun import Tun
from proxy.drivers.udp import Lane, SessionSocket
from proxy.drops import Drop, Drops
from proxy.inbound import Inbound
from proxy.outbound import Outbound, Sending
from proxy.packet.segments import cut
from proxy.session.events import CallFailed, Event, SessionOpened
from proxy.session.table import SessionTable

_LARGEST: Final = 65_535 + 10

_PACKETS: Final = 16
"""Packets taken from tenc0 before the sockets get their turn."""

_LOOK_OUT: Final = 60e-6
_TURN: Final = 2e-3
"""Seconds that we look out for more work after the last, and that we keep the event loop from its other work."""


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
        self._epoll = select.epoll()
        self._sources = {lane.fileno(): lane for lane in self._lanes()}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take packets from now on."""
        self._epoll.register(self._tun.fileno(), select.EPOLLIN)
        for lane in self._lanes():
            self._epoll.register(lane.fileno(), select.EPOLLIN)
        self._loop.add_reader(self._epoll.fileno(), self._run)

    def stop(self) -> None:
        """Take none, close all sessions in good order."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._table.close(self._loop.time())
        self.settle()
        if self._timer is not None:
            self._timer.cancel()

    def _lanes(self) -> list[Lane]:
        return [lane for sockets in self._sockets.values() for lane in sockets.lanes]

    def _run(self) -> None:
        """Work while there is any, and look out for more a moment longer; then let the event loop have its turn.

        Looking out costs CPU and no sleep: an answer that comes within `_LOOK_OUT` meets nobody who must wake up.
        """
        poll, time, sources = self._epoll.poll, self._loop.time, self._sources
        began = last = time()
        try:
            while True:
                ready = poll(0)
                now = time()
                if ready:
                    for descriptor, _ in ready:
                        lane = sources.get(descriptor)
                        if lane is None:
                            self._from_tun(now)
                        else:
                            self._from_network(lane, now)
                    self.settle()
                    last = now
                elif now >= last + _LOOK_OUT:
                    return
                if now >= began + _TURN:
                    return
        except OSError as error:
            self._fail(error)

    def _from_tun(self, now: float) -> None:
        buffer, read = self._buffer, self._tun.read_into
        for _ in range(_PACKETS):
            size = read(buffer)
            if not size:
                return
            for sending in self._outbound.packets(buffer[:size], now):
                self._send(sending)

    def _from_network(self, lane: Lane, now: float) -> None:
        buffer = self._inbound.buffer
        for _ in range(lane.reads):
            received = lane.receive(buffer)
            if received is None:
                return
            for frame in self._inbound.datagrams(*received[:3], now, received[3]):
                if not self._tun.write(frame):
                    self._deliver_cut(frame)

    def _deliver_cut(self, frame: memoryview) -> None:
        """Write a super-packet's packets one by one: Linux before 6.2 takes none of UDP."""
        taken = [self._tun.write(memoryview(part)) for part in cut(frame)]
        if not taken or not all(taken):
            self._drops[Drop.TUN] += 1

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
            self._send((data, len(data), endpoint, 0))
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
        data, size, endpoint, ecn = sending
        session_socket = self._sockets.get(6 if ":" in endpoint[0] else 4)
        if session_socket is None or not session_socket.send(data, size, endpoint, ecn):
            self._drops[Drop.SOCKET] += 1
