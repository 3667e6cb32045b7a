"""Moves packets between the devices and the cores: bounded reads a wake-up, one timer for all sessions."""

import asyncio
import os
import select
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from proxy.drivers.batch import Batch
from proxy.drivers.tun import Tun
from proxy.drivers.udp import Lane, SessionSocket
from proxy.drops import Drop, Drops
from proxy.inbound import Inbound
from proxy.outbound import Outbound, Sending
from proxy.packet.segments import cut
from proxy.session.events import Event
from proxy.session.table import SessionTable

_LARGEST: Final = 65_535 + 10

_READS: Final = 16
"""Packets taken from tenc0 at most before the sockets get their turn; each of these has a bound of its own."""

_LOOK_OUT: Final = 300e-6
"""Seconds that we look out for more work after the last, and within which work is soon."""

_SMALL: Final = 4096
_BULK: Final = 1e-3
"""Bytes above which work is bulk, and seconds without any before we look out again: bulk gains nothing by it."""

_TURN: Final = 2e-3
"""Seconds that we keep the event loop from its other work."""


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
        look_up: Callable[[bytes, Callable[[], None]], None],
    ) -> None:
        """Join devices and cores; ``sockets`` by IP version.

        ``tell`` hears each event, ``fail`` that tenc0 is gone; ``look_up`` finds out whose an address is, and
        calls back.
        """
        self._tun, self._sockets = tun, sockets
        self._table, self._outbound, self._inbound = table, outbound, inbound
        self._drops, self._tell, self._fail, self._look_up = drops, tell, fail, look_up
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(_LARGEST))
        self._batch = Batch(self._send)
        self._epoll = select.epoll()
        self._last = self._look_out_after = self._look_out_until = 0.0
        self._sources = {lane.fileno(): lane for lane in self._lanes()}
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None

    def start(self) -> None:
        """Take packets from now on."""
        self._epoll.register(self._tun.fileno(), select.EPOLLIN)
        for lane in self._lanes():
            self._epoll.register(lane.fileno(), select.EPOLLIN)
        self._loop.add_reader(self._epoll.fileno(), self._run)

    def offloads(self) -> dict[str, bool]:
        """Which of the offloads are in use; names as in the settings."""
        sockets = self._sockets.values()
        tunnel = {name: name in self._tun.offloads for name in ("tso", "uso")}
        return tunnel | {
            "gso": all(one.cuts for one in sockets),
            "gro": all(one.joins for one in sockets),
        }

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
        """Work while there is any, look out for more a moment longer, then let the event loop have its turn.

        Looking out costs CPU, and saves an answer that comes soon the waking of a sleeper. So it is done only where
        the last two pieces of work were small and came soon one after the other, and gives way to all who want the CPU.
        """
        poll, time = self._epoll.poll, self._loop.time
        began = time()
        reads = dict[int, int]()
        try:
            while True:
                ready = poll(0)
                now = time()
                if ready:
                    # More only where work was left over: an attempt in vain costs as much as a packet.
                    reads = {one: min(2 * reads.get(one, 0) or 1, _READS) for one, _ in ready}
                    self._work(reads, now)
                elif now < self._look_out_until:
                    os.sched_yield()
                else:
                    return
                if now >= began + _TURN:
                    return
        except OSError as error:
            self._fail(error)

    def _work(self, ready: dict[int, int], now: float) -> None:
        soon = now < self._last + _LOOK_OUT
        self._last = now
        small = True
        for descriptor, reads in ready.items():
            lane = self._sources.get(descriptor)
            if lane is None:
                small &= self._from_tun(reads, now)
            else:
                small &= self._from_network(lane, min(reads, lane.reads), now)
        self.settle()
        if not small:
            self._look_out_after = now + _BULK
        look_out = soon and small and now >= self._look_out_after
        self._look_out_until = now + _LOOK_OUT if look_out else 0.0

    def _from_tun(self, reads: int, now: float) -> bool:
        """Take up to ``reads`` packets; say whether all were small."""
        buffer, read = self._buffer, self._tun.read_into
        # Where packets come one at a time there is nothing to put together.
        send = self._send if reads == 1 else self._batch.add
        largest = 0
        for _ in range(reads):
            size = read(buffer)
            if not size:
                break
            largest = max(largest, size)
            for sending in self._outbound.packets(buffer[:size], now):
                send(sending)
        self._batch.flush()
        return largest <= _SMALL

    def _from_network(self, lane: Lane, reads: int, now: float) -> bool:
        """Take what up to ``reads`` receives bring; say whether all was small."""
        buffer = self._inbound.buffer
        largest = 0
        for _ in range(reads):
            received = lane.receive(buffer)
            if received is None:
                break
            total, size, source, ecn = received
            largest = max(largest, total)
            for frame in self._inbound.datagrams(total, size, source, now, ecn):
                if not self._tun.write(frame):
                    self._deliver_cut(frame)
        if self._inbound.refusals:
            self._send_back(now)
        return largest <= _SMALL

    def _send_back(self, now: float) -> None:
        """Tell peers what was refused."""
        for session, packet in self._inbound.refusals:
            for sending in self._outbound.send_back(session, packet, now):
                self._send(sending)
        self._inbound.refusals.clear()

    def _deliver_cut(self, frame: memoryview) -> None:
        """Write a super-packet's packets one by one: Linux before 6.2 takes none of UDP."""
        taken = [self._tun.write(memoryview(part)) for part in cut(frame)]
        if not taken or not all(taken):
            self._drops[Drop.TUN] += 1

    def _on_timer(self) -> None:
        self._timer = self._due = None
        self._table.handle_timer(self._loop.time())
        self.settle()

    def settle(self) -> None:
        """Do what the last call left to be done: events, datagrams, replies, the next timer."""
        while self._outbound.lookups.wanted:
            address = self._outbound.lookups.wanted.popleft()
            self._look_up(address, partial(self._looked_up, address))
        if self._table.has_news or self._outbound.replies:
            self._tell_news()
        due = self._table.next_timer()
        if due != self._due:
            self._due = due
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if due is None else self._loop.call_at(due, self._on_timer)

    def _looked_up(self, address: bytes) -> None:
        self._outbound.looked_up(address, self._loop.time())
        self._loop.call_soon(self.settle)

    def _tell_news(self) -> None:
        while event := self._table.next_event():
            for sending in self._outbound.heard(event, self._loop.time()):
                self._send(sending)
            self._tell(event)
        for data, endpoint in self._table.datagrams_to_send():
            self._send((data, len(data), endpoint, 0))
        self._reply()

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
