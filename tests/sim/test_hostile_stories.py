"""A pod with a valid certificate misbehaves, a stranger replays and forges, clocks leap: a hundred mishaps a story."""

import random
from collections.abc import Callable

import pytest
from sim.world import PORT, Node, Weather, World, udp_packet
from support.pki import Authority, Leaf

from proxy.credentials.credential import Credential
from proxy.credentials.trust import Revocations
from proxy.errors import Dropped, Unusable
from proxy.session.pair import MOST_RETIRED, pair_key
from proxy.session.pieces import datagrams
from proxy.session.wire import CLOSE, CONFIRM, DONE, PACKET, PING, PONG

NAMES = {"a": "10.0.0.1", "b": "10.0.0.2", "evil": "10.0.0.3"}
A, B, EVIL = NAMES.values()
STEPS = 100
MOST_TIMERS = 400
MOST_SEEN = 500
LEAPS = (1, 30, 200, 700)
KINDS = (PACKET, DONE, CONFIRM, CLOSE, PING, PING, PONG, PONG, 6, 255)
BODIES = (b"", bytes(3), bytes(8), bytes(1400), bytes(65_000), udp_packet(EVIL, B, b"hi"))
SIZES = (1200, 1452, 65_507)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class Story:
    """Pods a and b, who behave; evil, who does not; and a stranger who has seen all that went by."""

    def __init__(self, seed: int, authority: Authority) -> None:
        """Draw all from ``seed``."""
        self.authority, self.random = authority, random.Random(seed)
        choice = self.random.choice
        weather = Weather(loss=choice((0, 0.1, 0.3)), jitter=choice((0, 0.05)))
        self.world = World(seed, weather)
        self.a, self.b, self.evil = self.all = [
            self.world.join(self.certify(name)) for name in NAMES
        ]
        self.seen: list[tuple[bytes, str]] = []
        self.world.tamper = self.see
        self.mishaps: tuple[Callable[[], None], ...] = (
            self.misbehave,
            self.misbehave,
            self.replay,
            self.talk,
            self.renew,
            self.adopt,
            self.revoke,
            self.restart,
            self.map_anew,
            self.narrow,
            self.suspend,
        )

    def certify(self, name: str) -> Credential:
        """Return a fresh certificate."""
        return self.authority.issue(Leaf(pod=name, addresses=(NAMES[name],)))

    def run(self) -> None:
        """Let things happen; at each step all tables are whole and bounded."""
        for node in (self.a, self.evil):
            node.send_packet(udp_packet(node.address, B, b"hello"))
        self.world.run(1)
        for _ in range(STEPS):
            self.random.choice(self.mishaps)()
            self.world.run(self.random.choice((0, 0.001, 0.1, 0.5, 3)))
            for node in self.all:
                check(node)

    def heal(self) -> None:
        """End all mishaps, and let a and b talk for as long as recovery may take."""
        world = self.world
        world.weather = Weather()
        world.nat.clear()
        world.mtu = lambda _from, _to: 65_535
        for node in (self.a, self.b):
            node.table.revoke(Revocations(), world.now)
        for _ in range(30):
            self.a.send_packet(udp_packet(A, B, b"again"))
            self.b.send_packet(udp_packet(B, A, b"again"))
            world.run(2)

    def see(self, data: bytes, source: str, _to: str) -> list[bytes]:
        """Remember some of what goes by."""
        if len(self.seen) == MOST_SEEN:
            del self.seen[self.random.randrange(MOST_SEEN)]
        self.seen.append((data, source))
        return [data]

    def somewhere(self, usual: str) -> tuple[str, int]:
        """Return where a datagram comes from: half of them from where they should."""
        if self.random.random() < 0.5:
            return usual, PORT
        host = self.random.choice((*NAMES.values(), "10.0.0.66", "fd00::77"))
        return host, self.random.choice((PORT, 1, 40_000))

    def misbehave(self) -> None:
        """Send b any record that evil's keys can seal."""
        for session in list(self.evil.table.sessions.values())[:1]:
            body, kind = self.random.choice(BODIES), self.random.choice(KINDS)
            size = self.random.choice((*SIZES, len(body) + 44))
            try:
                sealed = session.seal(bytes((kind, 0, 0, 0)) + body, size, self.world.now)
            except (Dropped, Unusable):
                return
            for data in datagrams(sealed, size):
                self.b.receive(bytes(data), self.somewhere(EVIL), self.random.randrange(4))

    def replay(self) -> None:
        """Send anybody what was seen, some of it with a bit turned."""
        data, source = self.random.choice(self.seen)
        if self.random.random() < 0.5:
            at = self.random.randrange(len(data))
            data = data[:at] + bytes((data[at] ^ 1 << self.random.randrange(8),)) + data[at + 1 :]
        self.random.choice(self.all).receive(data, self.somewhere(source))

    def talk(self) -> None:
        """Send packets both ways."""
        for size in (0, 1300, 1380):
            self.a.send_packet(udp_packet(A, B, bytes(size)))
            self.b.send_packet(udp_packet(B, A, bytes(size)))

    def renew(self) -> None:
        """Renew all sessions of one pod."""
        node = self.random.choice(self.all)
        node.table.renew(self.world.now)
        node.settle()

    def adopt(self) -> None:
        """Give one pod a new certificate."""
        node = self.random.choice(self.all)
        node.credential = self.certify(node.credential.own.pod)
        node.table.adopt(node.credential, self.world.now)
        node.settle()

    def revoke(self) -> None:
        """Have one pod believe that another is withdrawn, or nobody."""
        node, other = self.random.choice(self.all), self.random.choice(self.all)
        name = other.credential.own.pod
        pods = frozenset({name}) if self.random.random() < 0.5 else frozenset()
        node.table.revoke(Revocations(pods=pods), self.world.now)
        node.settle()

    def restart(self) -> None:
        """Stop a pod in order, or kill it; then start it."""
        node = self.random.choice(self.all)
        if self.random.random() < 0.5:
            node.table.close(self.world.now)
            node.settle()
        node.start()

    def map_anew(self) -> None:
        """Put a pod behind a NAT, or move it there, or let it come back."""
        self.world.nat.clear()
        if self.random.random() < 0.7:
            outer = "10.9.9.9", self.random.randrange(40_000, 40_003)
            self.world.nat[self.random.choice((A, EVIL)), PORT] = outer

    def narrow(self) -> None:
        """Change what the path carries."""
        size = self.random.choice((65_535, 1300, 1200, 1100))
        self.world.mtu = lambda _from, _to: size

    def suspend(self) -> None:
        """Let the clock leap over whatever was due."""
        self.world.now += self.random.choice(LEAPS)


def check(node: Node) -> None:
    """Assert that a node's tables agree with each other, and that none grows."""
    registry, answers = node.table._registry, node.table._answers
    for index, session in registry.sessions.items():
        assert session.index == index
        assert session in registry.pairs[pair_key(session.peer)].sessions
        assert session.confirmed != (index in registry.confirming)
    seals = {id(session) for session in registry.current.values()}
    assert seals == {
        id(one) for one in registry.sessions.values() if one.confirmed and not one.retired
    }
    for where, session in registry.by_peer.items():
        assert where == (session.endpoint, session.peer_index)
        assert registry.sessions[session.index] is session
    for pair in registry.pairs.values():
        assert pair.sessions
        assert len(pair.retired) <= MOST_RETIRED
        assert all(one.index in registry.sessions for one in pair.sessions)
    assert sum(answers._from.values()) >= len(answers._half_open)
    assert len(registry.timers._heap) < MOST_TIMERS
    assert not registry.outbox


@pytest.mark.parametrize("seed", range(20))
def test_nothing_breaks_or_grows_and_those_who_behave_talk_again(
    authority: Authority, seed: int
) -> None:
    story = Story(seed, authority)
    story.run()
    story.heal()
    for one, other in ((story.a, story.b), (story.b, story.a)):
        last = udp_packet(one.address, other.address, b"last")
        one.send_packet(last)
        story.world.run(0.1)
        assert other.received[-1] == last
        # Neither a thief's address nor a NAT's that is gone.
        assert one.table.current[other.packed].endpoint == (other.address, PORT)
