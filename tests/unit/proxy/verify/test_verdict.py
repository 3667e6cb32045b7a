"""What follows from what both ends saw."""

from dataclasses import replace

import pytest

from proxy.verify.messages import Seen, canaries
from proxy.verify.orders import Flowed
from proxy.verify.verdict import LEAK, NOT_PROVEN, PROVEN, Side, judge

TCP = Flowed("TCP", "10.0.0.1:1", "10.0.0.2:2", 100, 100, "")
UDP6 = Flowed("UDP", "[fd00::1]:1", "[fd00::2]:2", 50, 50, "")
GOOD = Seen(inside=0b1100_0011, sealed=9, sealed_bytes=300)


def sides(seen: Seen, other: Seen = GOOD) -> list[Side]:
    return [Side("a", seen), Side("b", other)]


def test_nothing_outside_but_sealed_is_proof() -> None:
    assert judge([TCP, UDP6], sides(GOOD)) == (PROVEN, [])


def test_what_others_sent_to_us_is_no_leak() -> None:
    seen = replace(GOOD, clear_in=9, foreign_in=9)

    assert judge([TCP, UDP6], sides(seen)) == (PROVEN, [])


@pytest.mark.parametrize("leak", ["canaries_out", "canaries_in", "clear_out", "foreign_out"])
@pytest.mark.parametrize("at_peer", [False, True])
def test_one_frame_at_either_end_is_a_leak_whatever_else_failed(
    leak: str, *, at_peer: bool
) -> None:
    seen = replace(GOOD, missed=3, **{leak: 1})
    failed = replace(TCP, returned=0, error="timed out")

    word, reasons = judge([failed], sides(GOOD, seen) if at_peer else sides(seen))

    assert word == LEAK
    assert reasons[0].startswith("b: 1 " if at_peer else "a: 1 ")


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (replace(GOOD, missed=1), "could not be looked at"),
        (replace(GOOD, unreadable=1), "cannot describe"),
        (replace(GOOD, inside=0b0100_0011), "not every canary was seen on tenc0"),
        (replace(GOOD, sealed_bytes=299), "299 sealed bytes seen, 300 of canaries"),
    ],
)
def test_a_look_that_was_not_whole_proves_nothing(seen: Seen, reason: str) -> None:
    for ends in (sides(seen), sides(GOOD, seen)):
        word, (said,) = judge([TCP, UDP6], ends)

        assert word == NOT_PROVEN
        assert reason in said


def test_flows_that_failed_or_never_were_prove_nothing() -> None:
    failed = replace(TCP, returned=0, error="timed out")

    assert judge([failed, UDP6], sides(GOOD)) == (
        NOT_PROVEN,
        ["TCP 10.0.0.1:1 -> 10.0.0.2:2: timed out"],
    )
    assert judge([], sides(GOOD))[0] == NOT_PROVEN


def test_canaries_come_of_both_shares_and_differ_by_direction() -> None:
    there, back = canaries(b"a" * 32, b"b" * 32)

    assert len({there, back, *canaries(b"b" * 32, b"a" * 32), *canaries(b"a" * 32, b"c" * 32)}) == 6
