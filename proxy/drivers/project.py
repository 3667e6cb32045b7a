"""Who belongs to the project, while the daemon runs: DNS, lookups, sessions, and the kernel that is told of it."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from policy.identity import PodIdentity
from policy.rules import RulesError
from proxy.dns import wire
from proxy.dns.answers import read_answer
from proxy.dns.wire import Query
from proxy.dns.zone import Owner, Zone
from proxy.drivers import file_watch, logs
from proxy.drivers.agent_client import AgentClient
from proxy.drivers.audit import StrictAudit
from proxy.drivers.dns_proxy import DnsProxy, Way
from proxy.drivers.dns_stream import DnsStreams
from proxy.drivers.kernel_sets import KernelSets
from proxy.drivers.project_files import Files, read_rules
from proxy.drivers.service_map import ServiceMap
from proxy.drops import Drop, Drops
from proxy.errors import Dropped
from proxy.explain import Explainer
from proxy.flow.membership import OUTSIDE_LIFE, Address, Kind, Membership
from proxy.flow.policy import Policy
from proxy.session.session import Session
from proxy.settings_membership import ProjectSettings
from proxy.status import JsonObject

_KEPT: Final = "known before the restart"

_SHOUT: Final = 60.0

_ROSTER_SECONDS: Final = 5.0
"""How long an address that nobody has named may wait for the first roster, as packets wait for a session."""


class Project:
    """Membership's facts come here, and go from here to the kernel."""

    def __init__(  # noqa: PLR0913 - what it joins
        self,
        settings: ProjectSettings,
        own: PodIdentity,
        *,
        addresses: Iterable[Address],
        resolvers: Iterable[Address],
        kept: Iterable[Address],
        ways: Iterable[Way],
        client: AgentClient,
        drops: Drops,
        files: Files,
        break_glass_file: str,
        journals: Path,
    ) -> None:
        """``kept`` are members that the kernel held before we began, ``ways`` where programs' queries arrive."""
        self._settings, self._drops = settings, drops
        self._now = asyncio.get_running_loop().time
        self.zone = Zone(own.namespace, settings.cluster_domain)
        self.policy = Policy(own, files.rules, enforce=settings.enforce)
        self._own = own
        self._break_glass_file = Path(break_glass_file)
        self._break_glass: JsonObject | None = None
        self._told_at = 0.0
        self._rules_error = ""
        self.members = Membership(
            own=addresses,
            members=settings.members,
            ranges=settings.ranges,
            clear=(*settings.clear_in, *settings.clear_out),
            resolvers=resolvers,
            permissive=not settings.strict,
        )
        for address in kept:
            self._keep(address)
        self._roster_came = asyncio.Event()
        self.services = ServiceMap(
            settings,
            own,
            addresses=addresses,
            members=self.members,
            services=files.services,
            journals=journals,
            knows_pods=self.knows_pods,
        )
        self.kernel = KernelSets(client, self.members, self._now, strict=settings.strict)
        self.dns = DnsProxy(ways, self.heard, drops)
        self.audit = StrictAudit(
            client,
            self.members,
            self.services,
            strict=settings.strict,
            has_roster=lambda: self.has_roster,
            is_glass_broken=lambda: self.is_glass_broken,
            reverse=self._reverse,
        )
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
                self.services.restore(self._now())
                keepers = [
                    tasks.create_task(self._keep_up()),
                    tasks.create_task(self.services.keep()),
                ]
                if self._settings.rules_file is not None:
                    path = Path(self._settings.rules_file)
                    keepers.append(tasks.create_task(file_watch.watch(path, self._take_rules)))
                try:
                    yield
                finally:
                    self._tasks = None
                    for task in (*keepers, *self._looking):
                        task.cancel()
        finally:
            self.dns.stop()

    async def _take_rules(self, read: str | OSError) -> None:
        """Judge by what the file says from now on; a wrong one, or none, leaves the last valid rules in force."""
        path = str(self._settings.rules_file)
        try:
            rules = read_rules(read, path, self._own)
        except RulesError as error:
            self._rules_error = str(error)
            logs.event("rules_refused", logging.ERROR, message=str(error))
            return
        self._rules_error = ""
        self.policy.replace(rules, enforce=self._settings.enforce)
        mode = "enforce" if self._settings.enforce else "audit"
        logs.event("rules", file=path, count=rules.count, mode=mode)

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
        # Packets of open connections come as soon as we run, and must not be refused for want of a list on its way.
        if self.members.judge(address).kind is Kind.UNKNOWN and not self.knows_pods():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ROSTER_SECONDS):
                    await self._roster_came.wait()
        done()

    async def _reverse(self, address: bytes) -> str:
        """Return a name of an address, whatever its zone; empty without one."""
        with contextlib.suppress(Dropped):
            data = await self.dns.ask(wire.reverse_name(address), wire.PTR)
            if data is not None:
                return next((name for name, _ in read_answer(data).names), "")
        return ""

    async def explain(
        self, target: str, protocol: int, port: int | None, current: Mapping[bytes, Session]
    ) -> JsonObject:
        """Return what becomes of packets to an address or a name's; looks up what packets would have looked up."""
        settings = self._settings
        explainer = Explainer(
            self._own,
            self.members,
            self.policy,
            current,
            settings.clear_out,
            strict=settings.strict,
            endpoints=self.services.endpoints,
        )
        addresses = await self._addresses(target)
        for address in addresses:
            if self.members.judge(address).kind is Kind.UNKNOWN and settings.strict:
                await self._look_up(address, lambda: None)
        found = [explainer.explain(address, protocol, port) for address in addresses]
        return {"target": target, "addresses": found}

    async def _addresses(self, target: str) -> list[bytes]:
        with contextlib.suppress(ValueError):
            return [ip_address(target).packed]
        found: list[bytes] = []
        for kind in (wire.A, wire.AAAA):
            with contextlib.suppress(ValueError, Dropped):
                data = await self.dns.ask(target, kind)
                if data is not None:
                    found += [address for _, address, _ in read_answer(data).addresses]
        return found

    # Sessions are facts too.

    def roster(self, entries: dict[bytes, str]) -> None:
        """Take the addresses of the signed roster, with their pods' names."""
        self._roster_came.set()
        self.members.roster(entries)

    @property
    def has_roster(self) -> bool:
        """Whether the signed list has come."""
        return self._roster_came.is_set()

    @property
    def may_name(self) -> bool:
        """Whether an address that nobody has named may be a member all the same: DNS or a roster may say so."""
        return bool(self.dns.ways) or self._settings.roster

    def knows_pods(self) -> bool:
        """Say whether the list of the project's pods has come, if one shall."""
        return self.has_roster or not self._settings.roster

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
            self.services.refresh()
            self._look_at_the_glass()
            if not self.kernel.is_settled and not await self.kernel.settle():
                self._drops[Drop.KERNEL] += 1
                logs.event(
                    "kernel_refused", logging.ERROR, message="the net agent refuses, or is gone"
                )

    def _look_at_the_glass(self) -> None:
        """Say loudly, at once and each minute, that `tencrypt net break-glass` lets plaintext pass."""
        self._break_glass = file_watch.read_json(self._break_glass_file)
        if self._break_glass is None:
            self._told_at = 0.0
        elif self._now() >= self._told_at + _SHOUT:
            self._told_at = self._now()
            logs.event("break_glass", logging.ERROR, **self._break_glass)

    @property
    def queries(self) -> int:
        """How many queries of programs were taken."""
        return self.dns.queries

    def member_counts(self) -> Mapping[str, int]:
        """Return how many members are known beside the settings', by source."""
        return Counter(self.members.judge(address).source for address in self.members.found())

    @property
    def is_glass_broken(self) -> bool:
        """Whether plaintext passes by an operator's order."""
        return self._break_glass is not None

    def status(self) -> JsonObject:
        """Return who is known, by which source, as JSON-ready data."""
        settings = self._settings
        return {
            "encryption": "strict" if settings.strict else "permissive",
            "members": {
                str(ip_address(address)): self.members.judge(address).source
                for address in sorted(self.members.found())
            },
            "break_glass": self._break_glass,
            "kernel_settled": self.kernel.is_settled,
            "dns_queries": self.dns.queries,
            "rules": self._rules_status(),
            "services": self.services.status(),
        }

    def _rules_status(self) -> JsonObject:
        return {
            "mode": "enforce" if self._settings.enforce else "audit",
            "file": self._settings.rules_file,
            "count": self.policy.rules.count,
            "error": self._rules_error or None,
            "audited": [
                {
                    "direction": direction,
                    "peer": peer,
                    "protocol": protocol,
                    "port": port,
                    "packets": packets,
                }
                for (direction, peer, protocol, port), packets in self.policy.audited.most_common()
            ],
        }
