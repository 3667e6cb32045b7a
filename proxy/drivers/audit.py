"""What strict would refuse of what passes in clear now: the kernel's counts, with what membership says of each."""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final

from proxy.drivers.agent_client import AgentClient
from proxy.drivers.service_map import ServiceMap
from proxy.flow.membership import Membership
from proxy.status import JsonObject
from proxy.strictness import ClearFlow, advise, parse_flows

_MOST_LOOKUPS: Final = 32


class StrictAudit:
    """Answers `tencrypt check --ready-for strict`."""

    def __init__(  # noqa: PLR0913 - what it asks
        self,
        client: AgentClient,
        members: Membership,
        services: ServiceMap,
        *,
        strict: bool,
        has_roster: Callable[[], bool],
        is_glass_broken: Callable[[], bool],
        reverse: Callable[[bytes], Awaitable[str]],
    ) -> None:
        """Ask these; ``reverse`` finds the name of an address, empty where there is none."""
        self._client, self._members, self._services = client, members, services
        self._strict, self._has_roster = strict, has_roster
        self._is_glass_broken, self._reverse = is_glass_broken, reverse

    async def ready(self, since: float) -> JsonObject:
        """Return what to do before strict about flows of the last ``since`` seconds, as JSON-ready data."""
        if self._strict:
            text = "encryption is strict already"
            return _answer(text, [], ready=not self._is_glass_broken())
        told = await self._client.order("audit")
        if told is None:
            return _answer("the net agent does not say what passes in clear", [], ready=False)
        flows = [flow for flow in parse_flows(told) if flow.age <= since]
        found = await self._found(flows)
        if not self._has_roster():
            return _answer("no signed list of the project's pods has come yet", found, ready=False)
        if self._is_glass_broken():
            return _answer("the glass is broken: end that first", found, ready=False)
        if found:
            return _answer(f"NOT READY: strict would refuse {len(found)} flows", found, ready=False)
        return _answer("READY: strict would refuse nothing that was seen", [], ready=True)

    async def _found(self, flows: list[ClearFlow]) -> list[JsonObject]:
        packed = {flow: ip_address(flow.address).packed for flow in flows}
        nameless = {one for one in packed.values() if not self._members.name_of(one)}
        asked = sorted(nameless)[:_MOST_LOOKUPS]
        answers = await asyncio.gather(*(self._reverse(one) for one in asked))
        names = dict(zip(asked, answers, strict=True))
        found = []
        for flow, address in packed.items():
            name = self._members.name_of(address) or names.get(address, "")
            verdict, unpatched = self._members.judge(address), self._services.unpatched(address)
            what = advise(flow, verdict, name, unpatched)
            if what is not None:
                found.append(_line(flow, self._services.name_of(address) or name, what))
        return found


def _line(flow: ClearFlow, name: str, what: str) -> JsonObject:
    return {
        "direction": flow.direction,
        "address": flow.address,
        "name": name,
        "protocol": flow.protocol,
        "port": flow.port,
        "connections": flow.connections,
        "last_seconds": flow.age,
        "what": what,
    }


def _answer(summary: str, flows: list[JsonObject], *, ready: bool) -> JsonObject:
    return {"ready": ready, "summary": summary, "flows": flows}
