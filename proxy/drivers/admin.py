"""The proxy's Unix socket: `tencrypt status`, `rekey` and `verify` ask here. Its owner and root alone may connect."""

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Final

from aiohttp import web
from typing_extensions import override

from proxy.status import JsonObject

_LARGEST_ANSWER: Final = 16 << 20
_MOST_DIGITS: Final = 9
_SECONDS: Final = 45
"""For an answer: rekey waits for handshakes, which have 5 s, verify for these and its flows, rotate for the CA."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What answers each request."""

    report: Callable[[], JsonObject]
    rekey: Callable[[str | None], Awaitable[JsonObject]]
    verify: Callable[[str], Awaitable[JsonObject]]
    explain: Callable[[str, int, int | None], Awaitable[JsonObject]]
    ready: Callable[[float], Awaitable[JsonObject]]
    certificate: Callable[[], JsonObject]
    judge: Callable[[bytes], JsonObject]
    rotate: Callable[[], Awaitable[JsonObject]]


@contextlib.asynccontextmanager
async def serve(path: Path, answering: Answering) -> AsyncIterator[None]:
    """Answer on a socket at ``path``, of mode 0600, for as long as the context lasts.

    GET /v1/status gives ``report()``; POST /v1/rekey gives ``rekey(pod)``, of all pods where ?pod= is left out,
    and POST /v1/verify?peer= gives ``verify(peer)``. GET /v1/explain?target=&protocol=&port= gives
    ``explain(target, protocol, port)``, None for no port, and GET /v1/ready-for-strict?since= ``ready(seconds)``. GET
    /v1/certificate gives ``certificate()``, POST /v1/certificate/judge ``judge(body)``, a chain in PEM, and POST
    /v1/certificate/rotate ``rotate()``.
    """
    app = web.Application()
    app.router.add_routes([*_of_the_proxy(answering), *_of_its_certificate(answering)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    _remove(path)
    before = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(path)).start()
    finally:
        os.umask(before)
    try:
        yield
    finally:
        await runner.cleanup()
        _remove(path)


def _of_the_proxy(answering: Answering) -> list[web.RouteDef]:
    async def status(_request: web.Request) -> web.Response:
        return web.json_response(answering.report())

    async def renew(request: web.Request) -> web.Response:
        return web.json_response(await answering.rekey(request.query.get("pod")))

    async def prove(request: web.Request) -> web.Response:
        return web.json_response(await answering.verify(request.query.get("peer", "")))

    async def tell(request: web.Request) -> web.Response:
        query = request.query
        try:
            protocol = int(query.get("protocol", "6"))
            port = int(query["port"]) if "port" in query else None
        except ValueError:
            return web.json_response({"message": "protocol and port are numbers"}, status=400)
        return web.json_response(await answering.explain(query.get("target", ""), protocol, port))

    async def judge(request: web.Request) -> web.Response:
        since = request.query.get("since", "86400")
        if not (since.isascii() and since.isdigit() and len(since) <= _MOST_DIGITS):
            return web.json_response({"message": "since is in seconds"}, status=400)
        return web.json_response(await answering.ready(float(since)))

    return [
        web.get("/v1/status", status),
        web.get("/v1/ready-for-strict", judge),
        web.get("/v1/explain", tell),
        web.post("/v1/verify", prove),
        web.post("/v1/rekey", renew),
    ]


def _of_its_certificate(answering: Answering) -> list[web.RouteDef]:
    async def hold(_request: web.Request) -> web.Response:
        return web.json_response(answering.certificate())

    async def weigh(request: web.Request) -> web.Response:
        return web.json_response(answering.judge(await request.read()))

    async def rotate(_request: web.Request) -> web.Response:
        return web.json_response(await answering.rotate())

    return [
        web.get("/v1/certificate", hold),
        web.post("/v1/certificate/judge", weigh),
        web.post("/v1/certificate/rotate", rotate),
    ]


def _remove(path: Path) -> None:
    # Left by kill -9 it would be in the way; a second proxy of this name is stopped by tenc0 before this.
    path.unlink(missing_ok=True)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket(AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(str(self._path))


def ask(
    path: Path, method: str = "GET", url: str = "/v1/status", body: bytes | None = None
) -> JsonObject:
    """Return what a running proxy answers. Raises OSError where nobody does, ValueError where it is no JSON object."""
    connection = _UnixConnection(path)
    try:
        connection.request(method, url, body)
        answer = connection.getresponse()
        answered = answer.read(_LARGEST_ANSWER)
    except HTTPException as error:
        raise ValueError(f"not an answer of a proxy: {error}") from error
    finally:
        connection.close()
    said = json.loads(answered)
    if answer.status != 200 or not isinstance(said, dict):
        raise ValueError(f"status {answer.status}")
    return said
