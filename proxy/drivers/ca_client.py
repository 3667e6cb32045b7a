"""A pod asks the project's CA for its certificate, the next one, or the roster, going by the root's fingerprint alone.

1. The roots are fetched over TLS that verifies nothing: they are public. One of them must have the pinned
   fingerprint; from here on that root alone counts.
2. The token goes over a second connection, which must chain to that very root and name the CA's own id. A pod's
   certificate chains to it too, so the name is checked inside the handshake: whoever answers with another one
   never gets a byte of the token. The client names the root in the hello, for the CA shows itself under several;
   one that it does not know, or that counts no more, it answers by the one that issues.
3. At a renewal, and for all else, the pod's own certificate stands for the token, and is withheld in the same way
   from whoever is authenticated by no root that counts in the pod's bundle.
"""

import contextlib
import os
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typing_extensions import override

from ca.lists import LARGEST_ENVELOPE
from ca.messages import (
    LARGEST_ANSWER,
    LARGEST_BODY,
    MessageError,
    SignRequest,
    SignResponse,
    encode,
    parse_bundle,
    parse_error,
    parse_sign_response,
    root_fingerprint,
    root_host,
)
from ca.trust_bundle import fingerprint
from policy.certificate import UNREADABLE
from policy.identity import ca_uri
from proxy.credentials.credential import Credential
from proxy.credentials.trust import Believed
from proxy.errors import Dropped

PATIENCE: Final = 10.0
"""Seconds for each of the two requests, connecting and handshake included."""


class CaUnreachable(Exception):  # noqa: N818 - a state of the world, which may pass
    """No answer from *our* CA: nothing answers, or what answers is not it, or it cannot work now.

    Whoever is on the path can bring this about, so it says nothing about us and may be tried again.
    """


class CaRefused(Exception):  # noqa: N818 - the CA's judgement
    """The CA, proven to be ours, refuses us; trying the same again will not help."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the CA's reason and its line for people."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Ca:
    """Which CA: ``https://host:port``, its root's fingerprint, its trust domain; seconds for each request."""

    address: str
    fingerprint: str
    trust_domain: str
    patience: float = PATIENCE


async def find_root(ca: Ca) -> x509.Certificate:
    """Return the pinned root. Raises `CaUnreachable` where the CA does not offer it."""
    return _pinned_root(await _get_roots(ca), ca.fingerprint, ca.address)


async def obtain(ca: Ca, root: x509.Certificate, token: str, csr_der: bytes) -> SignResponse:
    """Return what the CA, as the pinned root authenticates it, issues for the token and CSR.

    Raises `CaRefused` or `CaUnreachable`. What the chain says is for the caller to judge.
    """
    context = _ca_only_context(Believed((root,)), ca_uri(ca.trust_domain))
    headers = {"Authorization": f"Bearer {token}"}
    return await _ask(ca, "sign", context, csr_der, headers=headers, name=_name(root))


async def renew(ca: Ca, believed: Believed, credential: Credential, csr_der: bytes) -> SignResponse:
    """Return what the CA, authenticated by whom we believe, issues for the CSR in the place of the credential.

    The credential may have ended a while ago. Raises `CaRefused` or `CaUnreachable`,
    or OSError where this machine gives no memory for it.
    """
    context = _own_context(ca, believed, credential)
    return await _ask(ca, "renew", context, csr_der, name=_name(believed.roots[0]))


class Line:
    """Requests to the CA as the pod of one credential, over one connection that is kept between them."""

    def __init__(self, ca: Ca, session: aiohttp.ClientSession, name: str) -> None:
        """Ask over ``session``, the root that is named in ``name``; made by `line`."""
        self._ca, self._session, self._name = ca, session, name

    async def roster(
        self, version: int, issued: int | None, hold: float, bundle: str = ""
    ) -> bytes | None:
        """Return a roster's envelope that is newer, unverified; None where there is none yet.

        ``bundle`` is the hash of the roots that we go by, which the CA puts on record. ``issued`` is given where a
        later signature of the same version is wanted, too. The CA may think about it for ``hold`` seconds.

        Raises `CaRefused` or `CaUnreachable`.
        """
        later = "" if issued is None else f"&issued={issued}"
        ours = f"&bundle={bundle}" if bundle else ""
        url = f"{self._ca.address}/v1/roster?after={version}{later}{ours}"
        patience = self._ca.patience + hold
        status, body_untrusted = await _exchange(
            self._session,
            "GET",
            url,
            patience=patience,
            most=LARGEST_ENVELOPE,
            name=self._name,
        )
        return self._judged(status, 200, body_untrusted)

    async def release(self) -> None:
        """Give the addresses back. Raises `CaRefused` or `CaUnreachable`."""
        url = f"{self._ca.address}/v1/release"
        status, body_untrusted = await _exchange(
            self._session, "POST", url, patience=self._ca.patience, name=self._name
        )
        self._judged(status, 204, body_untrusted)

    def _judged(self, status: int, good: int, body_untrusted: bytes) -> bytes | None:
        if status in {good, 204}:
            return body_untrusted if status == 200 else None
        raise _error(self._ca.address, status, body_untrusted)


@contextlib.asynccontextmanager
async def line(ca: Ca, believed: Believed, credential: Credential) -> AsyncIterator[Line]:
    """Give a line to the CA as the pod of ``credential``. Raises as `renew` does, without `CaRefused`."""
    context = _own_context(ca, believed, credential)
    async with _session(context, is_kept=True) as session:
        yield Line(ca, session, _name(believed.roots[0]))


def _name(root: x509.Certificate) -> str:
    return root_host(fingerprint(root))


def _own_context(ca: Ca, believed: Believed, credential: Credential) -> ssl.SSLContext:
    context = _ca_only_context(believed, ca_uri(ca.trust_domain))
    _load_credential(context, credential)
    return context


def _load_credential(context: ssl.SSLContext, credential: Credential) -> None:
    """Let a context prove the credential, whose key does not touch a disk.

    The ssl module reads keys from paths alone. This one leads to anonymous memory without a name in any file
    system: whoever may open it under our /proc may read all our memory (proc(5), ptrace access mode), a program
    that we start would not inherit it, and it is gone when this returns.
    """
    secret = credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in credential.chain)
    descriptor = os.memfd_create("tencrypt-renewal", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(secret + chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


async def _ask(  # noqa: PLR0913 - one request in full
    ca: Ca,
    what: str,
    context: ssl.SSLContext,
    csr_der: bytes,
    *,
    headers: dict[str, str] | None = None,
    name: str | None = None,
) -> SignResponse:
    csr_pem = x509.load_der_x509_csr(csr_der).public_bytes(Encoding.PEM).decode("ascii")
    status, body_untrusted = await _request(
        "POST",
        f"{ca.address}/v1/{what}",
        context,
        patience=ca.patience,
        headers=headers,
        body=encode(SignRequest(csr_pem)),
        most=LARGEST_ANSWER,
        name=name,
    )
    if status != 200:
        raise _error(ca.address, status, body_untrusted)
    try:
        return parse_sign_response(body_untrusted)
    except MessageError as error:
        raise CaUnreachable(f"{ca.address} answered 200, and not as a CA does: {error}") from None


async def _get_roots(ca: Ca) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # see 1. above
    status, body_untrusted = await _request(
        "GET", f"{ca.address}/v1/bundle", context, patience=ca.patience
    )
    if status != 200:
        raise CaUnreachable(f"{ca.address} answered {status} when asked for its roots")
    return body_untrusted


def _pinned_root(bundle_untrusted: bytes, pinned: str, address: str) -> x509.Certificate:
    """Return the root that has the fingerprint; those that have not are never read."""
    try:
        roots = [ssl.PEM_cert_to_DER_cert(pem) for pem in parse_bundle(bundle_untrusted).roots]
    except (ValueError, x509.InvalidVersion):
        raise CaUnreachable(f"{address} does not answer as a CA does") from None
    offered = {root_fingerprint(der): der for der in roots}
    if pinned not in offered:
        listing = ", ".join(offered)
        raise CaUnreachable(f"{address} has another root than ca_root_fingerprint says: {listing}")
    try:
        return x509.load_der_x509_certificate(offered[pinned])
    except ValueError as error:
        raise CaUnreachable(
            f"{address}: the root that ca_root_fingerprint names: {error}"
        ) from None


def _ca_only_context(believed: Believed, uri: str) -> ssl.SSLContext:
    """Return a context whose handshakes succeed with the CA service of those whom we believe and nobody else."""

    class CaOnly(ssl.SSLObject):
        @override
        def do_handshake(self) -> None:
            super().do_handshake()
            # Before this returns, neither our Finished nor a byte of ours has left.
            der = self.getpeercert(binary_form=True)
            if der is None or not _names_only(der, uri):
                raise ssl.SSLCertVerificationError(1, f"its certificate is not for {uri}")
            try:
                believed.check(_verified_chain(self))
            except (Dropped, *UNREADABLE) as error:
                raise ssl.SSLCertVerificationError(1, str(error)) from None

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the URI is the name
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for root in believed.roots:
        context.load_verify_locations(cadata=root.public_bytes(Encoding.DER))
    context.sslobject_class = CaOnly
    return context


def _verified_chain(connection: ssl.SSLObject) -> list[x509.Certificate]:
    """Return the chain that OpenSSL has verified."""
    if sys.version_info >= (3, 13):
        return [x509.load_der_x509_certificate(der) for der in connection.get_verified_chain()]
    # Python has it from 3.10 on, and a public name for it from 3.13 on.
    found = connection._sslobj.get_verified_chain()  # type: ignore[attr-defined]  # noqa: SLF001 - as said
    return [x509.load_pem_x509_certificate(one.public_bytes().encode()) for one in found]


def _names_only(certificate_der: bytes, uri: str) -> bool:
    try:
        extensions = x509.load_der_x509_certificate(certificate_der).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        return False
    return names.get_values_for_type(x509.UniformResourceIdentifier) == [uri]


async def _request(  # noqa: PLR0913 - one request in full
    method: str,
    url: str,
    context: ssl.SSLContext,
    *,
    patience: float,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    most: int = LARGEST_BODY,
    name: str | None = None,
) -> tuple[int, bytes]:
    """Return status and body of one request on a connection of its own."""
    async with _session(context) as session:
        return await _exchange(
            session,
            method,
            url,
            patience=patience,
            headers=headers,
            body=body,
            most=most,
            name=name,
        )


def _session(context: ssl.SSLContext, *, is_kept: bool = False) -> aiohttp.ClientSession:
    """Return what makes requests: no proxy, cookie or compression; one connection, kept or not."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, force_close=not is_kept, limit=1),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


async def _exchange(  # noqa: PLR0913 - as `_request`
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    patience: float,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    most: int = LARGEST_BODY,
    name: str | None = None,
) -> tuple[int, bytes]:
    """Return status and body, of ``most`` bytes at most; no redirect. Raises `CaUnreachable`."""
    try:
        async with session.request(
            method,
            url,
            headers=headers,
            data=body,
            allow_redirects=False,
            server_hostname=name,
            timeout=aiohttp.ClientTimeout(total=patience),
        ) as response:
            received = bytearray()
            async for piece in response.content.iter_any():
                received += piece
                if len(received) > most:
                    raise CaUnreachable(f"{url} answered more than {most} bytes")
            return response.status, bytes(received)
    except TimeoutError:
        raise CaUnreachable(f"{url}: no answer in {patience:g} s") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise CaUnreachable(f"{url}: {_reason(error.certificate_error)}") from None
    except aiohttp.ClientConnectorError as error:
        raise CaUnreachable(f"{url}: {_reason(error.os_error)}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise CaUnreachable(f"{url}: {str(error) or type(error).__name__}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own text repeats the address
    return getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)


def _error(address: str, status: int, body_untrusted: bytes) -> Exception:
    """Return what an answer that is no success means."""
    try:
        refusal = parse_error(body_untrusted)
    except MessageError as error:
        return CaUnreachable(f"{address} answered {status}, and not as a CA does: {error}")
    if status >= 500 or status in {408, 429}:
        return CaUnreachable(f"{address} cannot answer now: {refusal.message}")
    return CaRefused(refusal.code, refusal.message)
