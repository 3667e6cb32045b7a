"""The daemon: builds the parts of a pod's proxy, runs them, and stops them in order.

It runs under a UID of its own without any capability; what needs more, the net agent does.
"""

import asyncio
import codecs
import contextlib
import logging
import signal
import traceback
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from proxy import cert
from proxy.credentials.credential import Credential
from proxy.drivers import admin, ca_client, clock, data_path, event_log, logs, metrics, monitor
from proxy.drivers.agent_client import ANSWERS, AgentClient
from proxy.drivers.enrolment import Enrolment
from proxy.drivers.line import DaemonsEnd
from proxy.drivers.place import Place, open_ways
from proxy.drivers.project import Project
from proxy.drivers.pump import Pump
from proxy.drivers.readiness import Readiness
from proxy.drivers.rosters import Rosters
from proxy.drivers.tun import Tun
from proxy.drivers.verifier import Verifier
from proxy.drivers.watching import BUSY, WATCH, Watchers
from proxy.drops import Drop, Drops
from proxy.errors import Dropped
from proxy.rekey import replaced
from proxy.rekey import report as rekey_report
from proxy.session.events import Event, ListsHeard, SessionClosed, SessionOpened, VerifyHeard
from proxy.session.handshake import HANDSHAKE_LIFE
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.settings import Settings
from proxy.status import JsonObject, report
from tencrypt import __version__

FINE, FAILED, CA_REFUSED, LACKING = 0, 1, 3, 4

# Codecs load when first used, and the daemon's user may be unable to read where Python is installed.
_CODECS: Final = tuple(codecs.lookup(name) for name in ("ascii", "idna", "latin-1"))

_FIRST_LIST: Final = 5.0
"""Seconds that a start waits for the first list; afterwards it comes when the CA, or a peer, has it."""

_DROPS_EVERY: Final = 5.0


def run(settings: Settings, place: Place, channel: DaemonsEnd, tun: Tun) -> int:
    """Run until the net agent asks for the end (or is gone) or a signal does; return the exit code."""
    logs.configure()
    try:
        return asyncio.run(_Daemon(settings, place, channel, tun).main())
    except ca_client.CaRefused as error:
        logs.event("ca_refused", logging.ERROR, code=error.code, message=error.message)
        return CA_REFUSED
    except ca_client.CaUnreachable as error:
        logs.event("ca_unreachable", logging.ERROR, ca=settings.ca_address, message=str(error))
        return CA_REFUSED
    except Dropped as error:
        logs.event("certificate_refused", logging.ERROR, message=str(error))
        return CA_REFUSED
    except OSError as error:
        logs.event("failed", logging.ERROR, message=str(error))
        return FAILED


class _Daemon:
    def __init__(self, settings: Settings, place: Place, channel: DaemonsEnd, tun: Tun) -> None:
        self._settings, self._place, self._channel, self._tun = settings, place, channel, tun
        self._enrolment = Enrolment(settings)
        self._drops: Drops = Drops()
        self._readiness = Readiness(tun)
        self._metrics = metrics.ProxyMetrics(
            __version__, self._drops, self._why_not_ready, clock.monotonic
        )
        self._stop = asyncio.Event()
        self._code = FINE
        self._bug_told = 0.0
        self._watchers = Watchers(channel)
        self._agent = AgentClient(channel)
        self._project: Project | None = None
        self._rosters: Rosters | None = None
        self._verifier: Verifier | None = None
        self._current: Mapping[bytes, Session] | None = None
        self._news = asyncio.Event()
        """Set, and replaced by another, at each event of the sessions."""

    async def main(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._tell_bug)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_reader(self._channel.fileno(), self._hear_agent)
        listen = self._settings.metrics_listen
        if listen is None:
            return await self._live()
        try:
            listener = monitor.listen(listen.address, listen.port)
        except OSError as error:
            message = error.strerror
            logs.event("cannot_listen", logging.ERROR, metrics_listen=str(listen), message=message)
            return LACKING
        async with monitor.serve(listener, metrics.registry(self._metrics), self._why_not_ready):
            return await self._live()

    async def _live(self) -> int:
        obtaining = asyncio.ensure_future(self._enrolment.obtain())  # noqa: TID251 - awaited two lines on
        stopping = asyncio.ensure_future(self._stop.wait())  # noqa: TID251 - cancelled below
        await asyncio.wait((obtaining, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not obtaining.done():
            obtaining.cancel()
            return FINE
        obtaining.result()
        async with self._serve():
            await self._stop.wait()
        logs.event("stopped", pod=self._settings.name)
        return self._code

    def _hear_agent(self) -> None:
        with contextlib.suppress(OSError):
            word, channel = self._channel.hear()
            if word in {WATCH, BUSY}:
                self._watchers.given(channel)
                return
            if word.startswith(ANSWERS):
                self._agent.heard(word)
                return
        # Whatever else it says, or its end, means the same: stop.
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._stop.set()

    def _why_not_ready(self) -> str:
        return self._readiness.why_not(clock.monotonic())

    def _tell_event(self, event: Event) -> None:
        if isinstance(event, VerifyHeard) and self._verifier is not None:
            self._verifier.hear(event.session, event.body)
        if isinstance(event, SessionClosed) and self._verifier is not None:
            self._verifier.closed(event.session)
        if self._project is not None:
            self._note(self._project, event)
        event_log.tell(event)
        self._news.set()
        self._news = asyncio.Event()

    def _note(self, project: Project, event: Event) -> None:
        """Take sessions' facts to the membership: whom certificates name."""
        rosters = self._rosters
        if isinstance(event, ListsHeard) and rosters is not None:
            rosters.heard(event.session, event.body)
        elif isinstance(event, SessionOpened):
            project.session_opened(event.session.peer.addresses, event.session.peer.pod)
            if rosters is not None:
                rosters.opened(event.session)
        elif isinstance(event, SessionClosed) and self._current is not None:
            gone = [one for one in event.session.peer.addresses if one not in self._current]
            project.session_over(gone)

    def _tunnel_gone(self, error: OSError) -> None:
        if not self._stop.is_set():
            logs.event("tunnel_gone", logging.ERROR, message=str(error))
        self._code = FAILED
        self._stop.set()

    def _tell_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        # What hostile bytes bring about must neither end the daemon nor fill its log.
        self._drops[Drop.BUG] += 1
        error = context.get("exception")
        if loop.time() >= self._bug_told + 1 and isinstance(error, BaseException):
            self._bug_told = loop.time()
            trace = traceback.format_exception(error)
            logs.event(
                "bug", logging.ERROR, message=context.get("message"), exception="".join(trace)
            )

    def _make_project(self) -> Project:
        return Project(
            self._settings.project,
            self._settings.identity,
            addresses=self._place.addresses,
            resolvers=self._place.resolvers,
            kept=self._place.kept,
            ways=open_ways(self._settings, self._place),
            client=self._agent,
            drops=self._drops,
            files=self._place.files,
            break_glass_file=self._settings.break_glass_file,
            journals=Path(self._settings.admin_socket),
        )

    @contextlib.asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        loop, settings, enrolment = asyncio.get_running_loop(), self._settings, self._enrolment
        table = data_path.make_table(settings, self._place, enrolment, self._drops)
        self._current = table.current
        project = self._project = self._make_project()
        path = data_path.join(
            settings,
            self._place,
            table,
            project,
            self._tun,
            drops=self._drops,
            tell=self._tell_event,
            fail=self._tunnel_gone,
        )
        pump, outbound = path.pump, path.outbound

        self._rosters = rosters = Rosters(
            enrolment,
            table,
            project,
            self._drops,
            pump.settle,
            is_membership=settings.project.roster,
        )

        def adopt(credential: Credential, wall_offset: float) -> None:
            table.wall_offset = wall_offset
            table.adopt(credential, loop.time())
            pump.settle()

        self._verifier = verifier = Verifier(
            on=settings.verify,
            pod=settings.name,
            addresses=self._place.addresses,
            members=project.members,
            watchers=self._watchers,
            table=table,
            drops=self._drops,
            settle=pump.settle,
            hold=project.kernel.settle,
        )
        rekey = partial(self._rekey, table, pump)
        serving = admin.serve(
            Path(settings.admin_socket),
            admin.Answering(
                partial(self._status, table, pump, project),
                rekey,
                verifier.verify,
                partial(project.explain, current=table.current),
                project.audit.ready,
                partial(self._certificate, table),
                partial(self._judge, table),
                enrolment.rotate,
            ),
        )
        async with project.serve(), serving, asyncio.TaskGroup() as tasks:
            pump.start()
            self._readiness.serves(table, project.knows_pods)
            self._metrics.parts = metrics.Parts(table, outbound, enrolment, pump.offloads, project)
            others = [
                tasks.create_task(self._tell_drops()),
                tasks.create_task(enrolment.keep(adopt)),
                tasks.create_task(verifier.answer()),
                tasks.create_task(rosters.keep()),
            ]
            await self._informed(rosters)
            self._channel.say(b"ready")
            logs.event(
                "ready", pod=settings.name, namespace=settings.namespace, mtu=self._place.tunnel_mtu
            )
            try:
                yield
            finally:
                pump.stop()
                for task in others:
                    task.cancel()
                await self._release()

    async def _informed(self, rosters: Rosters) -> None:
        """Wait for the first list, for a while: no session is made before it says who is withdrawn."""
        ways = [
            asyncio.ensure_future(one)  # noqa: TID251 - cancelled below
            for one in (rosters.came.wait(), self._stop.wait())
        ]
        try:
            await asyncio.wait(ways, timeout=_FIRST_LIST, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in ways:
                one.cancel()

    async def _release(self) -> None:
        """Tell the CA that this pod stops, so that its addresses leave the roster."""
        if self._rosters is not None:
            self._rosters.stop()
            await self._rosters.keeper.release()

    def _status(self, table: SessionTable, pump: Pump, project: Project) -> JsonObject:
        now = asyncio.get_running_loop().time()
        own, renewal = self._enrolment.credential.own, self._enrolment.status(now)
        parts = report(own, renewal, table, self._drops, now, pump.offloads())
        roster = None if self._rosters is None else self._rosters.keeper.status(now)
        return parts | {"project": project.status() | {"roster": roster}}

    def _certificate(self, table: SessionTable) -> JsonObject:
        now = asyncio.get_running_loop().time()
        enrolment = self._enrolment
        return cert.report(enrolment.credential, enrolment.status(now), now + table.wall_offset)

    def _judge(self, table: SessionTable, pem_untrusted: bytes) -> JsonObject:
        wall = asyncio.get_running_loop().time() + table.wall_offset
        return cert.judge(pem_untrusted, self._enrolment.credential, wall, table.revoked)

    async def _rekey(self, table: SessionTable, pump: Pump, pod: str | None) -> JsonObject:
        former = table.renew(asyncio.get_running_loop().time(), pod)
        pump.settle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANDSHAKE_LIFE):
                while len(replaced(table, former)) < len(former):
                    await self._news.wait()
        return rekey_report(table, former)

    async def _tell_drops(self) -> None:
        """Log what was refused: one line a reason and interval, however many there were."""
        told: Drops = Drops()
        while True:
            await asyncio.sleep(_DROPS_EVERY)
            for reason, count in (self._drops - told).items():
                logs.event("refused", logging.WARNING, reason=str(reason), count=count)
            told = self._drops.copy()
