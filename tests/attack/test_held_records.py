"""Records that an attacker has and their receiver has not: these alone meet the last checks."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import SOCK_DGRAM

import pytest
from attack.conftest import Stage
from support.attacker import flipped
from support.capture import Taps
from support.exchanges import SERVER_PORT
from support.forge import hardware_address
from support.namespaces import Pod
from support.processes import wait_for
from support.servers import bound
from support.siege import Siege
from support.tencrypt import Proxy

from proxy.session.wire import RECORD, RECORD_HEADER

HELD = 100  # fit the receive buffer of a plain socket, unread
PAYLOAD = 300
TOKEN_AT = 16
TIMES = 10

Besiege = Callable[..., Siege]


@contextmanager
def diverted(stage: Stage, victim: Pod) -> Iterator[None]:
    """Let the bridge believe that the attacker's port leads to the victim, whatever that says."""
    link = hardware_address(victim, "eth0").hex(":")
    node = stage.project.fabric.node
    to_mallory = [link, "dev", stage.mallory.node_port, "master"]
    node.run(["bridge", "fdb", "replace", *to_mallory, "static", "sticky"])
    try:
        yield
    finally:
        node.run(["bridge", "fdb", "replace", link, "dev", victim.node_port, "master", "dynamic"])


def hold(stage: Stage, victim: Pod) -> list[bytes]:
    """Have the peer send to the victim what only the attacker receives."""
    peer = stage.pod(stage.other(victim.label))
    proxy = stage.project[peer.label]
    with diverted(stage, victim):
        taps = Taps((stage.mallory, "eth0"))
        before = packets_out(proxy)
        with bound(peer, peer.ipv4, SOCK_DGRAM, 0) as sending:
            for number in range(HELD):
                sending.sendto(number.to_bytes(PAYLOAD, "big"), (victim.ipv4, SERVER_PORT))
        # The daemon seals when it comes to it; a packet that is counted has left.
        wait_for("all to leave", lambda: packets_out(proxy) >= before + HELD)
        (capture,) = taps.stop().values()
    held = [one for d in capture.datagrams() if d.payload[0] == RECORD for one in cut(d.payload)]
    (size,) = {len(one) for one in held if PAYLOAD < len(one) < 2 * PAYLOAD}
    return [one for one in held if len(one) == size]


def cut(payload: bytes) -> Iterator[bytes]:
    """Give the records of one datagram each that left by one send, and are captured as that."""
    while payload:
        size = RECORD_HEADER + int.from_bytes(payload[2:4], "big")
        yield payload[:size]
        payload = payload[size:]


def packets_out(proxy: Proxy) -> int:
    return sum(session["packets_out"] for session in proxy.status()["sessions"])


def test_records_that_never_arrived_are_refused_in_any_other_form_and_taken_once_as_they_are(
    stage: Stage, besiege: Besiege
) -> None:
    victim, peer = stage.pod("one"), stage.pod("two")
    held = hold(stage, victim)
    assert len(held) == HELD
    chance = random.Random(1)
    heads = [one[:RECORD_HEADER] for one in held]
    bodies = [one[RECORD_HEADER:] for one in held]
    turned = bodies[1:] + bodies[:1]
    forms = {
        "drop forged": [
            *(head + flipped(chance, body) for head, body in zip(heads, bodies, strict=True)),
            *(head + body for head, body in zip(heads, turned, strict=True)),
        ],
        "drop token": [
            *(
                h[:TOKEN_AT] + flipped(chance, h[TOKEN_AT:]) + b
                for h, b in zip(heads, bodies, strict=True)
            ),
            *(
                h[:8] + (1 << 40 | n).to_bytes(8, "big") + h[16:] + bodies[n]
                for n, h in enumerate(heads)
            ),
        ],
        "drop malformed": [
            h[:2] + flipped(chance, h[2:4]) + b for h, b in zip(heads, bodies, strict=True)
        ],
        "drop unknown_index": [
            h[:4] + flipped(chance, h[4:8]) + h[8:] + b for h, b in zip(heads, bodies, strict=True)
        ],
    }
    with bound(victim, victim.ipv4, SOCK_DGRAM, SERVER_PORT) as application, besiege() as siege:

        def throw(payloads: list[bytes], reason: str) -> None:
            frames = [siege.attacker.datagram(peer.ipv4, payload) for payload in payloads]
            siege.throw(frames * TIMES * stage.factor, [reason])

        for reason, payloads in forms.items():
            throw(payloads, reason)
        # None of that was opened, nor moved the window: the genuine ones are good still.
        siege.thrown += siege.attacker.throw(
            [siege.attacker.datagram(peer.ipv4, one) for one in held]
        )
        for number in range(HELD):
            assert application.recv(2 * PAYLOAD) == number.to_bytes(PAYLOAD, "big")
        throw(held, "drop replay")
        application.settimeout(0)
        with pytest.raises(BlockingIOError):
            application.recv(2 * PAYLOAD)
