"""The DNS proxy over TCP, before servers that answer out of order, lie, or hang up; and programs that do."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import dns.rrset
import pytest
from support.dns_proxied import WEB, Served, ask, forged, proxied, texts
from support.dns_server import dnsmasq_here

from proxy.dns import wire
from proxy.drivers import dns_stream
from proxy.drops import Drop

RECORDS = (f"host-record={WEB},10.0.0.2",)

Answering = Callable[[list[bytes]], Sequence[bytes]]


async def read_message(reader: StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


def framed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


@asynccontextmanager
async def answers_when_asked(times: int, answering: Answering) -> AsyncIterator[int]:
    """Serve over TCP: each connection's first queries, so many, are answered together; yields the port."""

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        queries = [await read_message(reader) for _ in range(times)]
        writer.write(framed(*answering(queries)))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()


def right(query: bytes) -> bytes:
    made = dns.message.make_response(dns.message.from_wire(query))
    made.answer = [dns.rrset.from_text(f"{WEB}.", 30, "IN", "A", f"10.0.0.{query[1]}")]
    return made.to_wire()


async def test_many_queries_at_once_get_their_own_answers_in_whatever_order() -> None:
    def answering(queries: list[bytes]) -> Sequence[bytes]:
        return [right(query) for query in (queries[2], queries[0], queries[1])]

    async with answers_when_asked(3, answering) as server, proxied(server) as served:
        async with connected(served) as (reader, writer):
            queries = [wire.make_query(number, WEB, wire.A) for number in (1, 2, 3)]
            writer.write(framed(*queries))
            writer.write_eof()  # RFC 7766 section 6.2.4: what was asked is still answered
            answers = [dns.message.from_wire(await read_message(reader)) for _ in queries]
            assert [(one.id, texts(one)) for one in answers] == [
                (3, {"10.0.0.3"}),
                (1, {"10.0.0.1"}),
                (2, {"10.0.0.2"}),
            ]
            assert await reader.read() == b""
        assert len(served.told.answers) == 3


@pytest.mark.parametrize(
    "lie",
    [
        lambda query: forged(query, id=query[1] ^ 1),
        lambda query: forged(dns.message.make_query("x.example", "A", id=query[1]).to_wire()),
        lambda query: query,
        lambda query: query[:11],
        lambda _query: b"",
    ],
    ids=["other id", "other question", "no answer", "no header", "nothing"],
)
async def test_a_forged_answer_ends_the_connection_and_reaches_no_program(
    lie: Callable[[bytes], bytes],
) -> None:
    async with (
        answers_when_asked(1, lambda queries: [lie(queries[0]), right(queries[0])]) as server,
        proxied(server) as served,
    ):
        async with connected(served) as (reader, writer):
            writer.write(framed(wire.make_query(7, WEB, wire.A)))
            assert await reader.read() == b""
        assert served.drops[Drop.DNS_FORGED] == 1
        assert not served.told.answers


async def test_an_answer_counts_once() -> None:
    async with (
        answers_when_asked(1, lambda queries: [right(queries[0])] * 2) as server,
        proxied(server) as served,
    ):
        async with connected(served) as (reader, writer):
            writer.write(framed(wire.make_query(7, WEB, wire.A)))
            assert texts(dns.message.from_wire(await read_message(reader))) == {"10.0.0.7"}
            assert await reader.read() == b""
        assert served.drops[Drop.DNS_FORGED] == 1
        assert len(served.told.answers) == 1


async def test_a_large_message_of_a_program_and_of_the_server_pass_whole() -> None:
    seen = []

    def answering(queries: list[bytes]) -> Sequence[bytes]:
        seen.extend(queries)
        answer = dns.message.make_response(dns.message.from_wire(queries[0], ignore_trailing=True))
        return [answer.to_wire().ljust(65535, b"\0")]

    async with (
        answers_when_asked(1, answering) as server,
        proxied(server) as served,
        connected(served) as (reader, writer),
    ):
        query = wire.make_query(7, WEB, 16).ljust(65535, b"\0")
        writer.write(framed(query))
        assert len(await read_message(reader)) == 65535
        assert seen == [query]


async def test_programs_that_hold_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "MOST_CONNECTIONS", 2)
    query = framed(wire.make_query(7, WEB, wire.A))
    async with (
        answers_when_asked(1, lambda queries: [right(queries[0])]) as server,
        proxied(server) as served,
        connected(served) as (reader, writer),
        connected(served) as (other, more),
    ):
        for stream, ends in ((reader, writer), (other, more)):
            ends.write(query)
            assert await read_message(stream)
        async with connected(served) as (third, _):
            assert await third.read() == b""
        assert served.drops[Drop.DNS_FULL] == 1
        writer.write_eof()
        assert await reader.read() == b""
        async with connected(served) as (fourth, ends):
            ends.write(query)
            assert await read_message(fourth)


async def test_a_silent_connection_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_stream, "IDLE", 0.2)
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served, connected(served) as (reader, writer):
            writer.write(b"\0")  # half a length
            assert await reader.read() == b""


@pytest.mark.parametrize("numbers", [[*range(1, 9)], [5, 5]], ids=["many", "one id twice"])
async def test_queries_of_one_connection_are_bounded_and_told_apart(
    monkeypatch: pytest.MonkeyPatch, numbers: list[int]
) -> None:
    monkeypatch.setattr(dns_stream, "MOST_QUERIES", 4)
    async with answers_when_asked(9, lambda _: ()) as server, proxied(server) as served:
        async with connected(served) as (reader, writer):
            writer.write(framed(*(wire.make_query(number, WEB, wire.A) for number in numbers)))
            assert await reader.read() == b""
        assert served.drops[Drop.DNS_FULL] == 1


async def test_a_server_that_is_away_ends_the_connection() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()[1]
        async with proxied(nobody) as served, connected(served) as (reader, writer):
            writer.write(framed(wire.make_query(7, WEB, wire.A)))
            assert await reader.read() == b""


async def test_a_program_that_hangs_up_disturbs_no_other(tmp_path: Path) -> None:
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served:
            served.told.verdict = asyncio.Event().wait
            async with connected(served) as (_, writer):
                writer.write(framed(wire.make_query(7, WEB, wire.A)))
                await served.told.heard.wait()
                reset = struct.pack("ii", 1, 0)
                hung_up = writer.get_extra_info("socket")
                hung_up.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                writer.transport.abort()
            served.told.verdict = True
            assert texts(await ask(served.port, WEB, tcp=True)) == {"10.0.0.2"}
            assert texts(await ask(served.port, WEB)) == {"10.0.0.2"}
