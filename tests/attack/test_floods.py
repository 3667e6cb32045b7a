"""Floods from so many sources that nothing may be kept for any of them."""

import random
from collections.abc import Callable, Iterator

import pytest
from attack.conftest import Stage
from support import meters
from support.attacker import Attacker, spoofed
from support.siege import Siege

from proxy.session.wire import FlightHeader, Hello

SOURCES = 100_000
BLIND = 100_000
COOKIE = bytes(20)
CLIENT_HELLO = bytes.fromhex("16030105c5010005c10303").ljust(400, b"\0")

Besiege = Callable[..., Siege]
Making = Callable[[Attacker, int, int], Iterator[bytes]]
both_versions = pytest.mark.parametrize("version", [4, 6])


def hellos(attacker: Attacker, version: int, count: int) -> Iterator[bytes]:
    """One HELLO from each of so many sources, each source's handshake id another."""
    for number, source in enumerate(spoofed(version, count), 1):
        yield attacker.datagram(source, Hello(number).encode(), 1024 + number % 60_000)


def flights(attacker: Attacker, version: int, count: int) -> Iterator[bytes]:
    """A ClientHello from each of so many sources under a cookie that nobody has given it."""
    for number, source in enumerate(spoofed(version, count), 1):
        flight = FlightHeader(7, number, 0, COOKIE, 1).encode(0, 0, CLIENT_HELLO)
        yield attacker.datagram(source, flight)


@both_versions
def test_a_flood_of_hellos_leaves_no_state_and_draws_less_than_it_brings(
    stage: Stage, besiege: Besiege, version: int
) -> None:
    with besiege() as siege:
        known = meters.status(siege.victim)["sessions"]
        grown = siege.warm_then(
            lambda count: hellos(siege.attacker, version, count), SOURCES * stage.factor
        )
        assert grown[meters.ANSWERED] == siege.thrown
        assert grown["eth0 tx_bytes"] < grown["eth0 rx_bytes"] / 3
        assert grown["sent flight"] == 0
        assert len(meters.status(siege.victim)["sessions"]) == len(known)


@both_versions
def test_flights_with_forged_cookies_are_counted_and_leave_no_state(
    stage: Stage, besiege: Besiege, version: int
) -> None:
    with besiege() as siege:
        grown = siege.warm_then(
            lambda count: flights(siege.attacker, version, count), SOURCES * stage.factor
        )
        assert grown["drop cookie"] == siege.thrown
        assert grown["sent flight"] == 0


@pytest.mark.parametrize("kind", ["noise", "hellos"])
def test_a_flood_at_full_speed_may_overflow_its_own_queue_and_nothing_else(
    stage: Stage, besiege: Besiege, kind: str
) -> None:
    # As fast as one core sends, and no waiting. What is more than the daemon takes overflows the
    # queue of its own kind and is counted there. HELLOs cannot push out a ping's record; noise that
    # looks like a record can, where the daemon gets less of a processor than the attacker.
    chance = random.Random(kind)
    with besiege(lossless=kind == "hellos") as siege:
        if kind == "hellos":
            frames = list(hellos(siege.attacker, 4, 5_000))
        else:
            noise = (chance.randbytes(chance.randrange(1, 1400)) for _ in range(5_000))
            sources = spoofed(4, 5_000)
            frames = [siege.attacker.datagram(next(sources), payload) for payload in noise]
        siege.thrown += siege.attacker.throw_blindly(frames)
        warm = meters.memory(siege.victim)
        for _ in range(BLIND * stage.factor // len(frames)):
            siege.thrown += siege.attacker.throw_blindly(frames)
        siege.assert_flat(warm)
    grown = siege.assert_all_counted()
    print(f"overflowed: {grown['Udp RcvbufErrors']}")
