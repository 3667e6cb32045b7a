"""Token buckets against their plain meaning: never more than burst + rate x time."""

from hypothesis import given
from hypothesis import strategies as st

from policy.bucket import Bucket
from proxy.session.budget import IN_ALL, SHARES, Budget


@given(st.lists(st.floats(0, 0.5), max_size=300))
def test_bucket_gives_no_more_than_burst_and_rate(steps: list[float]) -> None:
    bucket, now, given_out = Bucket(5, 2), 100.0, 0
    for step in steps:
        now += step
        if bucket.has(now):
            bucket.take()
            given_out += 1
    assert given_out <= 5 + 2 * (now - 100.0) + 1e-6


def test_bucket_that_was_used_up_fills_again() -> None:
    bucket = Bucket(1, 2)
    assert bucket.has(10)
    bucket.take()
    assert not bucket.has(10.4)
    assert bucket.has(10.5)


def taken(budget: Budget, networks: tuple[str, ...], count: int, *, known: bool = False) -> int:
    return sum(budget.take(networks, 1.0, known=known) is None for _ in range(count))


def test_one_address_takes_its_share_and_leaves_the_others_theirs() -> None:
    budget = Budget()
    assert taken(budget, ("10.0.0.1",), 1000) == SHARES[0][0]
    assert budget.take(("10.0.0.1",), 1.0, known=False) == "10.0.0.1"
    assert taken(budget, ("10.0.0.2",), 1) == 1


def test_addresses_of_one_64_share() -> None:
    budget = Budget()
    total = sum(taken(budget, (f"fd00::{n:x}", "fd00::/64"), 1) for n in range(1, 1000))
    assert total == SHARES[1][0]
    assert taken(budget, ("fd01::1", "fd01::/64"), 1) == 1


def test_strangers_leave_the_known_their_share() -> None:
    budget = Budget()
    strangers = sum(taken(budget, (f"10.{n >> 8}.{n & 255}.1",), 1) for n in range(2000))
    assert strangers <= IN_ALL[0]
    assert budget.take(("10.200.0.1",), 1.0, known=False) is not None
    assert taken(budget, ("192.0.2.1",), 1, known=True) == 1


def test_refused_handshake_takes_from_nobody() -> None:
    budget = Budget()
    taken(budget, ("10.0.0.1",), 1000)
    assert taken(budget, ("10.0.0.1",), 100_000) == 0
    assert taken(budget, ("10.0.0.2",), 1) == 1
