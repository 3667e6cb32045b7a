"""One seed, one story: pods, paths, weather and mishaps are drawn from it, and invariants hold at every step.

python tests/sim/scenario.py SEED        tells one story again
"""

import sys
from itertools import permutations
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from sim.mishaps import MOST_PODS, Mishaps, Pods, make_pods, paths
from sim.promises import IPV6_LEAST
from sim.world import LARGEST, Node, Weather, World

from proxy.session.path_size import RAISE_EVERY
from proxy.session.session import RETIRED_LIFE
from proxy.session.upkeep import KEEP_ALIVE, PING_PACE, PINGS_TO_END, SPREAD
from proxy.session.wire import RECORD_OVERHEAD

LONG: Final = KEEP_ALIVE + PINGS_TO_END * PING_PACE
"""Seconds of partition after which a session ends."""

SETTLED: Final = 12.0
"""Seconds after the network heals in which every call that fails has failed, and every duplicate has come."""

MAPPED: Final = KEEP_ALIVE + PING_PACE + SETTLED
"""The same where a NAT has gone: until the pod behind it speaks, its peers do not know where it is."""

LIVE: Final = 1.0
"""Seconds after its first packet in which a pair talks, once the network has healed."""

WIDE: Final = RAISE_EVERY + 10.0
"""Seconds after which a path that was narrow is used to its full size again."""


AGAIN: Final = 10
"""Times that a story is told again: TLS draws its own randoms, so that one may go another way."""


class Story:
    """Draws and runs one scenario; `run` raises AssertionError where an invariant breaks."""

    def __init__(self, seed: int, pods: Pods) -> None:
        self.world = World(seed)
        self.random = self.world.random
        count = min(2 + int(self.random.expovariate(0.6)), MOST_PODS)
        if self.random.random() < 0.003:
            count = MOST_PODS
        (self.length,) = self.random.choices((3.0, 10.0, 40.0), (4, 4, 2))
        self.weights = {"send": 45, "burst": 8, "large": 8, "rekey": 3, "renew": 1, "jump": 1}
        self.short_lived = self.random.random() < 0.1
        self.nodes = [
            self.world.join((pods.short if self.short_lived and n % 2 else pods.good)[n])
            for n in range(count)
        ]
        self.mishaps = Mishaps(self.world, self.nodes, pods)
        self.corruption = 0.0
        self.happened: list[str] = []
        if self.random.random() < 0.1:
            self._draw_calm()
        else:
            self._draw_themes()

    def run(self) -> None:
        world, promises = self.world, self.mishaps.promises
        end = world.now + self.length
        while world.now < end:
            self._mishap()
            world.run(self.random.expovariate(4.0))
            promises.check_always()
        self.mishaps.heal()
        world.run(MAPPED if "remap" in self.weights else SETTLED)
        promises.check_always()
        for a, b in permutations(self.nodes, 2):
            self._check_live(a, b)
        # The last of the handshakes with new certificates, and then what they have replaced.
        self._run_until(end + SPREAD)
        world.run(SETTLED + RETIRED_LIFE)
        promises.check_always()
        promises.check_settled()
        if "narrow" in self.weights:
            self._run_until(end + WIDE)
            self._check_wide()

    def _draw_calm(self) -> None:
        """Paths change and nothing is lost: no path may look narrow that never was."""
        jitter = self.random.choice((0.0, 0.01))
        self.world.weather = Weather(duplication=self.random.choice((0.0, 0.2)), jitter=jitter)
        self.weights |= {"narrow": 5, "large": 30}
        self.mishaps.promises.narrowed = set()

    def _draw_themes(self) -> None:
        """Not every story has everything: many kinds of mishaps at once hide each other."""
        draw = self.random
        self.world.weather = Weather(
            loss=draw.choice((0.0, 0.05, 0.3)),
            duplication=draw.choice((0.0, 0.2)),
            jitter=draw.choice((0.0, 0.01, 0.3)),
        )
        self.corruption = self.mishaps.corruption = draw.choice((0.0, 0.0, 0.05))
        self.weights |= {"restart": 4, "part": 4, "join": 4}
        for chance, weights in (
            (0.35, {"narrow": 5, "large": 30}),
            (0.2, {"remap": 4, "race": 4}),
            (0.2, {"revoke": 3, "mistrust": 2, "readmit": 8, "adopt": 2}),
            (0.2, {"stop": 2}),
            (1.0 if self.short_lived else 0.0, {"jump": 8, "adopt": 4, "revoke": 2, "readmit": 2}),
        ):
            if draw.random() < chance:
                self.weights |= weights
        if self.length > LONG and draw.random() < 0.5:
            parted = paths(*self.nodes[:2])
            self.world.at(self.world.now + 4, lambda: self.mishaps.lasting.update(parted))

    def _mishap(self) -> None:
        (kind,) = self.random.choices(list(self.weights), list(self.weights.values()))
        a, b = self.random.sample(self.nodes, 2)
        self.happened.append(f"{self.world.now:8.3f} {kind} {a.address} {b.address}")
        self.mishaps.kinds[kind](a, b)

    def _run_until(self, when: float) -> None:
        self.world.run(max(0.0, when - self.world.now))

    def _check_live(self, a: Node, b: Node) -> None:
        promises = self.mishaps.promises
        # A first packet may find a session that the peer lost: its loss tells us.
        self.mishaps.send(a, b)
        self.world.run(LIVE / 2)
        packets = {"a packet": self.mishaps.send(a, b)}
        session = a.table.current.get(b.packed)
        if session is not None:
            fits = session.path.size - RECORD_OVERHEAD
            packets["one that fits"] = self.mishaps.send(a, b, fits, df=True)
            packets["one that may be split"] = self.mishaps.send(a, b, IPV6_LEAST)
        self.world.run(LIVE / 2)
        promises.collect(b)
        for name, packet in packets.items():
            assert promises.seen[packet] == 1, f"{a.address} does not reach {b.address}: {name}"

    def _check_wide(self) -> None:
        for node in self.nodes:
            for session in node.table.current.values():
                assert session.path.size == LARGEST, "a wide path is still used as a narrow one"


def main() -> None:
    """Tell one story again, until it breaks or has held `AGAIN` times."""
    pods = make_pods()
    for _ in range(AGAIN):
        story = Story(int(sys.argv[1]), pods)
        try:
            story.run()
        except AssertionError:
            print(len(story.nodes), "pods,", story.world.weather, story.weights)
            print("corruption", story.corruption, "certificates that end:", story.short_lived)
            print("\n".join(story.happened[-30:]))
            for node in story.nodes:
                print(node.address, dict(node.drops))
            raise
    print(f"held {AGAIN} times")


if __name__ == "__main__":
    main()
