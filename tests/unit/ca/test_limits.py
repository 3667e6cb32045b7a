"""How often who may ask: a burst, then a pace; and who counts as one caller."""

import pytest

from ca.limits import Limit, of_grants, stranger


def test_a_burst_is_followed_by_a_pace() -> None:
    limit = Limit(3, 0.5)
    for _ in range(3):
        assert limit.seconds("a", 10.0) == 0
        limit.take("a", 10.0)
    assert limit.seconds("a", 10.0) == pytest.approx(2)
    assert limit.seconds("a", 11.0) == pytest.approx(1)
    assert limit.seconds("a", 12.0) == 0
    assert limit.seconds("b", 10.0) == 0


def test_who_has_waited_long_has_the_burst_again_and_no_more() -> None:
    limit = Limit(2, 1)
    for _ in range(2):
        limit.take("a", 0.0)
    for _ in range(2):
        assert limit.seconds("a", 1000.0) == 0
        limit.take("a", 1000.0)
    assert limit.seconds("a", 1000.0) > 0


def test_callers_that_are_remembered_are_bounded() -> None:
    limit = Limit(1, 0.001, most=10)
    for number in range(1000):
        limit.take(str(number), 0.0)
    assert len(limit._buckets) == 10
    assert limit.seconds("999", 0.0) > 0


def test_a_pod_that_renews_as_it_shall_is_never_slowed() -> None:
    limit = of_grants()
    for number in range(100):
        assert limit.seconds("shop/web-1", number * 10.0) == 0
        limit.take("shop/web-1", number * 10.0)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("fd00::1", "fd00::2", True),
        ("fd00::1", "fd00:0:0:1::1", False),
        (None, "no address", True),
    ],
)
def test_an_ipv6_network_is_one_caller(one: str | None, two: str, *, same: bool) -> None:
    assert (stranger(one) == stranger(two)) is same
