"""The same design in C: bench/yardstick.c, the most that this shape of a data path can give."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from support.cache import c_program
from support.namespaces import Fabric
from support.processes import Process

from bench.peers import Family, Link, outer, overlay, pair

SOURCE: Final = Path(__file__).parents[1] / "yardstick.c"
PORT: Final = 15443
MTU: Final[dict[Family, int]] = {4: 1420, 6: 1400}
"""1,500 less outer headers (28, 48), 24 bytes of ours, virtio header (10) and tag (16), rounded off."""
GSO_BYTES: Final = 61_000
"""A super-packet of this size fits one UDP send of 65,507 bytes with all that is put before it."""


@dataclass(frozen=True)
class Yardstick:
    """A tunnel without handshake and checks."""

    name: str = "c"
    lacks: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> str:
        """Compile it."""
        return f"bench/yardstick.c, {c_program(SOURCE, 'crypto').parent.name.split('-')[1]}"

    def start(self, fabric: Fabric, family: Family) -> Link:
        """Start both ends and give their devices addresses."""
        binary = c_program(SOURCE, "crypto")
        pods, processes = pair(fabric), {}
        for pod, other in zip(pods, reversed(pods), strict=True):
            ends = (outer(pod, family), outer(other, family), PORT, MTU[family])
            process = pod.start([binary, "tenc0", *map(str, ends)])
            process.wait_until("its device", partial(_has_device, process))
            pod.ip(f"link set tenc0 mtu {MTU[family]} gso_max_size {GSO_BYTES} up\n")
            overlay.add_address(pod, "tenc0", family)
            processes[pod.label] = process
        return overlay.linked(fabric, processes, family)


def _has_device(process: Process) -> bool:
    return "ready" in process.stdout
