"""One seed, one story: pods, weather and mishaps are drawn from it, and invariants hold at every step.

python tests/sim/scenario.py SEED        tells one story again
"""

import sys
from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from sim.world import Node, Weather, World, udp_packet
from support.pki import Authority, Leaf

from proxy.credentials.credential import Credential
from proxy.session.answers import MOST_HALF_OPEN
from proxy.session.calls import MOST_CALLS
from proxy.session.pair import MOST_RETIRED
from proxy.session.session import RETIRED_LIFE

MOST_PODS = 20
MARKER = b"plaintext-of-"
SETTLED = 12.0
"""Seconds after the network heals in which every call that fails has failed, and every duplicate has come."""

LIVE = 1.0
"""Seconds after its first packet in which a pair talks, once the network has healed."""


@dataclass(frozen=True)
class Pods:
    """Credentials made once for all stories: keys are not what is drawn."""

    credentials: tuple[Credential, ...]


def make_pods() -> Pods:
    authority = Authority()
    leaves = (
        Leaf(pod=f"pod-{n}", addresses=(f"10.0.0.{n + 1}", f"fd00::{n + 1}"))
        for n in range(MOST_PODS)
    )
    return Pods(tuple(authority.issue(leaf) for leaf in leaves))


class Story:
    """Draws and runs one scenario; `run` raises AssertionError where an invariant breaks."""

    def __init__(self, seed: int, pods: Pods) -> None:
        self.world = World(seed)
        self.random = self.world.random
        count = min(2 + int(self.random.expovariate(0.6)), MOST_PODS)
        self.nodes = [self.world.join(credential) for credential in pods.credentials[:count]]
        self.weather = Weather(
            loss=self.random.choice((0.0, 0.05, 0.3)),
            duplication=self.random.choice((0.0, 0.2)),
            jitter=self.random.choice((0.0, 0.01, 0.3)),
        )
        self.corruption = self.random.choice((0.0, 0.0, 0.05))
        self.apart: set[frozenset[str]] = set()
        self.sent = 0
        self.seen: Counter[bytes] = Counter()
        self.happened: list[str] = []

    def run(self) -> None:
        self.world.weather = self.weather
        self.world.tamper = self._network
        end = self.world.now + self.random.choice((3.0, 10.0, 40.0))
        while self.world.now < end:
            self._mishap()
            self.world.run(self.random.expovariate(4.0))
            self._check_always()
        self._heal()
        self.world.run(SETTLED)
        self._check_always()
        self._check_live()
        self.world.run(RETIRED_LIFE + 1)
        self._check_settled()

    def _mishap(self) -> None:
        kind = self.random.choices(
            ("send", "burst", "restart", "part", "join", "rekey", "jump"),
            (50, 10, 4, 4, 4, 6, 1),
        )[0]
        a, b = self.random.sample(self.nodes, 2)
        self.happened.append(f"{self.world.now:8.3f} {kind} {a.address} {b.address}")
        if kind == "send":
            self._send(a, b)
        elif kind == "burst":
            for _ in range(20):
                self._send(a, b)
        elif kind == "restart":
            self._collect(a)
            a.start()
        elif kind == "part":
            self.apart.update(frozenset(pair) for pair in zip(a.own, b.own, strict=True))
        elif kind == "join":
            self.apart.clear()
        elif kind == "rekey":
            a.table.connect(b.packed, self.world.now)
            a.settle()
        else:
            # A wall clock that jumps within a certificate's life concerns no session.
            a.table.wall_offset += self.random.uniform(-1000, 1000)

    def _send(self, a: Node, b: Node) -> bytes:
        self.sent += 1
        payload = MARKER + self.sent.to_bytes(4, "big")
        family = self.random.choice((0, 1))
        packet = udp_packet(a.own[family], b.own[family], payload)
        a.send_packet(packet)
        return packet

    def _network(self, data: bytes, source: str, destination: str) -> list[bytes]:
        assert MARKER not in data, "plaintext on the wire"
        if frozenset((source, destination)) in self.apart:
            return []
        if self.random.random() < self.corruption:
            at = self.random.randrange(len(data))
            data = data[:at] + bytes((data[at] ^ self.random.randrange(1, 256),)) + data[at + 1 :]
        return [data]

    def _collect(self, node: Node) -> None:
        for packet in node.received:
            self.seen[packet] += 1
            assert self.seen[packet] == 1, "a record was accepted twice"
            assert MARKER in packet, "a packet that nobody sent"
        node.received.clear()

    def _check_always(self) -> None:
        for node in self.nodes:
            self._collect(node)
            table = node.table
            pods = len(self.nodes)
            assert len(table._answers._half_open) <= MOST_HALF_OPEN
            assert len(table._calls._by_address) <= min(MOST_CALLS, 2 * pods)
            # For each other pod: one that seals, retired ones, and handshakes both ways.
            assert len(table.sessions) <= (pods - 1) * (1 + MOST_RETIRED) + 3 * pods
            for address, session in table.current.items():
                assert session.confirmed
                assert address in session.peer.addresses
                assert session.index in table.sessions

    def _heal(self) -> None:
        self.apart.clear()
        self.corruption = 0.0
        self.world.weather = Weather()

    def _check_live(self) -> None:
        for a, b in permutations(self.nodes, 2):
            # A first packet may find a session that the peer lost: its loss tells us.
            self._send(a, b)
            self.world.run(LIVE / 2)
            packet = self._send(a, b)
            self.world.run(LIVE / 2)
            self._collect(b)
            assert self.seen[packet] == 1, f"{a.address} does not reach {b.address}"

    def _check_settled(self) -> None:
        for a, b in permutations(self.nodes, 2):
            ours, theirs = a.table.current[b.packed], b.table.current[a.packed]
            assert ours.session_id == theirs.session_id, "the ends seal under different sessions"
        for node in self.nodes:
            assert len(node.table.sessions) == len(self.nodes) - 1, "an old session is not gone"
            assert not node.table._answers._half_open
            assert not node.table._calls._by_address


def main() -> None:
    """Tell one story."""
    story = Story(int(sys.argv[1]), make_pods())
    print(len(story.nodes), "pods,", story.weather, "corruption", story.corruption)
    try:
        story.run()
    finally:
        print("\n".join(story.happened[-30:]))
        for node in story.nodes:
            print(node.address, dict(node.drops))
    print("held")


if __name__ == "__main__":
    main()
