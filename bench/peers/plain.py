"""No protection: veth pairs through the bridge. What all others are compared with."""

import platform
from dataclasses import dataclass, field

from support.namespaces import Fabric

from bench.peers import Family, Link, outer, pair


@dataclass(frozen=True)
class Plain:
    """The pods' own addresses."""

    name: str = "plain"
    lacks: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> str:
        """Nothing to prepare: it is the kernel."""
        return f"Linux {platform.release()}"

    def start(self, fabric: Fabric, family: Family) -> Link:
        """Nothing to start either."""
        client, server = pair(fabric)
        return Link(client, server, outer(server, family))
