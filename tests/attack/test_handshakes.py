"""Handshakes that were heard, that never end, and that never cease."""

from collections.abc import Callable
from itertools import cycle, islice

from attack.conftest import Stage
from support import meters
from support.attacker import STRANGERS
from support.rogue import Rogue
from support.siege import Siege

from proxy.drivers import clock
from proxy.session.wire import FLIGHT, RETRY, Flight, FlightHeader, Hello, Retry, parse_handshake

COPIES = 5_000
HANDSHAKES = 100
PATIENCE = 0.3  # seconds; one that was refused a place is not waited for
HALF_OPEN = 1_000
FIRST_ID = 1_000  # other handshake ids than those of the test before
# As documented (docs/architecture.md, Bounds), not as the product has them at the moment.
MOST_FROM_ONE = 16
HANDSHAKE_LIFE = 5.0
MOST_SESSIONS = 1 + 3 + 1
"""Of one pod: the one that seals, those that no longer do, and one that is not confirmed yet."""

LATE = ("drop cookie", "drop unknown_handshake")
Besiege = Callable[..., Siege]


def sessions_of_mallory(siege: Siege, stage: Stage) -> int:
    sessions = meters.status(siege.victim)["sessions"]
    return sum(session["peer"]["name"] == stage.mallory.label for session in sessions)


def test_a_heard_handshake_begins_nothing_from_anywhere(
    stage: Stage, besiege: Besiege, rogue: Rogue
) -> None:
    with besiege() as siege:
        rogue.handshake(stage.pod("one"))
        before = sessions_of_mallory(siege, stage)
        heard = [data for data in rogue.sent if data[0] == FLIGHT]
        first = [data for data in heard if not parsed(data).header.responder_id]
        assert first
        for source in (STRANGERS[4], STRANGERS[6], stage.pod("two").ipv4):
            copies = (siege.attacker.datagram(source, data) for data in cycle(first))
            siege.throw(islice(copies, COPIES * stage.factor), ["drop cookie"])
        copies = (siege.attacker.datagram(stage.mallory.ipv4, data) for data in cycle(heard))
        siege.throw(islice(copies, COPIES * stage.factor), LATE)
        assert sessions_of_mallory(siege, stage) == before


def parsed(data: bytes) -> Flight:
    message = parse_handshake(memoryview(data))
    assert isinstance(message, Flight)
    return message


def first_flight(rogue: Rogue, stage: Stage, number: int, tls: bytes) -> bytes:
    """Ask for a cookie, and return the FLIGHT that would begin a handshake under it."""
    answer = rogue.ask(stage.pod("one"), Hello(number).encode(), RETRY)
    message = parse_handshake(memoryview(answer))
    assert isinstance(message, Retry)
    return FlightHeader(7, number, 0, message.cookie, 1).encode(0, 0, tls)


def test_a_fresh_cookie_is_good_for_the_address_that_asked_for_it_alone(
    stage: Stage, besiege: Besiege, rogue: Rogue
) -> None:
    rogue.handshake(stage.pod("one"))
    tls = next(parsed(data).tls for data in rogue.sent if data[0] == FLIGHT)
    with besiege() as siege:
        flight = first_flight(rogue, stage, 1, tls)
        attacker = siege.attacker
        elsewhere = [
            attacker.datagram(STRANGERS[4], flight),
            attacker.datagram(stage.pod("two").ipv4, flight),
            attacker.datagram(stage.mallory.ipv4, flight, 1024),
        ]
        before = siege.growth()["sent flight"]
        siege.throw(elsewhere, ["drop cookie"])
        assert siege.growth()["sent flight"] == before
        siege.thrown += attacker.throw([attacker.datagram(stage.mallory.ipv4, flight)])
        answer = parse_handshake(memoryview(rogue.hear(FLIGHT)))
        assert isinstance(answer, Flight)
        assert answer.header.initiator_id == 1


def test_a_peer_that_never_ceases_to_shake_hands_has_few_sessions_and_disturbs_nobody(
    stage: Stage, besiege: Besiege, rogue: Rogue
) -> None:
    with besiege() as siege:
        warm, done = 0, 0
        for number in range(HANDSHAKES * stage.factor):
            rogue.restart()
            done += rogue.try_handshake(stage.pod("one"), PATIENCE)
            siege.thrown += 1
            assert sessions_of_mallory(siege, stage) <= MOST_SESSIONS
            if number == HANDSHAKES // 2:
                warm = meters.memory(siege.victim)
        assert done
        siege.assert_flat(warm)
        print(f"handshakes done: {done}")


def test_half_open_handshakes_of_one_address_are_few(
    stage: Stage, besiege: Besiege, rogue: Rogue
) -> None:
    rogue.handshake(stage.pod("one"))
    tls = next(parsed(data).tls for data in rogue.sent if data[0] == FLIGHT)
    with besiege() as siege:
        began = clock.monotonic()
        warm = 0
        before = siege.growth()
        count = HALF_OPEN * stage.factor
        for number in range(FIRST_ID, FIRST_ID + count):
            flight = first_flight(rogue, stage, number, tls)
            siege.thrown += siege.attacker.throw(
                [siege.attacker.datagram(stage.mallory.ipv4, flight)]
            )
            if number == FIRST_ID + count // 2:
                warm = meters.memory(siege.victim)
        grown = siege.growth() - before
        lives = 1 + (clock.monotonic() - began) // HANDSHAKE_LIFE
        refused = sum(grown[reason] for reason in meters.REASONS)
        assert refused >= count - MOST_FROM_ONE * lives
        siege.assert_flat(warm)
