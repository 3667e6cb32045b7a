"""Keeps what the kernel refuses and lets pass as the membership has it, by orders to the net agent."""

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.drivers.agent_client import AgentClient
from proxy.flow.membership import Membership

_LONGEST: Final = 3600


class KernelSets:
    """What was ordered, and what must be.

    In strict mode the kernel refuses the whole ranges by itself, and needs to know of members outside; where encryption
    is permissive, of all.
    """

    def __init__(
        self, client: AgentClient, members: Membership, now: Callable[[], float], *, strict: bool
    ) -> None:
        """Begin as after the set-up: nothing was ordered."""
        self._client, self._members, self._now, self._strict = client, members, now, strict
        self._held: set[bytes] = set()
        self._served: set[bytes] = set()
        self._bypassed: dict[bytes, float] = {}
        self._changed = True
        self._turn = asyncio.Lock()
        members.changed.append(self._on_change)

    def _on_change(self) -> None:
        self._changed = True

    @property
    def is_settled(self) -> bool:
        """Whether the kernel has all that the membership says; cheap where nothing has changed."""
        if self._turn.locked():  # what is on its way is not there yet
            return False
        if self._changed:
            self._changed = (
                self._wanted() != (self._held, self._served)
                or self._members.bypassed() != self._bypassed
            )
        return not self._changed

    async def settle(self) -> bool:
        """Order what is missing, members before bypasses; say whether the kernel has it."""
        async with self._turn:
            self._changed, done = False, False
            try:
                done = await self._order()
            finally:  # whoever waited may be cancelled, as by a program that hangs up
                self._changed |= not done
            return done

    async def _order(self) -> bool:
        (wanted, served), bypassed = self._wanted(), self._members.bypassed()
        more, less = wanted - self._held, self._held - wanted
        done = await self._order_services(served)
        if more:
            held = await self._client.with_addresses("+member", more)
            self._held |= more if held else set()
            done &= held
        ended = self._bypassed.keys() - bypassed.keys()
        if ended:
            await self._client.with_addresses("-bypass", ended - wanted)
        for address, ends in bypassed.items():
            if self._bypassed.get(address, 0.0) < ends:
                done &= await self._bypass(address, ends)
        self._bypassed = bypassed
        if less and await self._client.with_addresses("-member", less):
            self._held -= less
        return done

    async def _order_services(self, served: set[bytes]) -> bool:
        more, less = served - self._served, self._served - served
        if less and await self._client.with_addresses("-service", less):
            self._served -= less
        if more and await self._client.with_addresses("+service", more):
            self._served |= more
        return served <= self._served

    async def freshen(self, seconds: float) -> bool:
        """Let clear pass to the ranges for so long: where encryption is permissive, and all members are held."""
        if self._strict or not await self.settle():
            return self._strict
        return (
            await self._client.order("fresh", str(max(1, min(_LONGEST, int(seconds))))) is not None
        )

    async def _bypass(self, address: bytes, ends: float) -> bool:
        seconds = max(1, min(_LONGEST, round(ends - self._now())))
        return await self._client.with_addresses(f"+bypass {seconds}", [address])

    def _wanted(self) -> tuple[set[bytes], set[bytes]]:
        """Return the members that the kernel must know, and the virtual addresses."""
        found = self._members.found()
        if self._strict:
            return {address for address in found if not self._members.in_ranges(address)}, set()
        served = {address for address in found if self._members.judge(address).source == "service"}
        return found - served, served
