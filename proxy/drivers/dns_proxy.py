"""The DNS proxy over UDP: queries of the pod's programs to its resolvers, answers back once they have been heeded.

Each query goes on by a socket of its own: its port and id are what a forger on the network must guess, beside the
question's letters. TCP is `proxy.drivers.dns_stream`'s.
"""

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from proxy.dns import wire
from proxy.dns.wire import Query
from proxy.drops import Drop, Drops
from proxy.errors import Dropped

Address: TypeAlias = IPv4Address | IPv6Address

MOST_UNDER_WAY: Final = 512
PATIENCE: Final = 5.0
"""Seconds that an answer is waited for, and then until it is heeded; programs ask again after as many."""

OWN_PATIENCE: Final = 2.0
"""Seconds that a question of our own waits before the next resolver is asked: packets wait for its answer."""

DNS_PORT: Final = 53
_LARGEST: Final = 65_535
_READS: Final = 32
_HEEDED: Final = frozenset({wire.A, wire.AAAA, wire.PTR, wire.ANY})

Heard: TypeAlias = Callable[[Query, bytes], bool | Awaitable[bool]]
"""Is told of each answer that can matter, before the program is; False: it shall not have it."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where programs' queries arrive, by UDP and TCP, and whom they are for."""

    datagrams: socket.socket
    stream: socket.socket
    resolver: tuple[Address, int]


@dataclass(slots=True)
class _Pending:
    """A query under way: where it came from and what it was, and the socket by which the answer comes."""

    socket: socket.socket
    number: int
    query: Query
    answer: Callable[[bytes | None], None]
    deadline: float


def listen(address: str, port: int, resolver: tuple[Address, int]) -> Way:
    """Open what listens for one resolver's queries. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    datagrams = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        datagrams.bind((address, port))
        stream = socket.create_server((address, datagrams.getsockname()[1]), family=family)
    except OSError:
        datagrams.close()
        raise
    stream.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return Way(datagrams, stream, resolver)


class DnsProxy:
    """Runs in the event loop from `start` to `stop`."""

    def __init__(self, ways: Iterable[Way], heard: Heard, drops: Drops) -> None:
        """Serve ``ways``; ``heard`` is told of answers."""
        self.ways = tuple(ways)
        self.heard = heard
        self.drops = drops
        self.queries = 0
        """How many were taken, over UDP and TCP."""
        self._pending: dict[socket.socket, _Pending] = {}
        self._tasks: set[asyncio.Future[bool]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take queries from now on."""
        self._loop = asyncio.get_running_loop()
        for way in self.ways:
            self._loop.add_reader(way.datagrams, self._from_programs, way)

    def stop(self) -> None:
        """Take none; whoever waits hears nothing more."""
        for way in self.ways:
            self._loop.remove_reader(way.datagrams)
            way.datagrams.close()
        for pending in list(self._pending.values()):
            self._end(pending)
            pending.answer(None)
        for task in self._tasks:
            task.cancel()
        if self._sweep is not None:
            self._sweep.cancel()

    @property
    def under_way(self) -> int:
        """How many queries wait for an answer, or for that to be heeded."""
        return len(self._pending) + len(self._tasks)

    async def ask(self, name: str, kind: int) -> bytes | None:
        """Return the answer to a question of our own, once heeded; each resolver in turn. None: nobody answers.

        Raises ValueError for what is no domain name.
        """
        query = wire.make_query(0, name, kind)
        parsed = wire.parse_query(query)
        for way in self.ways:
            future: asyncio.Future[bytes | None] = self._loop.create_future()

            def take(data: bytes | None, future: asyncio.Future[bytes | None] = future) -> None:
                if not future.done():
                    future.set_result(data)

            self._forward(way, query, parsed, take)
            try:
                async with asyncio.timeout(OWN_PATIENCE):
                    data = await future
            except TimeoutError:
                continue
            if data is not None and wire.rcode(data) != wire.SERVFAIL:
                return data
        return None

    # A query's way, and its answer's.

    def _from_programs(self, way: Way) -> None:
        for _ in range(_READS):
            try:
                data, program = way.datagrams.recvfrom(_LARGEST)
            except OSError:  # nothing more, or what an earlier answer met
                return
            try:
                query = wire.parse_query(data)
            except Dropped as dropped:
                self.drops[dropped.reason] += 1
                continue
            self.queries += 1
            self._forward(way, data, query, partial(self._to_program, way, program, query, data))

    def _to_program(
        self, way: Way, program: tuple[str, int], query: Query, asked: bytes, data: bytes | None
    ) -> None:
        answer = wire.refusal(query, asked) if data is None else wire.renumbered(data, query.id)
        try:
            way.datagrams.sendto(answer, program)
        except OSError:
            self.drops[Drop.SOCKET] += 1

    def _forward(
        self, way: Way, data: bytes, query: Query, answer: Callable[[bytes | None], None]
    ) -> None:
        """Ask the resolver by a new socket, whose port the kernel chooses at random."""
        if self.under_way >= MOST_UNDER_WAY:
            self.drops[Drop.DNS_FULL] += 1
            if not self._pending:  # an answer that is being heeded is not given up for a question
                answer(None)
                return
            oldest = next(iter(self._pending.values()))
            self._end(oldest)
            oldest.answer(None)
        address, port = way.resolver
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        number = secrets.randbits(16)
        try:
            opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:  # no more of them
            self.drops[Drop.SOCKET] += 1
            answer(None)
            return
        try:
            opened.connect((str(address), port))
            opened.send(wire.renumbered(data, number))
        except OSError:
            opened.close()
            answer(None)
            return
        deadline = self._loop.time() + PATIENCE
        pending = self._pending[opened] = _Pending(opened, number, query, answer, deadline)
        self._loop.add_reader(opened, self._from_resolver, pending)
        if self._sweep is None:
            self._sweep = self._loop.call_at(deadline, self._give_up)

    def _from_resolver(self, pending: _Pending) -> None:
        try:
            data = pending.socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:  # the resolver's machine says that nobody listens
            self._end(pending)
            pending.answer(None)
            return
        if not wire.matches(data, pending.number, pending.query.question):
            self.drops[Drop.DNS_FORGED] += 1
            return
        self._end(pending)
        self._heed(pending, data)

    def _heed(self, pending: _Pending, data: bytes) -> None:
        verdict = self.hear(pending.query, data)
        if isinstance(verdict, bool):
            self._answer(pending, data, heeded=verdict)
            return
        task = asyncio.ensure_future(verdict)  # noqa: TID251 - kept until it is done, cancelled by `stop`
        self._tasks.add(task)

        def done(task: asyncio.Future[bool]) -> None:
            self._tasks.discard(task)
            self._answer(pending, data, heeded=not task.cancelled() and task.result())

        task.add_done_callback(done)

    def _answer(self, pending: _Pending, data: bytes, *, heeded: bool) -> None:
        if heeded:
            pending.answer(data)
        elif wire.is_truncated(data):
            # What is cut off cannot always be read: by TCP the program gets it whole, or a refusal.
            pending.answer(wire.without_records(data, pending.query))
        else:
            pending.answer(None)

    def hear(self, query: Query, data: bytes) -> bool | Coroutine[None, None, bool]:
        """Tell of an answer that can matter; say whether programs may have it. One that nobody can read they may not.

        Raises nothing, and neither does what is to be awaited.
        """
        if query.type not in _HEEDED or wire.rcode(data) != wire.NOERROR:
            return True
        try:
            verdict = self.heard(query, data)
        except Exception as error:  # noqa: BLE001 - told below
            self._refuse(error)
            return False
        if not isinstance(verdict, bool):
            return self._patiently(verdict)
        if not verdict:
            self.drops[Drop.DNS_REFUSED] += 1
        return verdict

    async def _patiently(self, verdict: Awaitable[bool]) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                heeded = await verdict
        except Exception as error:  # noqa: BLE001 - told below
            self._refuse(error)
            return False
        if not heeded:
            self.drops[Drop.DNS_REFUSED] += 1
        return heeded

    def _refuse(self, error: Exception) -> None:
        """Count why an answer cannot be heeded; what is a bug is told as one, and ends nothing but this answer."""
        if isinstance(error, Dropped):
            self.drops[error.reason] += 1
            return
        self.drops[Drop.DNS_REFUSED] += 1
        if not isinstance(error, TimeoutError):
            told = {"message": "a DNS answer", "exception": error}
            self._loop.call_exception_handler(told)

    def _end(self, pending: _Pending) -> None:
        del self._pending[pending.socket]
        self._loop.remove_reader(pending.socket)
        pending.socket.close()

    def _give_up(self) -> None:
        """End those whose time is over: the oldest come first."""
        self._sweep = None
        now = self._loop.time()
        for pending in list(self._pending.values()):
            if pending.deadline > now:
                self._sweep = self._loop.call_at(pending.deadline, self._give_up)
                return
            self._end(pending)
            pending.answer(None)
