"""The server's own keys and certificates: one for each root whose word counts, replaced at half of their life.

A client that goes by one root alone names it (`ca.messages.root_host`) in the server name of its hello (RFC 6066
section 3), and is shown the certificate under that; whoever names none has the active root's.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.drivers.service import Service
from ca.messages import Address, root_host
from ca.signer import SignerAwayError, SignerError, for_server, make_csr
from ca.trust import Trust
from ca.trust_bundle import fingerprint

AWAY_SECONDS: Final = 2.0
"""Between two attempts to begin while the signer is away."""

RETRY_SECONDS: Final = 60.0
"""Between two attempts to renew the server's own certificates."""

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: how long after its end a certificate is good for a renewal is for
# `ca.renew.identify` to judge; the rest of the chain is our root, and `ca.grant` looks at its end.
_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)


class ServerIdentity:
    """The server's TLS contexts."""

    def __init__(self, service: Service, named: Iterable[Address], life: timedelta) -> None:
        """Name these addresses; nothing is shown before `adopt`."""
        self._service, self._named, self._life = service, tuple(named), life
        self.context = _new_context(())
        # The ssl module's callback takes the context of a connection from us before it shows a certificate.
        self.context.sni_callback = self._choose
        self._shown: dict[str, ssl.SSLContext] = {}
        self._first: ssl.SSLContext | None = None
        self._trust: Trust | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def adopt(self, trust: Trust) -> None:
        """Show ourselves under the roots of this bundle, as soon as the signer gives certificates."""
        self._trust = trust
        await self.close()
        pause = self._life.total_seconds() / 2
        while not await self._renew(is_first=self._first is None):
            if self._first is not None:  # those in use are good for now
                pause = min(RETRY_SECONDS, pause / 10)
                break
            await asyncio.sleep(AWAY_SECONDS)
        self._renewing = asyncio.get_running_loop().create_task(self._keep(pause))

    async def close(self) -> None:
        """Renew no more."""
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing

    async def _keep(self, pause: float) -> None:
        half = self._life.total_seconds() / 2
        while True:
            await asyncio.sleep(pause)
            pause = half if await self._renew() else min(RETRY_SECONDS, half / 10)

    async def _renew(self, *, is_first: bool = False) -> bool:
        """Make fresh keys and certificates for the connections to come; say whether that went well."""
        service, trust = self._service, self._trust
        if trust is None:
            raise RuntimeError("there is a bundle by now")
        shown: dict[str, ssl.SSLContext] = {}
        try:
            for root in trust.bundle.vouching:
                name = root_host(fingerprint(root))
                try:
                    shown[name] = await self._certified(root, trust)
                except SignerAwayError:
                    raise
                except SignerError as error:
                    if root == trust.bundle.active:
                        raise
                    # A former root may have ended, or its key be gone: who knows no other finds nobody.
                    service.audit("failed", {"root": fingerprint(root), "message": str(error)})
        except SignerError as error:
            if is_first and service.keep is None:
                raise
            service.audit("signer_away" if is_first else "failed", {"message": str(error)})
            return False
        self._shown = shown
        self._first = shown[root_host(fingerprint(trust.bundle.active))]
        return True

    async def _certified(self, root: x509.Certificate, trust: Trust) -> ssl.SSLContext:
        service, key = self._service, ec.generate_private_key(ec.SECP256R1())
        trust_domain = trust.bundle.trust_domain
        wanted = for_server(key.public_key(), self._named, trust_domain, make_csr(key))
        chain = await service.work(
            lambda: service.signer.sign(root, wanted, service.wall(), self._life)
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        context = _new_context(trust.bundle.trusted)
        # The ssl module reads keys from paths alone; this one leads to memory and never to a disk.
        descriptor = os.memfd_create("tencrypt-ca-server", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(secret + b"".join(one.public_bytes(Encoding.PEM) for one in chain))
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        fields: dict[str, object] = {"serial": f"{chain[0].serial_number:x}"}
        service.audit("server_certificate", fields | {"root": fingerprint(root)})
        return context

    def _choose(
        self, connection: ssl.SSLObject, name_untrusted: str | None, _context: ssl.SSLContext
    ) -> int | None:
        chosen = self._shown.get(name_untrusted or "", self._first)
        if chosen is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = chosen
        return None


def _new_context(roots: Iterable[x509.Certificate]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    # Who has no certificate yet comes with a token; one that is shown must be of a root of ours.
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_STRICT | _NO_CHECK_TIME
    for root in roots:
        context.load_verify_locations(cadata=root.public_bytes(Encoding.DER))
    return context
