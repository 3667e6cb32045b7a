"""When the next certificate is asked for: bounds that hold for every life and every random number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials.renewal import (
    FIRST_PAUSE,
    LAST_PAUSE,
    REFUSED_PAUSE,
    URGENT_PAUSE,
    Renewal,
)

DAY = 86_400.0
ALMOST_ONE = 1 - 2**-32
NOW = st.floats(0, 1e9)
LIFE = st.floats(10, 30 * DAY)
RANDOM = st.floats(0, ALMOST_ONE)


def fail(renewal: Renewal, now: float, random: float = ALMOST_ONE, times: int = 1) -> float:
    """Fail so often at ``now``; the pause after the last."""
    for _ in range(times):
        renewal.failed(now, "away", random, is_refusal=False)
    return renewal.next_at - now


@given(NOW, LIFE, RANDOM)
def test_next_is_asked_for_at_half_the_life_a_tenth_earlier_or_later(
    now: float, life: float, random: float
) -> None:
    renewal = Renewal.begin(now, life, random)
    assert 0.449 * life <= renewal.next_at - now <= 0.551 * life
    assert renewal.ends == pytest.approx(now + life)


def test_random_number_spreads_pods_over_the_whole_jitter() -> None:
    ats = [Renewal.begin(0, 1000, random).next_at for random in (0.0, 0.5, ALMOST_ONE)]
    assert ats == pytest.approx([450, 500, 550])


@pytest.mark.parametrize("life", [-5.0, 0.0, 0.3, 1.0])
def test_ca_with_no_life_to_give_is_not_asked_in_a_circle(life: float) -> None:
    assert Renewal.begin(100, life, 0.0).next_at >= 100.9 * FIRST_PAUSE


@given(NOW, LIFE, st.lists(st.tuples(RANDOM, st.booleans()), min_size=1, max_size=40))
def test_failures_never_touch_the_certificate_nor_end_the_asking(
    now: float, life: float, story: list[tuple[float, bool]]
) -> None:
    renewal = Renewal.begin(now, life, 0.5)
    ends = renewal.ends
    for count, (random, is_refusal) in enumerate(story, 1):
        now = max(now, renewal.next_at)
        renewal.failed(now, f"error {count}", random, is_refusal=is_refusal)
        assert now <= renewal.next_at <= now + (REFUSED_PAUSE if is_refusal else LAST_PAUSE)
        assert (renewal.failures, renewal.last_error) == (count, f"error {count}")
        assert renewal.ends == ends


def test_pauses_double_up_to_a_minute() -> None:
    renewal = Renewal.begin(0, DAY, 0.5)
    longest = [fail(renewal, DAY / 2) for _ in range(9)]
    assert longest == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])


@given(RANDOM)
def test_pause_is_drawn_from_all_of_it(random: float) -> None:
    renewal = Renewal.begin(0, DAY, 0.5)
    assert fail(renewal, DAY / 2, random) == pytest.approx(random * FIRST_PAUSE, abs=1e-9)


def test_little_left_or_none_is_asked_for_more_often() -> None:
    for now in (0.91 * DAY, 1.5 * DAY):
        assert fail(Renewal.begin(0, DAY, 0.5), now, times=20) == pytest.approx(URGENT_PAUSE)


def test_short_life_is_not_slept_away() -> None:
    renewal = Renewal.begin(0, 60, 0.5)
    assert fail(renewal, 30, times=20) == pytest.approx(3)
    renewal.failed(30, "refused", ALMOST_ONE, is_refusal=True)
    assert renewal.next_at - 30 == pytest.approx(6)


def test_refusal_is_tried_again_slowly_from_the_first_on() -> None:
    for random in (0.0, ALMOST_ONE):
        renewal = Renewal.begin(0, DAY, 0.5)
        renewal.failed(DAY / 2, "superseded", random, is_refusal=True)
        pause = renewal.next_at - DAY / 2
        assert pause == pytest.approx(REFUSED_PAUSE * (1 + random) / 2)


def test_what_is_left_counts_down_through_the_end() -> None:
    renewal = Renewal.begin(100, 50, 0.5)
    assert [renewal.seconds_left(now) for now in (100, 149, 151)] == [50, 1, -1]
    assert [renewal.has_ended(now) for now in (149.9, 150)] == [False, True]
