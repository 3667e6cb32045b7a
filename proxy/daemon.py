"""The daemon: builds the parts of a pod's proxy, runs them, and stops them in order.

It runs under a UID of its own without any capability; what needs more, the net agent does.
"""

import asyncio
import codecs
import contextlib
import logging
import os
import signal
import socket
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from proxy.credentials.credential import Credential
from proxy.drivers import admin, ca_client, clock, logs, metrics, monitor
from proxy.drivers.enrolment import Enrolment
from proxy.drivers.line import DaemonsEnd
from proxy.drivers.pump import Pump
from proxy.drivers.readiness import Readiness
from proxy.drivers.tun import Tun
from proxy.drivers.udp import SessionSocket
from proxy.drivers.verifier import Verifier
from proxy.drivers.watching import BUSY, WATCH, Watchers
from proxy.drops import Drop, Drops
from proxy.errors import Dropped
from proxy.flow.membership import Membership
from proxy.inbound import Inbound
from proxy.outbound import Outbound
from proxy.rekey import replaced
from proxy.rekey import report as rekey_report
from proxy.session.events import (
    CallFailed,
    Event,
    HandshakeRefused,
    SessionClosed,
    SessionMoved,
    SessionOpened,
    VerifyHeard,
)
from proxy.session.handshake import HANDSHAKE_LIFE
from proxy.session.table import SessionTable
from proxy.session.wire import RECORD_OVERHEAD
from proxy.settings import Settings
from proxy.status import JsonObject, report
from tencrypt import __version__

FINE, FAILED, CA_REFUSED, LACKING = 0, 1, 3, 4

# Codecs load when first used, and the daemon's user may be unable to read where Python is installed.
_CODECS: Final = tuple(codecs.lookup(name) for name in ("ascii", "idna", "latin-1"))

_DROPS_EVERY: Final = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the daemon finds itself: the pod's addresses (one a family), its resolvers, and tenc0's MTU."""

    addresses: tuple[IPv4Address | IPv6Address, ...]
    resolvers: tuple[IPv4Address | IPv6Address, ...]
    tunnel_mtu: int


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
        self._verifier: Verifier | None = None
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
        # Whatever else it says, or its end, means the same: stop.
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._stop.set()

    def _why_not_ready(self) -> str:
        return self._readiness.why_not(clock.monotonic())

    def _tell_event(self, event: Event) -> None:
        if isinstance(event, VerifyHeard) and self._verifier is not None:
            self._verifier.hear(event.session, event.body)
        _log_event(event)
        self._news.set()
        self._news = asyncio.Event()

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

    @contextlib.asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        loop, settings, enrolment = asyncio.get_running_loop(), self._settings, self._enrolment
        table = SessionTable(
            enrolment.credential,
            settings.session_port,
            os.urandom,
            self._drops,
            wall_offset=enrolment.wall_offset,
            largest=self._place.tunnel_mtu + RECORD_OVERHEAD,
            profile=settings.tls_profile,
        )
        own = frozenset(address.packed for address in self._place.addresses)
        project = settings.project
        members = Membership(
            own=self._place.addresses,
            members=project.members,
            ranges=project.ranges,
            clear=(*project.clear_in, *project.clear_out),
            resolvers=self._place.resolvers,
            remembers_sessions=not project.strict,
        )
        outbound = Outbound(table, own, members, self._drops)
        inbound = Inbound(table, own, self._drops, self._place.tunnel_mtu)
        sockets: dict[int, SessionSocket] = {
            a.version: SessionSocket(a, settings.session_port, settings.offloads)
            for a in self._place.addresses
        }
        self._tun.offload(settings.offloads)
        pump = Pump(
            tun=self._tun,
            sockets=sockets,
            table=table,
            outbound=outbound,
            inbound=inbound,
            drops=self._drops,
            tell=self._tell_event,
            fail=self._tunnel_gone,
        )

        def status() -> JsonObject:
            now = loop.time()
            renewal = enrolment.status(now)
            return report(
                enrolment.credential.own, renewal, table, self._drops, now, pump.offloads()
            )

        def adopt(credential: Credential, wall_offset: float) -> None:
            table.wall_offset = wall_offset
            table.adopt(credential, loop.time())
            pump.settle()

        async def rekey(pod: str | None) -> JsonObject:
            former = table.renew(loop.time(), pod)
            pump.settle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANDSHAKE_LIFE):
                    while len(replaced(table, former)) < len(former):
                        await self._news.wait()
            return rekey_report(table, former)

        self._verifier = verifier = Verifier(
            on=settings.verify,
            pod=settings.name,
            addresses=self._place.addresses,
            members=members,
            watchers=self._watchers,
            table=table,
            drops=self._drops,
            settle=pump.settle,
        )
        serving = admin.serve(Path(settings.admin_socket), status, rekey, verifier.verify)
        async with serving, asyncio.TaskGroup() as tasks:
            pump.start()
            self._readiness.serves(table)
            self._metrics.parts = metrics.Parts(table, outbound, enrolment, pump.offloads)
            others = (
                tasks.create_task(self._tell_drops()),
                tasks.create_task(enrolment.keep(adopt)),
                tasks.create_task(verifier.answer()),
            )
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

    async def _tell_drops(self) -> None:
        """Log what was refused: one line a reason and interval, however many there were."""
        told: Drops = Drops()
        while True:
            await asyncio.sleep(_DROPS_EVERY)
            for reason, count in (self._drops - told).items():
                logs.event("refused", logging.WARNING, reason=str(reason), count=count)
            told = self._drops.copy()


def _log_event(event: Event) -> None:
    match event:
        case SessionOpened(session):
            logs.event(
                "session_opened",
                peer=session.peer.pod,
                identity=session.peer.identity.uri,
                endpoint=session.endpoint[0],
                role="initiator" if session.is_initiator else "responder",
                generation=session.generation,
                cipher=session.suite,
                group=session.group,
            )
        case SessionMoved(session, before):
            logs.event(
                "session_moved",
                peer=session.peer.pod,
                identity=session.peer.identity.uri,
                endpoint=session.endpoint[0],
                port=session.endpoint[1],
                before=before[0],
            )
        case SessionClosed(session, why):
            logs.event(
                "session_closed",
                peer=session.peer.pod,
                identity=session.peer.identity.uri,
                generation=session.generation,
                why=why,
            )
        case HandshakeRefused(endpoint, refusal, is_initiator):
            logs.event(
                "handshake_refused",
                logging.WARNING,
                endpoint=endpoint[0],
                reason=str(refusal.reason),
                detail=refusal.detail,
                role="initiator" if is_initiator else "responder",
            )
        case VerifyHeard():
            pass  # one of several of a verification, which is logged as a whole
        case CallFailed(address, refusal):
            logs.event(
                "unreachable",
                logging.WARNING,
                address=socket.inet_ntop(
                    socket.AF_INET if len(address) == 4 else socket.AF_INET6, address
                ),
                reason=str(refusal.reason),
            )
