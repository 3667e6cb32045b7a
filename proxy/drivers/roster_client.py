"""The roster as the CA has it: one request is always under way, answered when there is a newer one.

What pods know of the project may be an hour old and no older (a roster's own ``next``), so a fresh signature of the
same version is asked for too, once a tenth of that time is over. A CA that is away changes nothing of the roster in
use; peers may have a newer one (`proxy.lists`), which comes by `RosterKeeper.offer`.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final

from ca.lists import Roster
from ca.trust_bundle import Vouched
from proxy.credentials.credential import Credential
from proxy.credentials.roster import HeldRoster
from proxy.credentials.trust import Believed
from proxy.drivers import ca_client, clock, logs
from proxy.drivers.enrolment import Enrolment
from proxy.errors import Dropped
from proxy.status import JsonObject

HOLD_SECONDS: Final = 25.0
"""For which the CA holds a request."""

REFRESH: Final = 0.1
"""Of a roster's time of use: after it a later signature is asked for."""

SHORTEST_PAUSE: Final = 1.0
"""Seconds between two requests, up to half of it less at random, however fast they are answered."""

LONGEST_PAUSE: Final = 60.0
"""Seconds: the longest wait after a failure; that after the first is 1, and doubled by each further one."""

REFUSED_PAUSE: Final = 300.0
"""Seconds: the longest wait after a refusal, and half of it the shortest."""

RELEASE_SECONDS: Final = 2.0

_MOST_DOUBLINGS: Final = 6


def _random() -> float:
    return int.from_bytes(os.urandom(4), "big") / (1 << 32)


class RosterKeeper:
    """The newest roster for as long as a proxy runs: `keep` asks the CA, `offer` takes it from anybody."""

    def __init__(
        self,
        enrolment: Enrolment,
        adopt: Callable[[Roster], None],
        now: Callable[[], float] = clock.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = _random,
    ) -> None:
        """Ask as the pod of ``enrolment``, and give each newer roster to ``adopt``.

        Its envelope is `envelope` by then. ``now``, ``sleep`` and ``random`` (in [0, 1)) are given by tests.
        """
        self._enrolment, self._adopt = enrolment, adopt
        self._now, self._sleep, self._random = now, sleep, random
        self._held = HeldRoster()
        self.failures = 0  # in a row
        self._last_error = ""
        self._next_at = now()

    @property
    def roster(self) -> Roster | None:
        """The one in use; it stays when its time is over."""
        return self._held.roster

    @property
    def envelope(self) -> bytes:
        """The bytes of the one in use as they came; none without one."""
        return self._held.envelope

    def offer(self, envelope_untrusted: bytes) -> None:
        """Adopt the envelope's roster where it is newer; raises `Dropped` (ROSTER, BUNDLE) where nobody vouches."""
        enrolment = self._enrolment
        own, wall = enrolment.credential.own, self._wall()
        roster = self._held.offer(envelope_untrusted, self._believe, own, wall)
        if roster is not None:
            logs.event("roster", version=roster.version, count=len(roster.entries))
            self._adopt(roster)

    def _believe(self, vouched_untrusted: Vouched) -> Believed:
        self._enrolment.offer_bundle(vouched_untrusted)
        return self._enrolment.bundle.authority

    async def keep(self) -> None:
        """Ask for ever; no failure ends it."""
        while True:
            try:
                await self._ask_by_one_line()
            except ca_client.CaRefused as error:
                await self._failed(error, REFUSED_PAUSE * (1 + self._random()) / 2)
            except (ca_client.CaUnreachable, Dropped, OSError) as error:
                longest = min(2.0 ** min(self.failures, _MOST_DOUBLINGS), LONGEST_PAUSE)
                await self._failed(error, longest * self._random())

    async def release(self) -> None:
        """Tell the CA that this pod stops: its addresses are free. At an orderly stop, after `keep` was cancelled."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                enrolment = self._enrolment
                authority = enrolment.bundle.authority
                async with ca_client.line(enrolment.ca, authority, enrolment.credential) as line:
                    await line.release()
        except (TimeoutError, ca_client.CaRefused, ca_client.CaUnreachable, OSError) as error:
            reason = str(error) or f"no answer in {RELEASE_SECONDS:g} s"
            logs.event("release_failed", logging.WARNING, reason=reason)
        else:
            logs.event("released")

    def status(self, now: float) -> JsonObject:
        """Return which roster is in use and how asking fares: seconds of its age, and until the next request."""
        roster = self.roster
        wall = now + self._enrolment.wall_offset
        return {
            "version": roster.version if roster else None,
            "entries": len(roster.entries) if roster else None,
            "age_seconds": max(0, round(wall - roster.issued)) if roster else None,
            "usable_seconds": round(roster.next - wall) if roster else None,
            "next_seconds": max(0, round(self._next_at - now)),
            "failures": self.failures,
            "last_error": self._last_error or None,
        }

    async def _ask_by_one_line(self) -> None:
        """Ask until there is another credential to ask with."""
        enrolment = self._enrolment
        credential, bundle = enrolment.credential, enrolment.bundle
        async with ca_client.line(enrolment.ca, bundle.authority, credential) as line:
            while self._is_current(credential):
                version, issued = self._held.age_key
                wanted = issued if self._is_getting_old() else None
                envelope_untrusted = await line.roster(version, wanted, HOLD_SECONDS, bundle.hash)
                if envelope_untrusted is not None:
                    self.offer(envelope_untrusted)
                self.failures, self._last_error = 0, ""
                await self._pause(SHORTEST_PAUSE * (1 + self._random()) / 2)

    def _is_current(self, credential: Credential) -> bool:
        return self._enrolment.credential is credential

    def _is_getting_old(self) -> bool:
        roster = self.roster
        if roster is None:
            return False
        return self._wall() >= roster.issued + REFRESH * (roster.next - roster.issued)

    def _wall(self) -> float:
        return self._now() + self._enrolment.wall_offset

    async def _failed(self, error: Exception, pause: float) -> None:
        self.failures += 1
        self._last_error = str(error)
        logs.event(
            "roster_failed",
            logging.WARNING,
            reason=str(error),
            attempt=self.failures,
            next_seconds=round(pause, 1),
        )
        await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        self._next_at = self._now() + seconds
        await self._sleep(seconds)
