"""``GET /metrics``, ``/healthz`` and ``/readyz`` on the pod's loopback, beside a data path that they must not hold up.

Whoever knocks is a program of this pod: nothing secret is told, and nobody is believed. One connection is taken
at a time with a pause after it, serves one request, and is cut off when its seconds are over or when others need
its place. So neither many scrapes nor slow ones take more of the event loop than `PAUSE` allows.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

MOST_AT_ONCE: Final = 16
"""Connections; the oldest makes room for the next, for an honest one has its answer within milliseconds."""

CONNECTION_SECONDS: Final = 5.0
PAUSE: Final = 0.02
"""Seconds between two connections: a scrape takes 0.5 ms, 2 ms of `MOST_SESSIONS`, so an eighth of a core at most."""

_LONGEST_LINE: Final = 1024
_LONGEST_HEADER: Final = 4096
_MOST_HEADERS: Final = 32
_OPENMETRICS: Final = "application/openmetrics-text"
_TEXT: Final = "text/plain; charset=utf-8"


def listen(address: IPv4Address | IPv6Address, port: int) -> socket.socket:
    """Return a listening TCP socket. Raises OSError where the address and port cannot be had."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # A restart must not wait for connections of the former daemon that the kernel still remembers.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((str(address), port))
        opened.listen(MOST_AT_ONCE)
    except OSError:
        opened.close()
        raise
    return opened


@contextlib.asynccontextmanager
async def serve(
    listener: socket.socket, registry: CollectorRegistry, why_not_ready: Callable[[], str]
) -> AsyncIterator[None]:
    """Answer on ``listener``, which is closed at the end, for as long as the context lasts.

    ``why_not_ready`` gives a line that says why the pod is not ready, or nothing.
    """
    server = web.Server(
        _answers(registry, why_not_ready),
        access_log=None,
        # Of bytes that are no HTTP the library would log a trace for each; our own errors are told below.
        logger=_silent(),
        auto_decompress=False,
        lingering_time=0,
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_HEADER,
        max_headers=_MOST_HEADERS,
    )
    with listener:
        taking = asyncio.ensure_future(_take(listener, server))  # noqa: TID251 - cancelled and awaited below
        try:
            yield
        finally:
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await taking
            server.pre_shutdown()
            await server.shutdown(CONNECTION_SECONDS)


async def _take(listener: socket.socket, server: web.Server) -> None:
    """Take connections for ever, each for one request and a few seconds."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            taken, _ = await loop.sock_accept(listener)
        except OSError:  # gone again, or no descriptor is left
            await asyncio.sleep(PAUSE)
            continue
        connections = server.connections
        if len(connections) >= MOST_AT_ONCE and (oldest := connections[0].transport) is not None:
            oldest.abort()
        with contextlib.suppress(OSError):
            transport, _ = await loop.connect_accepted_socket(server, taken)
            loop.call_later(CONNECTION_SECONDS, transport.abort)
        await asyncio.sleep(PAUSE)


def _answers(
    registry: CollectorRegistry, why_not_ready: Callable[[], str]
) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
    def metrics(request: web.BaseRequest) -> web.Response:
        # What was asked for is not the library's to read: it repeats the version, and fails on odd ones.
        wants_openmetrics = _OPENMETRICS in request.headers.get("Accept", "")
        encode, kind = choose_encoder(f"{_OPENMETRICS}; version=1.0.0" if wants_openmetrics else "")
        return web.Response(body=encode(registry), headers={"Content-Type": kind})

    def healthz(_request: web.BaseRequest) -> web.Response:
        return _line(HTTPStatus.OK, "ok")

    def readyz(_request: web.BaseRequest) -> web.Response:
        reason = why_not_ready()
        return (
            _line(HTTPStatus.SERVICE_UNAVAILABLE, reason) if reason else _line(HTTPStatus.OK, "ok")
        )

    paths = {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}

    def answer(request: web.BaseRequest) -> web.Response:
        handler = paths.get(request.path)
        if handler is None:
            return _line(HTTPStatus.NOT_FOUND, f"here are {', '.join(paths)}")
        if request.method not in {"GET", "HEAD"}:
            refusal = _line(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD")
            refusal.headers["Allow"] = "GET, HEAD"
            return refusal
        try:
            return handler(request)
        except Exception as error:  # noqa: BLE001 - told as every bug is, and the proxy goes on
            told = {"message": f"answering {request.path}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)
            return _line(HTTPStatus.INTERNAL_SERVER_ERROR, "failed: the proxy's log says why")

    async def handle(request: web.BaseRequest) -> web.Response:
        response = answer(request)
        response.headers["Server"] = "tencrypt"
        response.force_close()
        return response

    return handle


def _line(status: HTTPStatus, text: str) -> web.Response:
    return web.Response(status=status, body=f"{text}\n".encode(), headers={"Content-Type": _TEXT})


def _silent() -> logging.Logger:
    logger = logging.getLogger("tencrypt.monitor")
    logger.disabled = True
    return logger
