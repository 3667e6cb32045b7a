"""Tencrypt by its public command, and its fall-backs: the same with an offload taken away."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from support.namespaces import Fabric
from support.processes import run
from support.tencrypt import TENCRYPT, ProjectCA, Proxy

from bench.machine import commit
from bench.peers import Family, Link, outer, pair

NOTHING_NEW: Final = dict.fromkeys(("tcp4", "udp64", "bulkping", "http"), "")
"""Works that are left out of the fall-backs' rows, for time."""


@dataclass(frozen=True)
class FallBack:
    """A row of its own: settings of both pods."""

    name: str
    settings: dict[str, str | int | Sequence[str]] = field(default_factory=dict)


FALL_BACKS: Final = (
    FallBack("no-tso", settings={"offloads": ["uso", "gso", "gro"]}),
    FallBack("no-gso", settings={"offloads": ["tso", "uso", "gro"]}),
    FallBack("no-gro", settings={"offloads": ["tso", "uso", "gso"]}),
    FallBack("no-offload", settings={"offloads": []}),
)


@dataclass(frozen=True)
class Tencrypt:
    """`tencrypt run` in each pod, certificates from a CA of the project."""

    name: str = "tencrypt"
    fall_back: FallBack = FallBack("")
    lacks: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> str:
        """Give the command's version and the commit of the tree."""
        words = run([TENCRYPT, "--version"]).stdout.split()
        return f"{words[-1]} ({commit()})"

    def start(self, fabric: Fabric, family: Family) -> Link:
        """Start CA and both proxies; the first ping makes the session."""
        client, server = pair(fabric)
        ca = ProjectCA(fabric)
        members = [address for pod in (client, server) for address in (pod.ipv4, pod.ipv6)]
        pids: dict[str, tuple[int, ...]] = {}
        for pod in (client, server):
            proxy = Proxy(pod, ca, members, settings=self.fall_back.settings)
            agent = proxy.start()
            proxy.wait_for_event("ready")
            pids[pod.label] = (agent.pid, proxy.daemon_pid())
        address = outer(server, family)
        client.run(["ping", "-c3", "-i0.2", "-W5", address])
        return Link(client, server, address, pids)


def fall_backs() -> list[Tencrypt]:
    """Give a peer for each fall-back."""
    return [Tencrypt(f"tencrypt-{row.name}", row, NOTHING_NEW) for row in FALL_BACKS]
