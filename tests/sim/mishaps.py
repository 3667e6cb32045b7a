"""What befalls pods and the network between them: each kind is drawn by its weight, and all of it heals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from cryptography import x509
from sim.promises import MARKER, THIEF, Promises
from sim.world import MTU, PORT, Node, Weather, World, udp_packet
from support.pki import HOUR, START, Authority, Leaf

from proxy.credentials.certificate import parse_pod_certificate
from proxy.credentials.credential import Credential
from proxy.credentials.trust import Revocations
from proxy.session.path_size import BASE

MOST_PODS: Final = 20
SHORT_LIFE: Final = 7.0
"""Seconds of a story after which the shortest certificates end."""

_OUTER: Final = ("10.9.0.", "fd09::")
_HEADERS: Final = (28, 48)


@dataclass(frozen=True)
class Pods:
    """Credentials made once for all stories, since keys are not what is drawn: three for each pod."""

    good: tuple[Credential, ...]
    newer: tuple[Credential, ...]
    short: tuple[Credential, ...]
    other_root: x509.Certificate

    def all_of(self, node: Node) -> tuple[Credential, Credential, Credential]:
        """Return the three of a node."""
        number = node.packed[-1] - 1
        return self.good[number], self.newer[number], self.short[number]


def make_pods() -> Pods:
    """Return the credentials of as many pods as a story may have."""
    authority = Authority()
    leaves = [
        Leaf(pod=f"pod-{n}", addresses=(f"10.0.0.{n + 1}", f"fd00::{n + 1}"))
        for n in range(MOST_PODS)
    ]
    ends = START + (World(0).now + SHORT_LIFE) / 3600 * HOUR
    return Pods(
        tuple(_issue(authority, leaf) for leaf in leaves),
        tuple(_issue(authority, leaf) for leaf in leaves),
        tuple(_issue(authority, replace(leaf, ends=ends)) for leaf in leaves),
        Authority("another root").root,
    )


def _issue(authority: Authority, leaf: Leaf) -> Credential:
    credential = authority.issue(leaf)
    return replace(credential, own=parse_pod_certificate(credential.chain[0]))


class Mishaps:
    """Everything that happens in one story but the passing of time."""

    def __init__(self, world: World, nodes: Sequence[Node], pods: Pods) -> None:
        """Take hold of the network of ``world``."""
        self.promises = Promises(world, nodes)
        self.corruption = 0.0
        self.lasting: set[frozenset[str]] = set()
        """Partitions that no mishap ends."""
        self._world, self._random, self._nodes, self._pods = world, world.random, nodes, pods
        self._apart: set[frozenset[str]] = set()
        self._narrow: dict[frozenset[str], int] = {}
        self._raced: dict[tuple[str, str], Node] = {}
        """By source and destination: who gets copies of their datagrams, before they come, from a stranger."""
        self._inside = {
            _outer(node, family): own for node in nodes for family, own in enumerate(node.own)
        }
        self._sent = 0
        world.tamper, world.mtu = self._network, self._carries
        self.kinds: dict[str, Callable[[Node, Node], object]] = {
            "send": self.send,
            "burst": self._burst,
            "large": self._large,
            "restart": self._restart,
            "stop": self._stop,
            "part": self._part,
            "join": lambda _a, _b: self._apart.clear(),
            "rekey": self._rekey,
            "renew": self._renew,
            "jump": self._jump,
            "narrow": self._make_narrow,
            "remap": self._remap,
            "race": self._race,
            "adopt": self._adopt,
            "mistrust": self._mistrust,
            "revoke": self._revoke,
            "readmit": self._readmit,
        }

    def heal(self) -> None:
        """End all that was wrong: what follows must work, each in its stated time."""
        world = self._world
        self._apart.clear()
        self.lasting.clear()
        self._narrow.clear()
        self._raced.clear()
        self.corruption = 0.0
        world.weather = Weather()
        world.nat.clear()
        for node in self._nodes:
            self._make_good(node)

    def send(self, a: Node, b: Node, size: int = 0, *, df: bool = False) -> bytes:
        """Let an application send a packet, padded to ``size`` bytes in all; return it."""
        self._sent += 1
        family = self._random.choice((0, 1))
        payload = MARKER + self._sent.to_bytes(4, "big")
        payload = payload.ljust(size - _HEADERS[family], b"x")
        packet = udp_packet(a.own[family], b.own[family], payload)
        if df and family == 0:
            packet = packet[:6] + b"\x40" + packet[7:]
        a.send_packet(packet)
        return packet

    # What the network does to datagrams.

    def _path(self, source: str, destination: str) -> frozenset[str]:
        return frozenset((source, self._inside.get(destination, destination)))

    def _network(self, data: bytes, source: str, destination: str) -> list[bytes]:
        assert MARKER not in data, "plaintext on the wire"
        path = self._path(source, destination)
        if path in self._apart or path in self.lasting:
            return []
        victim = self._raced.get((source, destination))
        if victim is not None:
            self._world.at(self._world.now, partial(victim.receive, data, THIEF))
        if self._random.random() < self.corruption:
            at = int(self._random.random() * len(data))
            data = data[:at] + bytes((data[at] ^ self._random.randrange(1, 256),)) + data[at + 1 :]
        return [data]

    def _carries(self, source: str, destination: str) -> int:
        return self._narrow.get(self._path(source, destination), 65_535)

    def _part(self, a: Node, b: Node) -> None:
        self._apart.update(paths(a, b))

    def _make_narrow(self, a: Node, b: Node) -> None:
        # HELLO has passed, so that each path carries that much.
        size = self._random.choice((BASE, 65_535, self._random.randint(BASE, BASE + 252)))
        self._narrow.update(dict.fromkeys(paths(a, b), size))
        if self.promises.narrowed is not None:
            self.promises.narrowed.update(paths(a, b))

    def _remap(self, a: Node, _b: Node) -> None:
        for family, own in enumerate(a.own):
            port = self._random.randint(20_000, 60_000)
            self._world.nat[own, PORT] = (_outer(a, family), port)

    def _race(self, a: Node, b: Node) -> None:
        self._raced.clear()
        if self._random.random() < 0.5:
            self._raced.update(dict.fromkeys(zip(a.own, b.own, strict=True), b))

    # What pods do.

    def _burst(self, a: Node, b: Node) -> None:
        for _ in range(20):
            self.send(a, b)

    def _large(self, a: Node, b: Node) -> None:
        for _ in range(3):
            size, df = self._random.randint(BASE - 100, MTU), self._random.random() < 0.5
            self.send(a, b, size, df=df)

    def _restart(self, a: Node, _b: Node) -> None:
        self.promises.collect(a)
        a.start()
        self.promises.tell(a, self.promises.list_of(a))

    def _stop(self, a: Node, b: Node) -> None:
        a.table.close(self._world.now)
        a.settle()
        self._restart(a, b)

    def _rekey(self, a: Node, b: Node) -> None:
        a.table.connect(b.packed, self._world.now)
        a.settle()

    def _renew(self, a: Node, b: Node) -> None:
        a.table.renew(self._world.now, self._random.choice((None, b.credential.own.pod)))
        a.settle()

    def _jump(self, a: Node, _b: Node) -> None:
        # A wall clock that jumps within a certificate's life concerns no session; the same list, read again, neither.
        a.table.wall_offset += self._random.uniform(-1000, 1000)
        self.promises.tell(a, self.promises.list_of(a))

    # Whom pods believe.

    def _use(self, node: Node, credential: Credential) -> None:
        node.credential = credential
        node.table.adopt(credential, self._world.now)
        node.settle()

    def _adopt(self, a: Node, _b: Node) -> None:
        good, newer, _ = self._pods.all_of(a)
        self._use(a, good if a.credential is newer else newer)

    def _mistrust(self, a: Node, b: Node) -> None:
        self._amid_handshake(a, b)
        self._use(a, replace(a.credential, roots=(self._pods.other_root,)))

    def _revoke(self, a: Node, b: Node) -> None:
        self._amid_handshake(a, b)
        if self._random.random() < 0.5:
            revoked = Revocations(pods=frozenset({b.credential.own.pod}))
        else:
            serials = (one.own.serial for one in self._pods.all_of(b))
            revoked = Revocations(serials=frozenset(serials))
        self.promises.tell(a, revoked)

    def _amid_handshake(self, a: Node, b: Node) -> None:
        if self._random.random() < 0.5:
            self._rekey(b, a)
            # Five datagrams' time: a has judged b, and no record has come.
            self._world.run(self._random.uniform(4.5, 8) * Weather().delay)

    def _readmit(self, _a: Node, _b: Node) -> None:
        for node in self._nodes:
            self._make_good(node)

    def _make_good(self, node: Node) -> None:
        good, newer, _ = self._pods.all_of(node)
        if node.credential not in {good, newer}:
            self._use(node, newer)
        if self.promises.list_of(node) != Revocations():
            self.promises.tell(node, Revocations())


def paths(a: Node, b: Node) -> set[frozenset[str]]:
    """Return the paths between two pods, one a family, as both ends' inner addresses."""
    return {frozenset(pair) for pair in zip(a.own, b.own, strict=True)}


def _outer(node: Node, family: int) -> str:
    return f"{_OUTER[family]}{node.packed[-1]}"
