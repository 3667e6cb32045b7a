"""The CA's answers over HTTP: JSON bodies, errors of one form, and who the caller is."""

import asyncio
import math
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web

from ca.messages import LARGEST_BODY, ErrorResponse, JoinClaims, encode
from ca.refusal import Refusal, Refused
from ca.renew import Caller

BODY_SECONDS: Final = 2.0
"""For a request's body, of which a caller holds one of the places of those under way."""

_STATUS: Final = {
    Refusal.TOO_SLOW: HTTPStatus.REQUEST_TIMEOUT,
    Refusal.MALFORMED: HTTPStatus.BAD_REQUEST,
    Refusal.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Refusal.UNKNOWN_TOKEN: HTTPStatus.UNAUTHORIZED,
    Refusal.EXPIRED_TOKEN: HTTPStatus.UNAUTHORIZED,
    Refusal.SPENT_TOKEN: HTTPStatus.UNAUTHORIZED,
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
    Refusal.REVOKED: HTTPStatus.FORBIDDEN,
    Refusal.WITHDRAWN: HTTPStatus.FORBIDDEN,
    Refusal.KEY_REUSED: HTTPStatus.FORBIDDEN,
    Refusal.ROOT_ENDED: HTTPStatus.SERVICE_UNAVAILABLE,
}


def json_answer(status: HTTPStatus, body: bytes) -> web.Response:
    """Return an answer with a JSON body."""
    return web.Response(status=status, body=body, content_type="application/json")


def error_answer(status: HTTPStatus, code: str, message: str) -> web.Response:
    """Return an error in the form of all of them."""
    response = json_answer(status, encode(ErrorResponse(code, message)))
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "1"
    return response


def busy_answer() -> web.Response:
    """Return what asks a caller to come back."""
    return error_answer(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many requests at once")


def slow_answer(seconds: float) -> web.Response:
    """Return what asks a caller that asks too often to come back (RFC 6585 section 4)."""
    answer = error_answer(HTTPStatus.TOO_MANY_REQUESTS, "too_often", "you ask too often")
    answer.headers["Retry-After"] = str(math.ceil(seconds))
    return answer


def failed_answer() -> web.Response:
    """Return what a caller hears of a failure that the audit explains."""
    return error_answer(HTTPStatus.INTERNAL_SERVER_ERROR, "failed", "the CA's store failed")


def away_answer() -> web.Response:
    """Return what asks a caller to come back once the signer can be asked again."""
    message = "what signs for the CA does not answer"
    return error_answer(HTTPStatus.SERVICE_UNAVAILABLE, "signer_away", message)


def refused_answer(refused: Refused) -> web.Response:
    """Return the answer for a refusal."""
    return error_answer(_STATUS[refused.reason], refused.reason, refused.message)


@web.middleware
async def json_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer what aiohttp refuses (no such path, too large a body) in the form of all our errors."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        return error_answer(status, "http", status.phrase)


def certificate_shown(request: web.Request) -> bytes | None:
    """Return the DER of the caller's certificate, which TLS has verified but for its times."""
    connection: ssl.SSLObject | None = request.get_extra_info("ssl_object")
    return None if connection is None else connection.getpeercert(binary_form=True)


async def read_body(request: web.Request) -> bytes:
    """Return a request's body; raises `Refused` where it is too large, or comes too slowly."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Refused(Refusal.TOO_SLOW, f"a request comes within {BODY_SECONDS:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise Refused(Refusal.TOO_LARGE, f"a request has at most {LARGEST_BODY} bytes") from None


def who(claims: JoinClaims | None) -> dict[str, object]:
    """Return an audit line's fields for claims on record."""
    if claims is None:
        return {}
    return {
        "token": claims.id,
        "pod": claims.pod,
        "identity": claims.identity.uri,
        "addresses": [str(address) for address in claims.addresses],
    }


def who_calls(caller: Caller) -> dict[str, object]:
    """Return an audit line's fields for who shows a certificate."""
    return {"pod": caller.pod, "identity": caller.identity.uri}
