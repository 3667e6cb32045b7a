"""The CA over HTTPS (TLS 1.3).

``GET /v1/bundle``, ``GET /healthz`` and ``GET /readyz`` for everybody, ``POST /v1/sign`` by a join token; by a pod's
certificate ``POST /v1/renew``, ``POST /v1/release`` and ``GET /v1/roster`` (`ca.drivers.rosters`).

Everything that a stranger can send is bounded in size and time.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from aiohttp import web
from cryptography import x509

from ca.documents import StateAwayError, StateError
from ca.drivers.answers import (
    away_answer,
    busy_answer,
    certificate_shown,
    error_answer,
    failed_answer,
    json_answer,
    json_errors,
    read_body,
    refused_answer,
    slow_answer,
    who,
    who_calls,
)
from ca.drivers.counter import Counter
from ca.drivers.rosters import RosterDesk
from ca.drivers.server_identity import ServerIdentity
from ca.drivers.service import Service
from ca.drivers.signer_watch import SignerWatch
from ca.drivers.trust_watch import TrustWatch
from ca.grant import Asked
from ca.issue import authenticate, judge
from ca.lease import Lease
from ca.limits import of_grants, stranger
from ca.messages import LARGEST_BODY, Address, Bundle, encode
from ca.namespace import Namespace
from ca.refusal import Refused
from ca.release import release
from ca.renew import Caller, identify
from ca.signer import SignerAwayError, SignerError, pems
from ca.trust import Trust

__all__ = ["Service", "parse_listen", "serve"]

SERVER_LIFE: Final = timedelta(hours=24)
"""Life of the server's own certificate, which is replaced at half of it."""

MOST_AT_ONCE: Final = 64
"""Sign and renew requests; the next is asked to come back in a second."""

HANDSHAKE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 10.0


@contextlib.asynccontextmanager
async def serve(
    service: Service, host: Address, port: int, server_life: timedelta = SERVER_LIFE
) -> AsyncIterator[tuple[int, x509.Certificate]]:
    """Serve while the body runs; gives the port, and the root that issues. Raises OSError where it cannot listen."""
    identity = ServerIdentity(service, () if host.is_unspecified else (host,), server_life)
    desk = RosterDesk(service)
    watch = SignerWatch(service)

    async def changed(trust: Trust) -> None:
        await identity.adopt(trust)
        desk.trust_changed(trust)

    trust_watch = TrustWatch(service, changed)
    handlers = _Handlers(service, desk, watch, trust_watch)
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[json_errors])
    app.router.add_get("/v1/bundle", handlers.bundle)
    app.router.add_post("/v1/sign", handlers.sign)
    app.router.add_post("/v1/renew", handlers.renew)
    app.router.add_post("/v1/release", handlers.release)
    app.router.add_get("/v1/roster", desk.roster)
    app.router.add_get("/healthz", handlers.healthz)
    app.router.add_get("/readyz", handlers.readyz)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=1.0,
        shutdown_timeout=REQUEST_SECONDS,
    )
    await runner.setup()
    try:
        server = await asyncio.get_running_loop().create_server(
            _protocols(runner),
            str(host),
            port,
            ssl=identity.context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=HANDSHAKE_SECONDS,
            start_serving=False,
        )
        try:
            await trust_watch.begin()
            desk.start()
            watch.start()
            await server.start_serving()
            yield server.sockets[0].getsockname()[1], trust_watch.trust.bundle.active
        finally:
            server.close()
    finally:
        await trust_watch.close()
        await identity.close()
        await desk.close()
        await watch.close()
        await runner.cleanup()
        service.close()


def _protocols(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    if runner.server is None:
        raise RuntimeError("the runner was set up before")
    return runner.server


@dataclass(frozen=True, slots=True)
class _Done:
    """What a request has brought about: the audit's event and its fields, and the answer."""

    event: str
    namespace: str
    fields: dict[str, object]
    answer: web.Response


_Answer = Callable[[web.Request, dict[str, object]], Awaitable[_Done]]
"""Does what a request asks for, and fills in whom it concerns as soon as that is known."""


class _Handlers:
    def __init__(
        self, service: Service, desk: RosterDesk, watch: SignerWatch, trust: TrustWatch
    ) -> None:
        self._service, self._desk, self._watch, self._trust = service, desk, watch, trust
        self._counter = Counter(service)
        self._trust_domain = service.signer.trust_domain
        self._under_way = 0
        self._grants = of_grants()

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        return away_answer() if self._watch.is_away else web.Response(text="ok\n")

    async def bundle(self, _request: web.Request) -> web.Response:
        roots = pems(self._trust.trust.bundle.vouching)
        return json_answer(HTTPStatus.OK, encode(Bundle(roots)))

    async def sign(self, request: web.Request) -> web.Response:
        return await self._signed(request, self._sign)

    async def renew(self, request: web.Request) -> web.Response:
        return await self._signed(request, self._renew)

    async def release(self, request: web.Request) -> web.Response:
        return await self._bounded(request, self._release)

    async def _signed(self, request: web.Request, answer: _Answer) -> web.Response:
        """Answer what needs the signer: at once where that is away."""
        return away_answer() if self._watch.is_away else await self._bounded(request, answer)

    async def _bounded(self, request: web.Request, answer: _Answer) -> web.Response:
        now, address = asyncio.get_running_loop().time(), stranger(request.remote)
        pause = self._service.refusals.seconds(address, now)
        if pause:
            return slow_answer(pause)
        if self._under_way >= MOST_AT_ONCE:
            return busy_answer()
        self._under_way += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._audited(request, answer)
        except TimeoutError:
            return error_answer(
                HTTPStatus.REQUEST_TIMEOUT, "timeout", "the request came too slowly"
            )
        finally:
            self._under_way -= 1

    async def _audited(self, request: web.Request, answer: _Answer) -> web.Response:
        audit = self._service.audit
        whose: dict[str, object] = {}
        try:
            done = await answer(request, whose)
        except _TooOftenError as error:
            audit("refused", whose | {"reason": "too_often", "from": request.remote})
            return slow_answer(error.seconds)
        except Refused as refused:
            self._service.refusals.take(stranger(request.remote), asyncio.get_running_loop().time())
            whose |= who(refused.claims) | {"from": request.remote}
            audit("refused", whose | {"reason": refused.reason, "message": refused.message})
            return refused_answer(refused)
        except (StateError, SignerError) as error:
            audit("failed", whose | {"message": str(error)})
            is_away = isinstance(error, SignerAwayError | StateAwayError)
            return away_answer() if is_away else failed_answer()
        audit(done.event, whose | done.fields | {"from": request.remote})
        self._desk.changed(done.namespace)
        return done.answer

    async def _sign(self, request: web.Request, whose: dict[str, object]) -> _Done:
        service = self._service
        authorization, find = request.headers.get("Authorization", ""), service.office.find_token
        token = await service.work(lambda: authenticate(authorization, find, service.wall()))
        whose |= who(token.claims)
        proven = judge(await read_body(request))
        return await self._issue("issued", Asked(proven, token), token.claims.namespace)

    async def _renew(self, request: web.Request, whose: dict[str, object]) -> _Done:
        caller = identify(certificate_shown(request), self._trust_domain, self._service.wall())
        whose |= who_calls(caller) | {"replaces": caller.serial}
        proven = judge(await read_body(request), caller.key)
        return await self._issue("renewed", Asked(proven, caller), caller.identity.namespace)

    async def _release(self, request: web.Request, whose: dict[str, object]) -> _Done:
        service = self._service
        caller = identify(certificate_shown(request), self._trust_domain, service.wall())
        whose |= who_calls(caller) | {"serial": caller.serial}
        gone: list[Lease] = []

        def without(record: Namespace) -> Namespace:
            after, lease = release(caller, record, service.wall().timestamp())
            gone[:] = [lease]
            return after

        namespace = caller.identity.namespace
        await service.work(lambda: service.office.change(namespace, without))
        fields: dict[str, object] = {
            "token": gone[0].token_id,
            "addresses": [str(address) for address in gone[0].addresses],
        }
        return _Done("released", namespace, fields, web.Response(status=HTTPStatus.NO_CONTENT))

    async def _issue(self, event: str, asked: Asked, namespace: str) -> _Done:
        now, pod = asyncio.get_running_loop().time(), f"{namespace}/{_pod_of(asked)}"
        pause = self._grants.seconds(pod, now)
        if pause:
            raise _TooOftenError(pause)
        issued = await self._counter.ask(asked, namespace)
        self._grants.take(pod, now)
        lease = issued.lease
        fields: dict[str, object] = {
            "token": lease.token_id,
            "addresses": [str(address) for address in lease.addresses],
            "serial": lease.serial,
            "ends": lease.ends,
        }
        answer = json_answer(HTTPStatus.OK, encode(issued.response))
        return _Done(event, namespace, fields, answer)


class _TooOftenError(Exception):
    """A pod has had many certificates lately; ``seconds`` until the next."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


def _pod_of(asked: Asked) -> str:
    return asked.by.pod if isinstance(asked.by, Caller) else asked.by.claims.pod


def parse_listen(text: str) -> tuple[Address, int]:
    """Return address and port of ``ADDR:PORT`` or ``[ADDR]:PORT``; raises ValueError."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    address = ip_address(bare)
    if (address.version == 6) != (bare != host) or not port.isascii() or not port.isdigit():
        raise ValueError("no address and port")
    if int(port) > 65535 or "%" in bare:
        raise ValueError("no address and port")
    return address, int(port)
