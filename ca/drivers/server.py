"""The CA over HTTPS (TLS 1.3): ``GET /v1/bundle``, ``POST /v1/sign``, ``POST /v1/renew``, ``GET /healthz``.

Everything that a stranger can send is bounded in size and time. Signing takes some 30 us and a synced write,
so it is done on the loop, which also keeps requests apart, as `ca.issue` asks.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.certificates import server_certificate, trust_domain_of
from ca.drivers.audit import Audit
from ca.drivers.file_backend import DirectoryError, FileBackend
from ca.issue import Issued, Store, authenticate, issue
from ca.messages import LARGEST_BODY, Address, Bundle, ErrorResponse, JoinClaims, encode
from ca.refusal import Refusal, Refused
from ca.renew import Caller, entitled, identify

SERVER_LIFE: Final = timedelta(hours=24)
"""Life of the server's own certificate, which is replaced at half of it."""

MOST_AT_ONCE: Final = 64
"""Sign and renew requests; the next is asked to come back in a second."""

HANDSHAKE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 10.0

_STATUS: Final = {
    Refusal.MALFORMED: HTTPStatus.BAD_REQUEST,
    Refusal.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Refusal.UNKNOWN_TOKEN: HTTPStatus.UNAUTHORIZED,
    Refusal.EXPIRED_TOKEN: HTTPStatus.UNAUTHORIZED,
    Refusal.ADDRESS_HELD: HTTPStatus.CONFLICT,
    Refusal.CSR_MALFORMED: HTTPStatus.FORBIDDEN,
    Refusal.CSR_KEY: HTTPStatus.FORBIDDEN,
    Refusal.CSR_SIGNATURE: HTTPStatus.FORBIDDEN,
    Refusal.CSR_ASKS: HTTPStatus.FORBIDDEN,
    Refusal.NO_CERTIFICATE: HTTPStatus.FORBIDDEN,
    Refusal.NOT_A_POD: HTTPStatus.FORBIDDEN,
    Refusal.CERTIFICATE_EARLY: HTTPStatus.FORBIDDEN,
    Refusal.CERTIFICATE_ENDED: HTTPStatus.FORBIDDEN,
    Refusal.SUPERSEDED: HTTPStatus.FORBIDDEN,
    Refusal.WITHDRAWN: HTTPStatus.FORBIDDEN,
    Refusal.KEY_REUSED: HTTPStatus.FORBIDDEN,
    Refusal.ROOT_ENDED: HTTPStatus.SERVICE_UNAVAILABLE,
}


# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: how long after its end a certificate is good for a renewal is for
# `ca.renew.identify` to judge; the rest of the chain is our root, and `ca.issue` looks at its end.
_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)


@dataclass(frozen=True, slots=True)
class Service:
    """What the server serves: ``life`` is that of pods' certificates, ``wall`` the clock."""

    store: Store
    backend: FileBackend
    life: timedelta
    wall: Callable[[], datetime]
    audit: Audit


@contextlib.asynccontextmanager
async def serve(
    service: Service, host: Address, port: int, server_life: timedelta = SERVER_LIFE
) -> AsyncIterator[int]:
    """Serve while the body runs; gives the port. Raises OSError where it cannot listen there."""
    identity = _ServerIdentity(service, () if host.is_unspecified else (host,), server_life)
    handlers = _Handlers(service)
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_json_errors])
    app.router.add_get("/v1/bundle", handlers.bundle)
    app.router.add_post("/v1/sign", handlers.sign)
    app.router.add_post("/v1/renew", handlers.renew)
    app.router.add_get("/healthz", handlers.healthz)
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
            identity.renew()
            await server.start_serving()
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
    finally:
        identity.close()
        await runner.cleanup()


def _protocols(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    if runner.server is None:
        raise RuntimeError("the runner was set up before")
    return runner.server


class _ServerIdentity:
    """The server's TLS context, whose key and certificate are replaced at half of their life."""

    def __init__(self, service: Service, named: Iterable[Address], life: timedelta) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.num_tickets = 0
        # Who has no certificate yet comes with a token; one that is shown must be of our root.
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.verify_flags |= ssl.VERIFY_X509_STRICT | _NO_CHECK_TIME
        for root in service.backend.roots:
            self.context.load_verify_locations(cadata=root.public_bytes(Encoding.DER))
        self._service, self._named, self._life = service, tuple(named), life
        self._timer: asyncio.TimerHandle | None = None

    def renew(self) -> None:
        """Load a fresh key and certificate for the connections to come, and plan the next."""
        half = self._life.total_seconds() / 2
        self._timer = asyncio.get_running_loop().call_later(half, self.renew)
        service = self._service
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = server_certificate(
            service.backend.issuer, key.public_key(), self._named, service.wall(), self._life
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # The ssl module reads keys from paths alone; this one leads to memory and never to a disk.
        descriptor = os.memfd_create("tencrypt-ca-server", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(secret + certificate.public_bytes(Encoding.PEM))
            self.context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        service.audit("server_certificate", {"serial": f"{certificate.serial_number:x}"})

    def close(self) -> None:
        """Renew no more."""
        if self._timer is not None:
            self._timer.cancel()


class _Handlers:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._under_way = 0

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def bundle(self, _request: web.Request) -> web.Response:
        roots = self._service.backend.roots
        pems = (root.public_bytes(Encoding.PEM).decode("ascii") for root in roots)
        return _json(HTTPStatus.OK, encode(Bundle(tuple(pems))))

    async def sign(self, request: web.Request) -> web.Response:
        return await self._bounded(request, self._sign)

    async def renew(self, request: web.Request) -> web.Response:
        return await self._bounded(request, self._renew)

    async def _bounded(self, request: web.Request, answer: "_Answer") -> web.Response:
        if self._under_way >= MOST_AT_ONCE:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many requests at once")
        self._under_way += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._audited(request, answer)
        except TimeoutError:
            return _error(HTTPStatus.REQUEST_TIMEOUT, "timeout", "the request came too slowly")
        finally:
            self._under_way -= 1

    async def _audited(self, request: web.Request, answer: "_Answer") -> web.Response:
        audit = self._service.audit
        who: dict[str, object] = {}
        try:
            event, issued = await answer(request, who)
        except Refused as refused:
            who |= _who(refused.claims) | {"from": request.remote}
            audit("refused", who | {"reason": refused.reason, "message": refused.message})
            return _error(_STATUS[refused.reason], refused.reason, refused.message)
        except (OSError, DirectoryError) as error:
            audit("failed", who | {"message": str(error)})
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "failed", "the CA's store failed")
        lease = issued.lease
        audit(event, who | {"serial": lease.serial, "ends": lease.ends, "from": request.remote})
        return _json(HTTPStatus.OK, encode(issued.response))

    async def _sign(self, request: web.Request, who: dict[str, object]) -> tuple[str, Issued]:
        service = self._service
        authorization = request.headers.get("Authorization", "")
        claims = authenticate(authorization, service.store, service.wall())
        who |= _who(claims)
        body_untrusted = await _read(request)
        return "issued", self._issue(claims, body_untrusted)

    async def _renew(self, request: web.Request, who: dict[str, object]) -> tuple[str, Issued]:
        service = self._service
        trust_domain = trust_domain_of(service.backend.issuer.root)
        caller = identify(_certificate_shown(request), trust_domain, service.wall())
        who |= _who_calls(caller)
        body_untrusted = await _read(request)
        # No `await` from here on: the store must be at the end what it is now.
        claims = entitled(caller, service.store)
        who |= _who(claims)
        return "renewed", self._issue(claims, body_untrusted, caller.key)

    def _issue(self, claims: JoinClaims, body_untrusted: bytes, by_key: str = "") -> Issued:
        service = self._service
        return issue(
            claims,
            body_untrusted,
            service.store,
            service.backend,
            wall=service.wall(),
            life=service.life,
            by_key=by_key,
        )


_Answer = Callable[[web.Request, dict[str, object]], Awaitable[tuple[str, Issued]]]
"""Gives the event's name and what was issued, and fills in whom it concerns as soon as that is known."""


def _certificate_shown(request: web.Request) -> bytes | None:
    """Return the DER of the caller's certificate, which TLS has verified but for its times."""
    connection: ssl.SSLObject | None = request.get_extra_info("ssl_object")
    return None if connection is None else connection.getpeercert(binary_form=True)


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refused(Refusal.TOO_LARGE, f"a request has at most {LARGEST_BODY} bytes") from None


def _who(claims: JoinClaims | None) -> dict[str, object]:
    if claims is None:
        return {}
    return {
        "token": claims.id,
        "pod": claims.pod,
        "identity": claims.identity.uri,
        "addresses": [str(address) for address in claims.addresses],
    }


def _who_calls(caller: Caller) -> dict[str, object]:
    return {"pod": caller.pod, "identity": caller.identity.uri, "replaces": caller.serial}


@web.middleware
async def _json_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer what aiohttp refuses (no such path, too large a body) in the form of all our errors."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        return _error(status, "http", status.phrase)


def _json(status: HTTPStatus, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _error(status: HTTPStatus, code: str, message: str) -> web.Response:
    response = _json(status, encode(ErrorResponse(code, message)))
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "1"
    return response


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
