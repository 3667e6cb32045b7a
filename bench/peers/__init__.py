"""Who is measured: one module a peer, each in its best documented configuration.

Two pods on a bridge as Tencrypt's tests make them: namespaces, veth pairs, MTU 1500.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from support.namespaces import Fabric, Pod

Family = Literal[4, 6]
PORTS: Final = (5201, 7777, 8080)
"""TCP ports that loads may use (iperf3, ping-pong, nginx): a sidecar must be told of them."""

CLIENT: Final = "client"
SERVER: Final = "server"


@dataclass(frozen=True)
class Link:
    """A peer that is running in both pods of a fabric.

    `address` is where programs in `client` find those that listen in `server`; `pids` are the peer's
    own processes by pod.
    """

    client: Pod
    server: Pod
    address: str
    pids: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def all_pids(self) -> list[int]:
        """Give the peer's processes of both pods."""
        return [pid for pids in self.pids.values() for pid in pids]


class Peer(Protocol):
    """What a peer's module provides."""

    @property
    def name(self) -> str:
        """Its name in tables and on the command line."""

    @property
    def lacks(self) -> dict[str, str]:
        """Works that it does not do, with the reason; none that is not worth a line."""

    def prepare(self) -> str:
        """Get or build its programs; its version. `UnavailableError` if that cannot be."""

    def start(self, fabric: Fabric, family: Family) -> Link:
        """Run it between the pods `client` and `server`, over that family inside and outside.

        Returns when traffic passes. `HarnessError` if that fails; the fabric ends what was started.
        """


def outer(pod: Pod, family: Family) -> str:
    """Give the pod's address of a family."""
    return pod.ipv4 if family == 4 else pod.ipv6


def pair(fabric: Fabric) -> tuple[Pod, Pod]:
    """Give client and server."""
    return fabric[CLIENT], fabric[SERVER]
