"""What the kernel was told: an answer that waits for it waits until it has it."""

import asyncio
import contextlib
from collections.abc import Iterable

from typing_extensions import override

from proxy.drivers.agent_client import AgentClient
from proxy.drivers.kernel_sets import KernelSets
from proxy.flow.membership import Membership

WEB = b"\x0a\x00\x00\x02"


class Agent(AgentClient):
    """A net agent that takes its time."""

    def __init__(self) -> None:
        self.said: list[tuple[str, set[bytes]]] = []
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()

    @override
    async def with_addresses(self, verb: str, addresses: Iterable[bytes]) -> bool:
        self.said.append((verb, set(addresses)))
        self.asked.set()
        return await self.answers.wait()


def parts() -> tuple[Agent, Membership, KernelSets]:
    agent = Agent()
    members = Membership(own=(), members=(), ranges=(), clear=(), resolvers=(), permissive=True)
    return agent, members, KernelSets(agent, members, lambda: 0.0, strict=False)


def may_pass(kernel: KernelSets) -> bool:
    """Whether an answer goes to its program without waiting."""
    return kernel.is_settled


async def test_what_is_on_its_way_to_the_kernel_is_not_there_yet() -> None:
    agent, members, kernel = parts()
    members.zone(WEB, "web", 30, 0.0)
    first = asyncio.ensure_future(kernel.settle())  # noqa: TID251 - awaited below
    await agent.asked.wait()
    # Another program asks the same: nothing is new, and still it has to wait.
    members.zone(WEB, "web", 30, 0.0)
    assert not may_pass(kernel)
    agent.answers.set()
    assert await first
    assert may_pass(kernel)
    assert agent.said == [("+member", {WEB})]


async def test_an_order_that_was_broken_off_is_given_again() -> None:
    agent, members, kernel = parts()
    members.zone(WEB, "web", 30, 0.0)
    first = asyncio.ensure_future(kernel.settle())  # noqa: TID251 - awaited below
    await agent.asked.wait()
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert not may_pass(kernel)
    agent.answers.set()
    assert await kernel.settle()
    assert may_pass(kernel)
    assert agent.said == [("+member", {WEB})] * 2
