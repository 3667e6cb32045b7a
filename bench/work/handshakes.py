"""Handshakes a second with both ends on one core: Tencrypt's sessions, and a bare OpenSSL loop beside them.

Both are in this process and no network is between: TLS 1.3 with X25519MLKEM768, a P-256 certificate at each end,
each checked against its root. Tencrypt's has all of its own besides: HELLO, cookie, flights, exported keys,
judging of identities, and the first sealed records, until both ends hold the session.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Final

from OpenSSL import SSL, crypto
from sim.world import Node, World
from support.pki import Authority, Leaf
from support.processes import HarnessError

from bench.peers.certificates import Issued, issue

BARE: Final = "openssl loop"
OURS: Final = "tencrypt"
GROUP: Final = "X25519MLKEM768"
LARGEST_FLIGHT: Final = 65_536
STEP_SECONDS: Final = 0.002
"""Simulated, as the next: what the network takes, and what lets a pair's former sessions end."""
REST_SECONDS: Final = 40.0
PATIENCE: Final = 1000


@dataclass(frozen=True)
class Handshakes:
    """Who makes more of them."""

    name: str = "handshakes"
    metrics: tuple[str, ...] = ("handshakes",)
    once: bool = False

    def prepare(self) -> None:
        """Nothing to have."""

    def contestants(self) -> tuple[str, ...]:
        """Give both."""
        return BARE, OURS

    def run(self, contestant: str, seconds: float) -> dict[str, float]:
        """Repeat for so many seconds."""
        once = _bare() if contestant == BARE else _tencrypt()
        once()  # what is made at the first time only
        spent = 0.0
        for number in count(1):
            spent += once()
            if spent >= seconds:
                return {"handshakes": number / spent}
        raise AssertionError


def _bare() -> Callable[[], float]:
    """Give a function that makes one handshake by OpenSSL alone and tells its seconds."""
    root = issue("root")
    ends = [_context(issue(name, root), root) for name in ("a.example", "b.example")]

    def once() -> float:
        begin = perf_counter()
        caller, called = (SSL.Connection(end) for end in ends)
        caller.set_connect_state()
        called.set_accept_state()
        done = False
        while not done:
            done = _step(caller, called) & _step(called, caller)
        seconds = perf_counter() - begin
        if caller.get_group_name() != GROUP:
            raise HarnessError(f"the bare loop agreed on {caller.get_group_name()}")
        return seconds

    return once


def _step(one: SSL.Connection, other: SSL.Connection) -> bool:
    """Go on with one end and carry what it says to the other; whether it has finished."""
    try:
        one.do_handshake()
        done = True
    except SSL.WantReadError:
        done = False
    try:
        other.bio_write(one.bio_read(LARGEST_FLIGHT))
    except SSL.WantReadError:
        return done
    return False  # the other has something to read


def _context(own: Issued, root: Issued) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_privatekey(own.key)
    context.use_certificate(own.certificate)
    store = context.get_cert_store()
    if store is None:
        raise HarnessError("OpenSSL gave no certificate store")
    store.add_cert(crypto.X509.from_cryptography(root.certificate))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    return context


def _tencrypt() -> Callable[[], float]:
    """Give a function that renews the session of two pods once and tells its seconds."""
    world, authority = World(1), Authority()
    one, two = (
        world.join(authority.issue(Leaf(pod=f"p{number}", addresses=(f"10.0.0.{number}",))))
        for number in (1, 2)
    )
    one.table.connect(two.packed, world.now)

    def once() -> float:
        before = [_opened(node) for node in (one, two)]
        begin = perf_counter()
        one.table.renew(world.now)
        one.settle()
        for _ in range(PATIENCE):
            world.run(STEP_SECONDS)
            if all(_opened(node) > was for node, was in zip((one, two), before, strict=True)):
                break
        else:
            raise HarnessError(f"no handshake within {PATIENCE * STEP_SECONDS} s")
        seconds = perf_counter() - begin
        world.run(REST_SECONDS)
        for forgotten in (world.carried, world.worn, one.events, two.events):
            forgotten.clear()
        return seconds

    return once


def _opened(node: Node) -> int:
    """Count the sessions that a pod says were opened."""
    return sum(type(event).__name__ == "SessionOpened" for event in node.events)
