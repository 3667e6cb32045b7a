"""The DNS proxy over TCP (RFC 7766), for what is too large for UDP: a connection to the resolver for each."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from proxy.dns import wire
from proxy.dns.wire import Query
from proxy.drivers.dns_proxy import DnsProxy, Way
from proxy.drops import Drop
from proxy.errors import Dropped

MOST_CONNECTIONS: Final = 64
MOST_QUERIES: Final = 64
"""Of one connection that wait for an answer."""

IDLE: Final = 10.0
"""Seconds without a message after which a connection ends (RFC 7766 section 6.2.3 asks for seconds)."""


class DnsStreams:
    """Serves the TCP part of a proxy's ways."""

    def __init__(self, proxy: DnsProxy) -> None:
        """Tell ``proxy.heard`` of answers, as over UDP."""
        self._proxy = proxy
        self._open = 0

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serve as long as the context lasts."""
        async with asyncio.TaskGroup() as connections:
            tasks, servers = set[asyncio.Task[None]](), list[asyncio.Server]()
            for way in self._proxy.ways:

                def connected(
                    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way = way
                ) -> None:
                    task = connections.create_task(self._connected(way, reader, writer))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)

                servers.append(await asyncio.start_server(connected, sock=way.stream))
            try:
                yield
            finally:
                for server in servers:
                    server.close()
                for task in tasks:
                    task.cancel()

    async def _connected(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._open >= MOST_CONNECTIONS:
            self._proxy.drops[Drop.DNS_FULL] += 1
            writer.close()
            return
        self._open += 1
        try:
            async with asyncio.timeout(IDLE) as idle:
                address, port = way.resolver
                theirs, to_resolver = await asyncio.open_connection(str(address), port)
                try:
                    link = _Link(self._proxy, idle)
                    async with asyncio.TaskGroup() as both:
                        answers = both.create_task(link.answers(theirs, writer))
                        await link.queries(reader, to_resolver)
                        if not link.asked:
                            answers.cancel()
                finally:
                    to_resolver.close()
        except* (OSError, TimeoutError, asyncio.IncompleteReadError, _OverError):
            pass
        except* Dropped as group:
            for dropped in group.exceptions:
                if isinstance(dropped, Dropped):
                    self._proxy.drops[dropped.reason] += 1
        finally:
            self._open -= 1
            writer.close()


class _OverError(Exception):
    """A connection has served its purpose."""


class _Link:
    """A program's connection and the resolver's."""

    def __init__(self, proxy: DnsProxy, idle: asyncio.Timeout) -> None:
        self._proxy, self._idle = proxy, idle
        self.asked: dict[int, Query] = {}
        self._ended = False

    async def queries(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass queries on until the program has no more."""
        while (data := await self._message(reader)) is not None:
            query = wire.parse_query(data)
            if len(self.asked) >= MOST_QUERIES or query.id in self.asked:
                raise Dropped(Drop.DNS_FULL)
            self.asked[query.id] = query
            self._proxy.queries += 1
            await self._send(writer, data)
        self._ended = True

    async def answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass answers back until the resolver has no more, or all are answered that ever will be asked."""
        while (data := await self._message(reader)) is not None:
            number = int.from_bytes(data[:2], "big")
            query = self.asked.get(number)
            if query is None or not wire.matches(data, number, query.question):
                raise Dropped(Drop.DNS_FORGED)
            del self.asked[number]
            told = self._proxy.hear(query, data)
            verdict = told if isinstance(told, bool) else await told
            asked = wire.HEADER.pack(query.id, 0x0100, 1, 0, 0, 0)
            await self._send(writer, data if verdict else wire.refusal(query, asked))
            if self._ended and not self.asked:
                return
        raise _OverError

    async def _message(self, reader: asyncio.StreamReader) -> bytes | None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        data = await reader.readexactly(size)
        self._idle.reschedule(asyncio.get_running_loop().time() + IDLE)
        return data

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(len(data).to_bytes(2, "big") + data)
        await writer.drain()
