"""Two nodes of one project, `a` and `b`, each with an address of both families."""

from ipaddress import ip_address

from sim.world import Node, Weather, World
from support.naive import Way
from support.pki import Authority, Leaf

from proxy.session.wire import RECORD, RECORD_HEADER

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
A6, B6, C6 = "fd00::1", "fd00::2", "fd00::3"
VIP, VIP6 = "10.0.0.200", "fd00::200"
"""A Service's addresses."""
PACKED_A, PACKED_B = b"\x0a\0\0\x01", b"\x0a\0\0\x02"
STRANGE_RECORD = bytes((RECORD, 0, 0, 30)) + bytes(RECORD_HEADER + 30 - 4)
SECRET = b"the account number is 4711"

FAIR = Weather()
FOUL = Weather(loss=0.3, duplication=0.2, jitter=0.05)


def two(authority: Authority, seed: int = 1, weather: Weather = FAIR) -> tuple[World, Node, Node]:
    world = World(seed, weather)
    a = world.join(authority.issue(Leaf(pod="a", addresses=(A, A6))))
    b = world.join(authority.issue(Leaf(pod="b", addresses=(B, B6))))
    return world, a, b


def sealing_id(node: Node, peer: bytes) -> bytes | None:
    session = node.table.current.get(peer)
    return session.session_id if session else None


def agree(a: Node, b: Node) -> bool:
    return sealing_id(a, PACKED_B) == sealing_id(b, PACKED_A) is not None


def way(source: str, sport: int, destination: str, dport: int) -> Way:
    return Way(ip_address(source).packed, sport, ip_address(destination).packed, dport)


ASKED = way(A, 1000, VIP, 80)
"""A question to the Service."""
