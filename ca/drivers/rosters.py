"""``GET /v1/roster?after=VERSION[&issued=SECONDS]``: the caller's namespace's roster, once there is a newer one.

A newer one is of a higher version; where ``issued`` is given, also one of the same version that was signed later.
A request is held until there is one, for `HOLD_SECONDS` at most, and then answered by 204. A held request is one
future: no thread, and nothing of what bounds other requests.

A roster is signed anew each minute, and when pods come or go: at once, but not twice within `PACE` seconds, so that
many pods that start together cost few rosters, each of which goes to all.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web

from ca.documents import StateAwayError, StateError, namespace_name
from ca.drivers.acknowledged import Acknowledgements
from ca.drivers.answers import (
    away_answer,
    busy_answer,
    certificate_shown,
    failed_answer,
    json_answer,
    refused_answer,
    slow_answer,
    who,
    who_calls,
)
from ca.drivers.service import FAR_LOOK_SECONDS, LOOK_SECONDS, Service
from ca.facts import Facts
from ca.limits import of_polls, stranger
from ca.lists import Roster
from ca.messages import MessageError
from ca.namespace import Namespace
from ca.refusal import Refusal, Refused
from ca.renew import Caller, identify, require_lease, require_live
from ca.revocations import REVOCATIONS, check_not_revoked
from ca.roster import Rosters, SignedRoster
from ca.signer import SignerError
from ca.trust import Trust

HOLD_SECONDS: Final = 25.0
"""Below the half minute after which middle boxes begin to drop idle connections."""

RESIGN_SECONDS: Final = 60.0
PACE: Final = 1.0


MOST_HELD: Final = 4096
"""Requests that wait, one a pod."""

_FORMS: Final = {
    "after": re.compile(r"[0-9]{1,19}"),
    "issued": re.compile(r"[0-9]{1,19}"),
    "bundle": re.compile(r"[0-9a-f]{64}"),
}

_FAILURES: Final = (StateError, SignerError, MessageError)

_Pod = tuple[str, str]
"""Namespace and name: who holds a request."""


class RosterDesk:
    """Signs rosters, and answers pods that ask for them."""

    def __init__(self, service: Service) -> None:
        """Serve what ``service`` has on record; `start` begins the timers."""
        self._service = service
        self._rosters = Rosters(service.signer, service.life)
        self._trust_domain = service.signer.trust_domain
        self._held: dict[_Pod, _Held] = {}
        self._records: dict[str, Namespace] = {}
        """As they were last read: whom they name may ask."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._suspect: set[str] = set()
        self._acknowledged = Acknowledgements(service)
        self._hash = ""
        """The bundle's, by which a poll is judged to acknowledge it."""
        self._states: dict[str, object] = {}
        self._claims: dict[str, int] = {}
        """The highest version that a pod of a namespace says to have."""
        self._polls = of_polls()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Sign each minute from now on, more often where rosters may be used for a few minutes only, and on news."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._sign_again()), loop.create_task(self._look_again())]
        self._acknowledged.start()

    async def close(self) -> None:
        """Sign no more, and let go of whoever waits."""
        for task in self._tasks:
            task.cancel()
        for pod in list(self._held):
            self._let_go(pod)
        await self._acknowledged.close()

    def trust_changed(self, trust: Trust) -> None:
        """Note that another bundle is in force."""
        self._hash = trust.hash
        self._states.clear()
        self._suspect |= set(self._rosters.namespaces)
        self._news.set()

    def changed(self, namespace: str) -> None:
        """Note that a record has changed: what differs is signed now, or as soon as `PACE` allows."""
        self._suspect.add(namespace)
        self._news.set()

    async def roster(self, request: web.Request) -> web.Response:
        """Answer a pod that asks for its namespace's roster."""
        fields: dict[str, object] = {"from": request.remote}
        now, address = asyncio.get_running_loop().time(), stranger(request.remote)
        pause = self._service.refusals.seconds(address, now)
        if pause:
            return slow_answer(pause)
        try:
            caller = await self._judge(request, fields)
            asked = _parse_query(request)
            if asked.bundle and asked.bundle == self._hash:
                record = self._records[caller.identity.namespace]
                self._acknowledged.hear(caller, record, asked.bundle)
        except Refused as refused:
            self._service.refusals.take(address, now)
            fields |= who(refused.claims) | {"reason": refused.reason, "message": refused.message}
            self._service.audit("refused", fields)
            return refused_answer(refused)
        except StateError as error:
            self._service.audit("failed", fields | {"message": str(error)})
            return away_answer() if isinstance(error, StateAwayError) else failed_answer()
        pod = f"{caller.identity.namespace}/{caller.pod}"
        pause = self._polls.seconds(pod, now)
        if pause:
            return slow_answer(pause)
        self._polls.take(pod, now)
        return await self._answer(caller, asked)

    async def _judge(self, request: web.Request, fields: dict[str, object]) -> Caller:
        """Return who calls, as for a renewal, but with a certificate that is good now."""
        wall = self._service.wall()
        caller = identify(certificate_shown(request), self._trust_domain, wall)
        fields |= who_calls(caller) | {"serial": caller.serial}
        require_live(caller, wall)
        namespace = caller.identity.namespace
        try:
            require_lease(caller, self._records[namespace].leases)
        except (KeyError, Refused):  # nobody is refused by what we remember
            require_lease(caller, (await self._read(namespace)).leases)
        latest = self._rosters.latest(namespace)
        if latest is not None:
            account = caller.identity.service_account
            check_not_revoked(latest.roster.revoked, caller.pod, account, (caller.serial,))
        return caller

    async def _read(self, namespace: str) -> Namespace:
        service = self._service
        record, _ = await service.work(lambda: service.office.read(namespace))
        self._records[namespace] = record
        return record

    async def _answer(self, caller: Caller, asked: "_Asked") -> web.Response:
        namespace = caller.identity.namespace
        pod = namespace, caller.pod
        # Who asks again has given up the request before: a pod holds one.
        self._let_go(pod)
        latest = self._rosters.latest(namespace) or await self._sign(namespace, is_first=True)
        if latest is None:
            return failed_answer()
        if asked.version > max(latest.roster.version, self._claims.get(namespace, 0)):
            self._claims[namespace] = asked.version
        if asked.is_answered_by(latest.roster):
            return json_answer(HTTPStatus.OK, latest.envelope)
        if len(self._held) >= MOST_HELD:
            return busy_answer()
        held = self._held[pod] = _Held(asked, asyncio.get_running_loop().create_future())
        newer = None
        try:
            async with asyncio.timeout(HOLD_SECONDS):
                newer = await held.answer
        except TimeoutError:
            pass
        finally:
            if self._held.get(pod) is held:
                del self._held[pod]
        if newer is None:
            return web.Response(status=HTTPStatus.NO_CONTENT)
        return json_answer(HTTPStatus.OK, newer.envelope)

    def _let_go(self, pod: _Pod, newer: SignedRoster | None = None) -> None:
        held = self._held.pop(pod, None)
        if held is not None and not held.answer.done():
            held.answer.set_result(newer)

    async def _sign_again(self) -> None:
        pause = min(RESIGN_SECONDS, self._rosters.use.total_seconds() / 4)
        while True:
            await asyncio.sleep(pause)
            for namespace in self._rosters.namespaces:
                # Not at once: who says so without need has all pods take another list.
                self._rosters.claim(namespace, self._claims.pop(namespace, 0), self._service.wall())
                await self._sign(namespace)

    async def _look_again(self) -> None:
        """Sign what has changed, by our own grants at once, by another's or the owner's when it is seen."""
        pause = LOOK_SECONDS if self._service.keep is None else FAR_LOOK_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), pause)
            self._news.clear()
            is_paced = bool(self._suspect)
            try:
                revoked = await self._state(REVOCATIONS), await self._crl()
            except (StateError, SignerError):
                continue  # the signer's watch and each request tell of it
            for namespace in self._rosters.namespaces:
                try:
                    state = await self._state(namespace_name(namespace)), self._hash, revoked
                    if state != self._states.get(namespace):
                        await self._look(namespace, state)
                except StateError as error:
                    self._failed(namespace, error)
            if is_paced:
                self._suspect.clear()
                await asyncio.sleep(PACE)

    async def _state(self, name: str) -> object:
        service = self._service
        return await service.work(lambda: service.documents.state(name))

    async def _crl(self) -> frozenset[str]:
        return await self._service.work(self._service.read_crl)

    async def _look(self, namespace: str, state: tuple[object, ...]) -> None:
        former, latest = self._states.get(namespace), self._rosters.latest(namespace)
        record = await self._read(namespace)
        forbids_anew = not isinstance(former, tuple) or former[1:] != state[1:]
        if latest is None or forbids_anew or record.version != latest.roster.version:
            await self._sign(namespace)
        self._states[namespace] = state

    async def _sign(self, namespace: str, *, is_first: bool = False) -> SignedRoster | None:
        """Sign a namespace's roster and answer who waits for it; None where that failed, which was audited."""
        async with self._locks.setdefault(namespace, asyncio.Lock()):
            latest = self._rosters.latest(namespace)
            if is_first and latest is not None:
                return latest
            before = self._rosters.signer
            try:
                signed = await self._service.work(lambda: self._sign_record(namespace))
            except _FAILURES as error:
                self._failed(namespace, error)
                return None
        signer = self._rosters.signer
        if signer is not None and signer is not before:
            self._service.audit("list_signer", {"serial": f"{signer.serial_number:x}"})
        for pod, held in list(self._held.items()):
            if pod[0] == namespace and held.asked.is_answered_by(signed.roster):
                self._let_go(pod, signed)
        return signed

    def _sign_record(self, namespace: str) -> SignedRoster:
        service, rosters = self._service, self._rosters
        wall = service.wall()

        office = service.office
        read: list[Facts] = []

        def due(found: Namespace) -> Namespace:
            read[:] = [office.facts()]  # after the record
            return rosters.due(namespace, found, read[0], wall)

        _, record = office.change(namespace, due)
        self._records[namespace] = record
        return rosters.sign(namespace, record, read[0], wall)

    def _failed(self, namespace: str, error: Exception) -> None:
        self._service.audit("failed", {"roster": namespace, "message": str(error)})


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a pod has: a version, and when that was signed where a later signature is wanted, too."""

    version: int
    issued: int | None
    bundle: str = ""

    def is_answered_by(self, roster: Roster) -> bool:
        # Other roots are news whatever the list's version: a pod may hold a forged one that was believed once.
        if self.bundle and self.bundle != roster.bundle:
            return True
        if self.issued is None:
            return roster.version > self.version
        return roster.age_key > (self.version, self.issued)


@dataclass(frozen=True, slots=True)
class _Held:
    """A request that waits; its answer is None when it need not wait any more."""

    asked: _Asked
    answer: asyncio.Future[SignedRoster | None]


def _parse_query(request: web.Request) -> _Asked:
    """Return what the caller has; raises `Refused` for any other question."""
    asked: dict[str, str] = {}
    for name, text_untrusted in request.query.items():
        if name not in _FORMS or name in asked:
            raise Refused(
                Refusal.MALFORMED, "a roster is asked for by after, issued and bundle, once each"
            )
        if not _FORMS[name].fullmatch(text_untrusted):
            raise Refused(Refusal.MALFORMED, f"{name}: {_FORMS[name].pattern}")
        asked[name] = text_untrusted
    issued = int(asked["issued"]) if "issued" in asked else None
    return _Asked(int(asked.get("after", "0")), issued, asked.get("bundle", ""))
