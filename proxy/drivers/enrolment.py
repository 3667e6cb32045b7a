"""The pod's certificate: obtained at start with the join token, from then on renewed with its own key.

A certificate is never given up before its end, whatever the CA says or does not say. One that has ended is
kept too: it opens no session, for peers refuse it, but for a day the CA still renews it.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from ca.messages import MessageError, SignResponse, parse_token
from ca.trust_bundle import Vouched, read_vouched
from policy.identity import PodIdentity
from proxy.credentials.bundle import HeldBundle
from proxy.credentials.certificate import PodCertificate
from proxy.credentials.credential import Credential, build_credential
from proxy.credentials.csr import make_key_and_csr
from proxy.credentials.renewal import Renewal
from proxy.credentials.trust import verify_again
from proxy.drivers import ca_client, clock, logs
from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.settings import Settings
from proxy.status import JsonObject

CA_PATIENCE: Final = 30.0
"""Seconds for which an unreachable CA is asked again at start; whoever restarts us goes on after that."""

_FIRST_PAUSE, _LAST_PAUSE = 0.2, 3.0

_JOIN_INSTEAD: Final = frozenset({"certificate_ended", "http", "superseded"})
"""Refusals of a renewal that a token can mend; `http`: a CA of before there were renewals has no such path."""

Adopt = Callable[[Credential, float], None]
"""Takes a new credential and the wall offset by the CA's answer, as `Enrolment.wall_offset`."""


def _random() -> float:
    return int.from_bytes(os.urandom(4), "big") / (1 << 32)


class Enrolment:
    """One pod's certificate for as long as its proxy runs: `obtain` once, then `keep`."""

    credential: Credential
    """The one in use; from `obtain` on."""
    wall_offset: float
    """Unix time less monotonic time, by the CA's last answer."""
    renewal: Renewal
    bundle: HeldBundle
    """The roots that we believe; from `obtain` on."""
    ca: ca_client.Ca

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], float] = clock.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = _random,
    ) -> None:
        """Ask the CA of the settings; ``now``, ``sleep`` and ``random`` (in [0, 1)) are given by tests."""
        self._settings, self._now, self._sleep, self._random = settings, now, sleep, random
        self.ca = ca_client.Ca(
            settings.ca_address, settings.ca_root_fingerprint, settings.trust_domain
        )
        self.renewals = self.failures = (
            0  # attempts since the start that brought a certificate, or none
        )
        self._is_end_told = False
        self._next: tuple[EllipticCurvePrivateKey, bytes] | None = None
        self._is_joined = False
        self._root: x509.Certificate | None = None
        """Under which the certificate is."""
        self._adopt: Adopt | None = None
        self._hurry = asyncio.Event()
        self._replanned = asyncio.Event()
        self._attempted = asyncio.Event()
        """Set, and replaced by another, at each attempt."""

    async def obtain(self) -> None:
        """Join with the token; raises `CaRefused`, `CaUnreachable` after `CA_PATIENCE`, or `Dropped`."""
        key, csr = make_key_and_csr()
        answer = await self._ask_patiently(csr)
        self._take(key, answer)
        self._tell("certificate_issued", answer, "token")

    async def keep(self, adopt: Adopt) -> None:
        """Renew for ever, and give each new credential to ``adopt``; no failure ends it."""
        self._adopt = adopt
        while True:
            await self._wait()
            # One key for all attempts at one renewal: an attempt that comes late then changes nothing.
            self._next = self._next or make_key_and_csr()
            key, csr = self._next
            try:
                answer, means = await self._ask_for_next(csr)
                self._take(key, answer)
            except ca_client.CaRefused as error:
                self._failed(error, is_refusal=True)
            except (ca_client.CaUnreachable, Dropped, OSError) as error:
                self._failed(error, is_refusal=False)
            else:
                self._next = None
                self._is_end_told = False
                self.renewals += 1
                self._tell("certificate_renewed", answer, means)
                adopt(self.credential, self.wall_offset)
            self._attempted.set()
            self._attempted = asyncio.Event()

    async def rotate(self) -> JsonObject:
        """Have `keep` renew now; return whether that brought a certificate, and if not, why."""
        self._hurry.set()
        await self._attempted.wait()
        error = self.renewal.last_error
        serial = f"{self.credential.own.serial:x}"
        return {"renewed": not error, "serial": serial, "error": error or None}

    def offer_bundle(self, vouched_untrusted: Vouched) -> bool:
        """Take a newer bundle of roots, from whomever; say whether it was. Raises `Dropped` (BUNDLE)."""
        if not self.bundle.offer(vouched_untrusted):
            return False
        self._tell_bundle()
        self.credential = replace(self.credential, roots=self.bundle.roots)
        if self._root != self.bundle.bundle.active:
            self.renewal.hasten(self._now(), self._random())
            self._replanned.set()
        if self._adopt is not None:
            self._adopt(self.credential, self.wall_offset)
        return True

    def status(self, now: float) -> JsonObject:
        """Return how renewals fare: seconds until the next attempt, failures since the last, and why."""
        renewal = self.renewal
        return {
            "renewals": self.renewals,
            "next_seconds": max(0, round(renewal.next_at - now)),
            "failures": renewal.failures,
            "last_error": renewal.last_error or None,
        }

    async def _wait(self) -> None:
        """Sleep until the next attempt is due; on the way, tell the certificate's end."""
        renewal = self.renewal
        while True:
            now = self._now()
            has_ended = renewal.has_ended(now)
            if has_ended and not self._is_end_told:
                self._is_end_told = True
                serial = f"{self.credential.own.serial:x}"
                logs.event("certificate_ended", logging.ERROR, serial=serial)
            if now >= renewal.next_at or self._hurry.is_set():
                self._hurry.clear()
                return
            until = renewal.next_at if has_ended else min(renewal.next_at, renewal.ends)
            await self._sleep_unless_hurried(until - now)

    async def _sleep_unless_hurried(self, seconds: float) -> None:
        ways = [
            asyncio.ensure_future(one)  # noqa: TID251 - awaited below
            for one in (self._sleep(seconds), self._hurry.wait(), self._replanned.wait())
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            self._replanned.clear()
            for one in ways:
                one.cancel()

    async def _ask_for_next(self, csr: bytes) -> tuple[SignResponse, str]:
        try:
            return await ca_client.renew(
                self.ca, self.bundle.authority, self.credential, csr
            ), "key"
        except ca_client.CaRefused as error:
            if error.code not in _JOIN_INSTEAD or not self._is_token_good():
                raise
        return await self._join(csr), "token"

    async def _join(self, csr: bytes) -> SignResponse:
        root = await ca_client.find_root(self.ca)
        if not self._is_joined:
            self.bundle = HeldBundle(self._settings.trust_domain, root)
        elif root not in self.bundle.bundle.vouching:
            # Who has stolen the key of a root that is no good any more must not have our token.
            raise ca_client.CaUnreachable(
                "the root that ca_root_fingerprint names is withdrawn: it needs the new one's"
            )
        return await ca_client.obtain(self.ca, root, self._settings.token, csr)

    def _is_token_good(self) -> bool:
        return parse_token(self._settings.token).expires > self._now() + self.wall_offset

    def _take(self, key: EllipticCurvePrivateKey, answer: SignResponse) -> None:
        try:
            is_newer = self.bundle.offer(read_vouched(answer.trust))
        except MessageError as error:
            raise Dropped(Drop.BUNDLE, str(error)) from None
        if is_newer:
            self._tell_bundle()
        credential = build_credential(key, "".join(answer.chain).encode(), self.bundle.roots)
        chain = [one.public_bytes(Encoding.DER) for one in credential.chain]
        root = verify_again(chain, credential.roots)[-1]
        self._check_ours(credential.own)
        self.credential, self._root, self._is_joined = credential, root, True
        now = self._now()
        self.wall_offset = answer.time - now
        life = self.credential.own.not_after - answer.time
        self.renewal = Renewal.begin(now, life, self._random())

    def _check_ours(self, own: PodCertificate) -> None:
        """Refuse another pod's certificate (`Dropped`): peers would drop every packet, where the former serves."""
        settings = self._settings
        identity = PodIdentity(settings.trust_domain, settings.namespace, settings.service_account)
        # What the token names: the settings may leave the addresses to be found on the interface.
        wanted = {address.packed for address in parse_token(settings.token).addresses}
        if (own.identity, own.pod) != (identity, settings.name) or not wanted <= own.addresses:
            raise Dropped(
                Drop.CERTIFICATE_PROFILE,
                f"the CA's certificate is for {own.pod}, {own.identity.uri}, {', '.join(own.address_texts())}",
            )

    def _failed(self, error: Exception, *, is_refusal: bool) -> None:
        now, renewal = self._now(), self.renewal
        self.failures += 1
        renewal.failed(now, str(error), self._random(), is_refusal=is_refusal)
        logs.event(
            "renewal_failed",
            logging.WARNING,
            reason=str(error),
            attempt=renewal.failures,
            seconds_left=max(0, round(renewal.seconds_left(now))),
            next_seconds=round(renewal.next_at - now, 1),
        )

    def _tell_bundle(self) -> None:
        bundle = self.bundle.bundle
        roots = {root.fingerprint: root.state.value for root in bundle.roots}
        logs.event("roots", version=bundle.version, hash=self.bundle.hash, roots=roots)

    def _tell(self, event: str, answer: SignResponse, means: str) -> None:
        own = self.credential.own
        logs.event(
            event,
            serial=f"{own.serial:x}",
            identity=own.identity.uri,
            addresses=own.address_texts(),
            seconds=round(own.not_after - answer.time),
            clock_offset=round(answer.time - clock.wall(), 3),
            means=means,
        )

    async def _ask_patiently(self, csr: bytes) -> SignResponse:
        """Ask the CA until it answers or our patience ends: it may start at the same moment as we do."""
        deadline, pause = self._now() + CA_PATIENCE, _FIRST_PAUSE
        while True:
            try:
                return await self._join(csr)
            except ca_client.CaUnreachable as error:
                if self._now() + pause > deadline:
                    raise
                logs.event(
                    "ca_unreachable",
                    logging.WARNING,
                    ca=self.ca.address,
                    message=str(error),
                )
            await self._sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)
