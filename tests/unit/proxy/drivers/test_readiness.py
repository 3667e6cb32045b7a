"""When a pod says that it is ready."""

import random
from pathlib import Path

from sim.world import World
from support.pki import Authority, Leaf

from proxy.drivers.readiness import Readiness
from proxy.drivers.tun import Tun


def test_a_pod_is_not_ready_before_it_knows_who_belongs(tmp_path: Path) -> None:
    node = World(random.Random(1).randrange(9)).join(Authority().issue(Leaf(pod="a")))
    with (tmp_path / "no device").open("w+b") as file:
        readiness = Readiness(Tun(file.fileno()))
        assert readiness.why_not(0.0).startswith("no certificate yet")
        listed = False
        readiness.serves(node.table, lambda: listed)
        assert readiness.why_not(0.0).startswith("no signed list of the project's pods yet")
        listed = True
        assert readiness.why_not(0.0).startswith("the tunnel is detached")
