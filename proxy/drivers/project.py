"""Who belongs to the project, while the daemon runs: DNS, lookups, sessions, and the kernel that is told of it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import Final

from proxy.dns import wire
from proxy.dns.answers import read_answer
from proxy.dns.wire import Query
from proxy.dns.zone import Owner, Zone
from proxy.drivers import logs
from proxy.drivers.agent_client import AgentClient
from proxy.drivers.dns_proxy import DnsProxy, Way
from proxy.drivers.dns_stream import DnsStreams
from proxy.drivers.kernel_sets import KernelSets
from proxy.drops import Drop, Drops
from proxy.errors import Dropped
from proxy.flow.membership import OUTSIDE_LIFE, Address, Membership
from proxy.settings_membership import ProjectSettings
from proxy.status import JsonObject

_KEPT: Final = "known before the restart"


class Project:
    """Membership's facts come here, and go from here to the kernel."""

    def __init__(  # noqa: PLR0913 - what it joins
        self,
        settings: ProjectSettings,
        namespace: str,
        *,
        addresses: Iterable[Address],
        resolvers: Iterable[Address],
        kept: Iterable[Address],
        ways: Iterable[Way],
        client: AgentClient,
        drops: Drops,
    ) -> None:
        """``kept`` are members that the kernel held before we began, ``ways`` where programs' queries arrive."""
        self._settings, self._drops = settings, drops
        self._now = asyncio.get_running_loop().time
        self.zone = Zone(namespace, settings.cluster_domain)
        self.members = Membership(
            own=addresses,
            members=settings.members,
            ranges=settings.ranges,
            clear=(*settings.clear_in, *settings.clear_out),
            resolvers=resolvers,
            remembers_sessions=not settings.strict,
        )
        for address in kept:
            self._keep(address)
        self.kernel = KernelSets(client, self.members, self._now, strict=settings.strict)
        self.dns = DnsProxy(ways, self.heard, drops)
        self._looking: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None

    def _keep(self, address: Address) -> None:
        if self._settings.strict:
            self.members.zone(address.packed, _KEPT, OUTSIDE_LIFE, self._now())
        else:
            self.members.session((address.packed,), _KEPT)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Answer queries, look up, tell the kernel, as long as the context lasts."""
        self.dns.start()
        try:
            async with DnsStreams(self.dns).serve(), asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self.kernel.settle()
                keeper = tasks.create_task(self._keep_up())
                try:
                    yield
                finally:
                    self._tasks = None
                    for task in (keeper, *self._looking):
                        task.cancel()
        finally:
            self.dns.stop()

    def heard(self, _query: Query, data: bytes) -> bool | Awaitable[bool]:
        """Heed an answer before a program has it; raises `Dropped` where nobody can read it."""
        now = self._now()
        for fact in self.zone.facts(read_answer(data)):
            if fact.owner is Owner.PROJECT:
                if not self.members.zone(fact.address, fact.name, fact.ttl, now):
                    return False
            elif fact.owner is Owner.OTHER and self._settings.dns_bypass:
                self.members.bypass(fact.address, fact.name, fact.ttl, now)
        return True if self.kernel.is_settled else self.kernel.settle()

    def look_up(self, address: bytes, done: Callable[[], None]) -> None:
        """Find out in reverse whose an address is; ``done`` is called when it is known, or in vain."""
        if self._tasks is None:
            done()
            return
        task = self._tasks.create_task(self._look_up(address, done))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look_up(self, address: bytes, done: Callable[[], None]) -> None:
        try:
            data = await self.dns.ask(wire.reverse_name(address), wire.PTR)
            found = self.zone.name_of(read_answer(data)) if data is not None else None
            if found is not None:
                self.members.zone(address, *found, self._now())
        except Dropped as dropped:
            self._drops[dropped.reason] += 1
        done()

    # Sessions are facts too.

    def session_opened(self, addresses: Iterable[bytes], pod: str) -> None:
        """Note whom a certificate names."""
        self.members.session(addresses, pod)

    def session_over(self, addresses: Iterable[bytes]) -> None:
        """Note that there is no session with these any more."""
        self.members.session_over(addresses)

    async def _keep_up(self) -> None:
        """Forget what is over, and tell the kernel what has changed: what DNS said it knows already."""
        while True:
            await asyncio.sleep(1.0)
            self.members.expire(self._now())
            if not self.kernel.is_settled and not await self.kernel.settle():
                self._drops[Drop.KERNEL] += 1
                logs.event(
                    "kernel_refused", logging.ERROR, message="the net agent refuses, or is gone"
                )

    def status(self) -> JsonObject:
        """Return who is known, by which source, as JSON-ready data."""
        settings = self._settings
        return {
            "encryption": "strict" if settings.strict else "permissive",
            "members": {
                str(ip_address(address)): self.members.judge(address).source
                for address in sorted(self.members.found())
            },
            "kernel_settled": self.kernel.is_settled,
            "dns_queries": self.dns.queries,
        }
