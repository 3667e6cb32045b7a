"""What holds at every step of every story, and what holds once a story's network has healed."""

from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import permutations
from typing import Final

from sim.world import PORT, Node, World

from proxy.credentials.certificate import PodCertificate
from proxy.credentials.trust import Revocations
from proxy.flow.waiting import MOST_IN_ALL
from proxy.session.answers import MOST_HALF_OPEN
from proxy.session.calls import MOST_CALLS
from proxy.session.pair import MOST_RETIRED
from proxy.session.path_size import BASE
from proxy.session.reassembly import OPEN_RECORDS
from proxy.session.wire import RECORD_OVERHEAD

MARKER: Final = b"plaintext-of-"
"""Stands in every packet that a story sends."""

THIEF: Final = ("10.0.0.66", PORT)
"""Sends copies of others' datagrams and answers nothing: no session may ever follow him."""

ALWAYS_FITS: Final = BASE - RECORD_OVERHEAD
IPV6_LEAST: Final = 1280


class Promises:
    """Watches the nodes of one world; each check raises AssertionError."""

    def __init__(self, world: World, nodes: Sequence[Node]) -> None:
        self.seen: Counter[bytes] = Counter()
        self.narrowed: set[frozenset[str]] | None = None
        """Paths that were ever narrow, where nothing else can make one look so; None where loss can."""
        self._world, self._nodes = world, nodes
        self._revoked: dict[str, Revocations] = {}

    def list_of(self, node: Node) -> Revocations:
        """Return whom a node was told not to believe."""
        return self._revoked.get(node.address, Revocations())

    def tell(self, node: Node, revoked: Revocations) -> None:
        """Give a node another list: from now on it hears nobody whom it names."""
        self.collect(node)
        self._revoked[node.address] = revoked
        node.table.revoke(revoked, self._world.now)
        node.settle()
        self.collect(node)

    def collect(self, node: Node) -> None:
        """Take what arrived at a node, and what its applications were told."""
        for packet in node.received:
            self.seen[packet] += 1
            assert self.seen[packet] == 1, "a record was accepted twice"
            assert MARKER in packet, "a packet that nobody sent"
            sender = self._world.nodes[_ends(packet)[0]]
            listed = _names(self.list_of(node), sender.credential.own)
            assert not listed, f"{sender.address} is revoked and talks to {node.address}"
        node.received.clear()
        for error in node.told:
            self._check_told(error)
        node.told.clear()

    def check_always(self) -> None:
        """Check what holds at every step."""
        for node in self._nodes:
            self.collect(node)
            self._check_bounds(node)
            self._check_sessions(node)

    def check_settled(self) -> None:
        """Check what holds a minute after everything has healed: one session a pair and nothing else."""
        for a, b in permutations(self._nodes, 2):
            ours, theirs = a.table.current.get(b.packed), b.table.current.get(a.packed)
            assert ours is not None, f"{a.address} has no session with {b.address}"
            assert theirs is not None
            assert ours.session_id == theirs.session_id, "the ends seal under different sessions"
        for node in self._nodes:
            assert len(node.table.sessions) == len(self._nodes) - 1, "an old session is not gone"
            assert len(node.table._registry.by_peer) == len(node.table.sessions)
            assert not node.table._registry.confirming
            assert not node.table._answers._half_open
            assert not node.table._calls._by_address

    def _check_told(self, error: bytes) -> None:
        """ICMP "too big" is for packets that may not be split and do not fit, and names what fits."""
        six = error[0] >> 4 == 6
        if (error[40], error[41]) == (1, 1) if six else (error[20], error[21]) == (3, 13):
            return  # prohibited: no session was had for it
        quoted = error[48:] if six else error[28:]
        fits = int.from_bytes(error[44:48] if six else error[24:28], "big")
        size = (
            40 + int.from_bytes(quoted[4:6], "big") if six else int.from_bytes(quoted[2:4], "big")
        )
        assert ALWAYS_FITS <= fits < size, f"{size} bytes were refused, {fits} would fit"
        assert size > IPV6_LEAST if six else quoted[6] & 0x40, "a packet that may be split"
        if self.narrowed is not None:
            assert frozenset(_ends(quoted)) in self.narrowed, "the path was never narrow"

    def _check_bounds(self, node: Node) -> None:
        table, pods = node.table, len(self._nodes)
        assert len(table._answers._half_open) <= MOST_HALF_OPEN
        assert len(table._calls._by_address) <= min(MOST_CALLS, 2 * pods)
        # For each other pod: one that seals, retired ones, and handshakes both ways.
        assert len(table.sessions) <= (pods - 1) * (1 + MOST_RETIRED) + 3 * pods
        assert len(table._registry.by_peer) <= len(table.sessions)
        assert node.outbound._waiting._count <= MOST_IN_ALL

    def _check_sessions(self, node: Node) -> None:
        table, revoked = node.table, self.list_of(node)
        sealing = set(map(id, table.current.values()))
        for address, session in table.current.items():
            assert session.confirmed
            assert address in session.peer.addresses
            assert session.index in table.sessions
        for session in table.sessions.values():
            old = session.confirmed and id(session) not in sealing
            assert session.retired == old, "two sessions of a pair seal"
            assert not _names(revoked, session.peer), "a session with a revoked pod"
            assert session.endpoint != THIEF, "a session went to who only copied its datagrams"
            assert len(session.opener._partial._partials) <= OPEN_RECORDS


def _names(revoked: Revocations, peer: PodCertificate) -> bool:
    return peer.pod in revoked.pods or peer.serial in revoked.serials


def _ends(packet: bytes) -> tuple[str, str]:
    source, destination = (
        (packet[8:24], packet[24:40]) if packet[0] >> 4 == 6 else (packet[12:16], packet[16:20])
    )
    return str(ip_address(source)), str(ip_address(destination))
