"""Metrics and health over HTTP, as a pod's programs meet them: over real sockets on loopback."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text
from prometheus_client.registry import Collector
from typing_extensions import override

from proxy.drivers import monitor

GET = "GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n"


@dataclass
class Served:
    """A server with one gauge, which a test can make unready or break."""

    port: int = 0
    why_not: str = ""
    broken: bool = False
    told: list[dict[str, object]] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def send(self, data: str) -> bytes:
        """Send bytes on a connection of their own; return all that comes until it is closed."""
        reader, writer = await self.connect()
        writer.write(data.encode("latin-1"))
        return await to_the_end(reader)

    async def get(self, path: str, headers: str = "") -> tuple[str, bytes]:
        """Return the head of an answer and its body."""
        head, _, body = (await self.send(GET.format(path, headers))).partition(b"\r\n\r\n")
        return head.decode(), body

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        pair = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(pair[1])
        return pair


async def to_the_end(reader: asyncio.StreamReader) -> bytes:
    """Read until the server closes; TimeoutError where it does not, far beyond what it may take."""
    async with asyncio.timeout(20):
        return await reader.read()


class Breakable(Collector):
    """Fails where its test says so."""

    def __init__(self, served: Served) -> None:
        self._served = served

    @override
    def collect(self) -> Iterator[Metric]:
        if self._served.broken:
            raise RuntimeError("a bug")
        return iter(())


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    served = Served()
    asyncio.get_running_loop().set_exception_handler(lambda _, told: served.told.append(told))
    registry = CollectorRegistry()
    Gauge("answer", "A gauge.", registry=registry).set(42)
    registry.register(Breakable(served))
    listener = monitor.listen(ip_address("127.0.0.1"), 0)
    served.port = listener.getsockname()[1]
    async with monitor.serve(listener, registry, lambda: served.why_not):
        yield served
    for writer in served.writers:
        writer.close()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made


async def test_health_answers_while_the_loop_runs_whether_ready_or_not(served: Served) -> None:
    for why_not in ("", "the tunnel is down"):
        served.why_not = why_not
        head, body = await served.get("/healthz")
        assert (head.split("\r\n")[0], body) == ("HTTP/1.1 200 OK", b"ok\n")


async def test_readiness_is_503_with_its_reason_until_it_is_ready(served: Served) -> None:
    served.why_not = "the tunnel is down"
    head, body = await served.get("/readyz")
    assert head.startswith("HTTP/1.1 503 ")
    assert body == b"the tunnel is down\n"
    served.why_not = ""
    head, body = await served.get("/readyz")
    assert (head.split("\r\n")[0], body) == ("HTTP/1.1 200 OK", b"ok\n")


async def test_a_scrape_is_in_the_format_that_was_asked_for(served: Served) -> None:
    head, body = await served.get("/metrics")
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert [family.name for family in text(body.decode())] == ["answer"]

    prometheus = (
        "Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n"
    )
    head, body = await served.get("/metrics", prometheus)
    assert "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8" in head
    families = openmetrics(body.decode())  # type: ignore[no-untyped-call]  # the library's
    assert [family.name for family in families] == ["answer"]


@pytest.mark.parametrize("version", ["x", "1.x", "9" * 500, "2.0.0"])
async def test_an_odd_version_in_accept_is_neither_believed_nor_repeated(
    served: Served, version: str
) -> None:
    for kind in ("text/plain", "application/openmetrics-text"):
        head, _ = await served.get("/metrics", f"Accept: {kind};version={version}\r\n")
        assert head.startswith("HTTP/1.1 200 OK")
        assert f"={version}" not in head
    assert not served.told


async def test_head_gets_no_body_other_methods_and_paths_are_refused(served: Served) -> None:
    answer = await served.send(GET.format("/metrics", "").replace("GET", "HEAD"))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\n")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        answer = await served.send(GET.format("/metrics", "").replace("GET", method))
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert b"\r\nAllow: GET, HEAD\r\n" in answer
    for path in ("/", "/metrics/", "//metrics", "/v1/status", "/../metrics%00", "*"):
        head, _ = await served.get(path)
        assert head.split()[1] in {"404", "400"}, path


async def test_one_connection_serves_one_request(served: Served) -> None:
    answer = await served.send(GET.format("/healthz", "Connection: keep-alive\r\n") * 3)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize(
    "bytes_untrusted",
    [
        "\0" * 3000,
        "\x16\x03\x01\x02\0\x01\0",
        "GET /metrics HTTP/9.9\r\n\r\n",
        GET.format("/" + "x" * 5000, ""),
        GET.format("/metrics", f"X: {'x' * 9000}\r\n"),
        GET.format("/metrics", "X: y\r\n" * 200),
        GET.format("/metrics", "Content-Length: x\r\n"),
        GET.format("/metrics", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        "GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT 10.0.0.1:99999 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=range(10),
)
async def test_what_is_no_request_or_too_large_is_refused_without_a_word_in_the_log(
    served: Served, bytes_untrusted: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await served.send(bytes_untrusted)
    assert answer.startswith(b"HTTP/1.0 400 "), answer
    assert not caplog.records
    assert (await served.get("/healthz"))[1] == b"ok\n"


async def test_a_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "CONNECTION_SECONDS", 3600.0)
    async with serving() as served, asyncio.timeout(8):
        answer = await served.send(GET.format("/healthz", "Content-Length: 1000000000\r\n"))
    assert answer.endswith(b"ok\n")


async def test_a_connection_that_says_nothing_or_dawdles_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "CONNECTION_SECONDS", 0.2)
    async with serving() as served:
        silent, _ = await served.connect()
        slow, writer = await served.connect()
        writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
        for reader in (silent, slow):
            with contextlib.suppress(ConnectionResetError):
                assert await to_the_end(reader) == b""


async def test_slow_connections_make_room_for_the_next(served: Served) -> None:
    held = [await served.connect() for _ in range(monitor.MOST_AT_ONCE + 5)]
    for _, writer in held:
        writer.write(b"GET /metrics HTTP/1.1\r\n")
    assert (await served.get("/healthz"))[1] == b"ok\n"
    gone = [reader for reader, _ in held if reader.at_eof() or reader.exception()]
    assert len(gone) >= 5
    assert held[0][0] in gone, "the oldest first"
    assert held[-1][0] not in gone


async def test_a_bug_in_a_metric_is_told_and_ends_nothing(served: Served) -> None:
    served.broken = True
    head, body = await served.get("/metrics")
    assert head.startswith("HTTP/1.1 500 ")
    assert b"a bug" not in body
    assert [str(one["exception"]) for one in served.told] == ["a bug"]
    served.broken = False
    assert (await served.get("/metrics"))[0].startswith("HTTP/1.1 200 ")


async def test_a_port_in_use_is_an_error_and_a_restart_needs_no_patience() -> None:
    async with serving() as served:
        with pytest.raises(OSError, match="in use"):
            monitor.listen(ip_address("127.0.0.1"), served.port)
        # The server closes first, so its end is what the kernel remembers for a minute.
        await served.get("/healthz")
    monitor.listen(ip_address("127.0.0.1"), served.port).close()


async def test_the_end_closes_what_is_open_and_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "CONNECTION_SECONDS", 3600.0)
    async with asyncio.timeout(20), serving() as served:
        reader, _ = await served.connect()
        await served.get("/healthz")
    assert await to_the_end(reader) == b""
    with socket.socket() as again, pytest.raises(ConnectionRefusedError):
        again.connect(("127.0.0.1", served.port))
