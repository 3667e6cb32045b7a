"""Addresses inside a tunnel, and waiting until packets pass: what tunnels have in common."""

from pathlib import Path
from typing import Final

from support.namespaces import Fabric, Pod
from support.processes import Process

from bench.peers import CLIENT, SERVER, Family, Link

INNER: Final[dict[str, dict[Family, str]]] = {
    CLIENT: {4: "10.78.0.1", 6: "fd78::1"},
    SERVER: {4: "10.78.0.2", 6: "fd78::2"},
}
BITS: Final[dict[Family, int]] = {4: 24, 6: 64}
READY_SECONDS: Final = 20.0


def add_address(pod: Pod, device: str, family: Family) -> None:
    """Give the tunnel's device its inner address."""
    nodad = " nodad" if family == 6 else ""
    pod.ip(f"addr add {INNER[pod.label][family]}/{BITS[family]} dev {device}{nodad}\n")


def has_device(pod: Pod, device: str) -> bool:
    """Tell whether the pod has a network device of that name."""
    return pod.run(["ip", "link", "show", device], accept=(0, 1)).returncode == 0


def linked(fabric: Fabric, processes: dict[str, Process], family: Family) -> Link:
    """Wait until a ping passes the tunnel; the link."""
    client, server = fabric[CLIENT], fabric[SERVER]
    address = INNER[SERVER][family]

    def answers() -> bool:
        ping = ["ping", "-c1", "-W1", address]
        return client.run(ping, accept=(0, 1, 2)).returncode == 0

    processes[CLIENT].wait_until("a ping through the tunnel", answers, READY_SECONDS)
    pids: dict[str, tuple[int, ...]] = {
        label: (process.pid,) for label, process in processes.items()
    }
    return Link(client, server, address, pids)


def write(pod: Pod, name: str, text: str) -> Path:
    """Write a file that only root reads, beside the pod's others."""
    path = pod.directory / f"{pod.label}.{name}"
    path.touch(mode=0o600)
    path.write_text(text, encoding="ascii")
    return path
