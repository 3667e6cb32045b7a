"""Who belongs is asked of all that may know it, and a packet waits for the answer."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.settings_text import PROJECT
from typing_extensions import override

from policy.identity import PodIdentity
from policy.rules import Rules
from proxy.drivers import project as module
from proxy.drivers.agent_client import AgentClient
from proxy.drivers.project import Project
from proxy.drivers.project_files import Files
from proxy.drops import Drops
from proxy.flow.services import Services

PEER = ip_address("10.0.0.2").packed


class Agent(AgentClient):
    """A net agent that does all at once."""

    def __init__(self) -> None:
        pass

    @override
    async def with_addresses(self, verb: str, addresses: Iterable[bytes]) -> bool:
        return True


@asynccontextmanager
async def serving(folder: Path, *, roster: bool) -> AsyncIterator[Project]:
    """Give a project without DNS, in which ``roster`` may name who is unknown."""
    ranges = (ip_network("10.0.0.0/8"),)
    settings = replace(PROJECT, members=(), ranges=ranges, dns_port=None, roster=roster)
    project = Project(
        settings,
        PodIdentity("shop.example", "shop", "web"),
        addresses=[ip_address("10.0.0.1")],
        resolvers=(),
        kept=(),
        ways=(),
        client=Agent(),
        drops=Drops(),
        files=Files(Rules(), Services()),
        break_glass_file=str(folder / "glass"),
        journals=folder / "journal",
    )
    async with project.serve():
        yield project


async def test_an_address_waits_for_the_first_roster(tmp_path: Path) -> None:
    """A restarted proxy hears of open connections before it hears of the project's pods."""
    async with serving(tmp_path, roster=True) as project:
        assert project.may_name
        told = asyncio.Event()
        project.look_up(PEER, told.set)
        await asyncio.sleep(0)
        assert not told.is_set()
        project.roster({PEER: "two"})
        await told.wait()
        assert PEER in project.members


async def test_an_address_waits_in_vain_no_longer_than_packets_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROSTER_SECONDS", 0.01)
    async with serving(tmp_path, roster=True) as project:
        told = asyncio.Event()
        project.look_up(PEER, told.set)
        await told.wait()
        assert PEER not in project.members


async def test_an_address_that_the_roster_does_not_name_waits_for_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, roster=True) as project:
        project.roster({})
        told = asyncio.Event()
        project.look_up(PEER, told.set)
        await told.wait()
        assert PEER not in project.members


async def test_nobody_can_name_an_address_without_dns_and_roster(tmp_path: Path) -> None:
    async with serving(tmp_path, roster=False) as project:
        assert not project.may_name
