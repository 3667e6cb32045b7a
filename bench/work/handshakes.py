"""Handshakes a second with both ends on one core: Tencrypt's sessions, and a bare OpenSSL loop beside them.

Both are in this process and no network is between: TLS 1.3 with X25519MLKEM768, a P-256 certificate at each end,
each checked against its root. Tencrypt's has all of its own besides: HELLO, cookie, flights, exported keys,
judging of identities, and the first sealed records, until both ends hold the session.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from time import perf_counter
from typing import Final

from OpenSSL import SSL, crypto
from support.pki import START, Authority, Leaf
from support.processes import HarnessError

from bench.peers.certificates import Issued, issue
from proxy.drops import Drops
from proxy.inbound import Inbound
from proxy.session.events import SessionOpened
from proxy.session.table import SessionTable
from proxy.session.wire import RECORD_OVERHEAD

BARE: Final = "openssl loop"
OURS: Final = "tencrypt"
GROUP: Final = "X25519MLKEM768"
LARGEST_FLIGHT: Final = 65_536
PORT: Final = 15443
MTU: Final = 1408
LARGEST: Final = MTU + RECORD_OVERHEAD
REST_SECONDS: Final = 40.0
"""On the sessions' clock, between two handshakes: a pair's former sessions end."""


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


class _End:
    """One pod's sessions, and its way in."""

    def __init__(self, authority: Authority, number: int) -> None:
        self.address = f"10.0.0.{number}"
        credential = authority.issue(Leaf(pod=f"p{number}", addresses=(self.address,)))
        drops: Drops = Drops()
        self.table = SessionTable(
            credential, PORT, os.urandom, drops, wall_offset=START.timestamp(), largest=LARGEST
        )
        self.inbound = Inbound(self.table, credential.own.addresses, drops, MTU)
        self.opened = 0

    def say(self, other: "_End", now: float) -> bool:
        """Hand all that waits to the other end; whether there was anything."""
        said = self.table.datagrams_to_send()
        for data, _ in said:
            other.inbound.buffer[: len(data)] = data
            other.inbound.datagrams(len(data), len(data), (self.address, PORT), now)
        while event := other.table.next_event():
            other.opened += isinstance(event, SessionOpened)
        return bool(said)


def _tencrypt() -> Callable[[], float]:
    """Give a function that renews the session of two pods once and tells its seconds."""
    authority = Authority()
    one, two = _End(authority, 1), _End(authority, 2)
    now = 0.0
    one.table.connect(ip_address(two.address).packed, now)

    def exchange(until: float) -> None:
        """Carry, and let time pass to what is due, until nothing happens."""
        nonlocal now
        while True:
            while one.say(two, now) | two.say(one, now):
                pass
            now = min((due for end in (one, two) if (due := end.table.next_timer())), default=until)
            if now >= until:
                now = until
                return
            for end in (one, two):
                end.table.handle_timer(now)

    def once() -> float:
        before = one.opened, two.opened
        begin = perf_counter()
        one.table.renew(now)
        while one.say(two, now) | two.say(one, now):
            pass
        seconds = perf_counter() - begin
        if (one.opened, two.opened) != (before[0] + 1, before[1] + 1):
            raise HarnessError(f"no handshake: {one.opened}, {two.opened} after {before}")
        exchange(now + REST_SECONDS)
        return seconds

    exchange(now + REST_SECONDS)
    return once
