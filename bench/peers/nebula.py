"""Nebula: an overlay of hosts with certificates of its own kind; AES where the processor has it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from support.cache import go_programs
from support.namespaces import Fabric
from support.processes import run

from bench.peers import Family, Link, outer, overlay, pair

PACKAGE: Final = "github.com/slackhq/nebula/cmd/"
VERSION: Final = "v1.11.0"
PORT: Final = 4242
MTU: Final = 1420


@dataclass(frozen=True)
class Nebula:
    """Two hosts that know each other's address; no lighthouse."""

    name: str = "nebula"
    lacks: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> str:
        """Build nebula and nebula-cert."""
        self._programs()
        return VERSION

    def start(self, fabric: Fabric, family: Family) -> Link:
        """Make a CA and a certificate for each end, start both."""
        programs, place = self._programs(), fabric.directory
        ca = (place / "nebula-ca.crt", place / "nebula-ca.key")
        cert = programs / "nebula-cert"
        run([cert, "ca", "-name", "bench", "-out-crt", ca[0], "-out-key", ca[1]])
        pods, processes = pair(fabric), {}
        for pod, other in zip(pods, reversed(pods), strict=True):
            inner = overlay.INNER[pod.label]
            networks = ",".join(f"{inner[kind]}/{overlay.BITS[kind]}" for kind in (4, 6))
            own = (place / f"{pod.label}.nebula.crt", place / f"{pod.label}.nebula.key")
            sign = ("-name", pod.label, "-networks", networks, "-ca-crt", ca[0], "-ca-key", ca[1])
            run([cert, "sign", *sign, "-out-crt", own[0], "-out-key", own[1]])
            endpoint = outer(other, family)
            where = f"[{endpoint}]:{PORT}" if family == 6 else f"{endpoint}:{PORT}"
            anything = [{"port": "any", "proto": "any", "host": "any"}]
            settings = {
                "pki": {"ca": str(ca[0]), "cert": str(own[0]), "key": str(own[1])},
                "static_host_map": {overlay.INNER[other.label][k]: [where] for k in (4, 6)},
                "lighthouse": {"am_lighthouse": False, "hosts": []},
                "listen": {"host": outer(pod, family), "port": PORT},
                "cipher": "aes",
                "tun": {"dev": "nebula1", "mtu": MTU},
                "firewall": {"outbound": anything, "inbound": anything},
            }
            # JSON is YAML too.
            configuration = overlay.write(pod, "nebula.yaml", json.dumps(settings, indent=1))
            processes[pod.label] = pod.start([programs / "nebula", "-config", configuration])
        return overlay.linked(fabric, processes, family)

    def _programs(self) -> Path:
        return go_programs("nebula", VERSION, f"{PACKAGE}nebula", f"{PACKAGE}nebula-cert")
