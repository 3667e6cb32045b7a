"""wireguard-go, the userspace WireGuard with UDP and TUN offloads (this kernel may have none of its own)."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.cache import go_programs, program
from support.namespaces import Fabric, Pod
from support.processes import Process, run

from bench.peers import CLIENT, SERVER, Family, Link, outer, overlay, pair

MODULE: Final = "golang.zx2c4.com/wireguard"
VERSION: Final = "v0.0.0-20260522210424-ecfc5a8d5446"
PORT: Final = 51820
MTU: Final = 1420
SOCKETS: Final = Path("/var/run/wireguard")
# It asks for the first where the kernel could have WireGuard; the second keeps it in the foreground.
ENVIRONMENT: Final = ("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1", "WG_PROCESS_FOREGROUND=1")


@dataclass(frozen=True)
class WireGuard:
    """One interface in each pod, as wg(8) sets it up."""

    name: str = "wireguard-go"
    lacks: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> str:
        """Build it; wg comes from Debian."""
        program("wg")
        self._program()
        return VERSION

    def start(self, fabric: Fabric, family: Family) -> Link:
        """Make keys, start both ends, tell each of the other."""
        pods = pair(fabric)
        keys = {pod.label: run(["wg", "genkey"]).stdout for pod in pods}
        processes = {pod.label: self._device(pod) for pod in pods}
        for pod, other in zip(pods, reversed(pods), strict=True):
            public = run(["wg", "pubkey"], stdin=keys[other.label]).stdout.strip()
            private = overlay.write(pod, "key", keys[pod.label])
            endpoint = outer(other, family)
            where = f"[{endpoint}]:{PORT}" if family == 6 else f"{endpoint}:{PORT}"
            own = ("private-key", private, "listen-port", str(PORT))
            inner = f"{overlay.INNER[other.label][family]}/{32 if family == 4 else 128}"
            to = ("peer", public, "endpoint", where, "allowed-ips", inner)
            pod.run(["wg", "set", _device_name(pod), *own, *to])
            pod.ip(f"link set {_device_name(pod)} mtu {MTU} up\n")
            overlay.add_address(pod, _device_name(pod), family)
        return overlay.linked(fabric, processes, family)

    def _device(self, pod: Pod) -> Process:
        device = _device_name(pod)
        process = pod.start(["env", *ENVIRONMENT, self._program(), device])
        socket = SOCKETS / f"{device}.sock"
        process.wait_until("its control socket", socket.exists)
        return process

    def _program(self) -> Path:
        return go_programs("wireguard-go", VERSION, MODULE) / "wireguard"


def _device_name(pod: Pod) -> str:
    """Give a name that no other run has: the control sockets lie in one folder for all."""
    end = {CLIENT: "c", SERVER: "s"}[pod.label]
    return f"wg{os.getpid()}{end}"
