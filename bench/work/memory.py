"""Memory of one pod's part of a peer, with one session and after the work that came before."""

from dataclasses import dataclass

from bench import machine
from bench.peers import CLIENT, Link


@dataclass(frozen=True)
class Memory:
    """What the client's pod holds."""

    name: str = "memory"
    metrics: tuple[str, ...] = ("memory",)

    def prepare(self) -> None:
        """Nothing to have: the kernel counts."""

    def run(self, link: Link, _seconds: float) -> dict[str, float]:
        """Read it; nothing where the peer has no process."""
        pids = link.pids.get(CLIENT)
        return {"memory": machine.resident_megabytes(pids)} if pids else {}
