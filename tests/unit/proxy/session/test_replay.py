"""The replay window against a naive one that remembers every counter."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.session.replay import WINDOW, ReplayWindow


class NaiveWindow:
    """Remembers all: the specification."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def is_fresh(self, counter: int) -> bool:
        highest = max(self.seen, default=0)
        return counter > 0 and counter not in self.seen and counter > highest - WINDOW

    def commit(self, counter: int) -> None:
        self.seen.add(counter)


steps = st.lists(
    st.one_of(
        st.integers(min_value=-WINDOW - 3, max_value=WINDOW + 3),
        st.integers(min_value=-5, max_value=5),
        st.integers(min_value=1 << 40, max_value=1 << 62),
    ),
    max_size=60,
)


@given(steps)
def test_window_opens_what_the_naive_one_opens(leaps: list[int]) -> None:
    window, naive, at = ReplayWindow(), NaiveWindow(), 0
    for leap in leaps:
        counter = min(max(at + leap, 0), (1 << 64) - 1)
        assert window.is_fresh(counter) == naive.is_fresh(counter)
        if naive.is_fresh(counter):
            window.commit(counter)
            naive.commit(counter)
            at = max(at, counter)


def test_asking_moves_nothing() -> None:
    window = ReplayWindow()
    assert window.is_fresh(1 << 63)
    window.commit(5)
    assert window.is_fresh(4)
    assert not window.is_fresh(5)


def test_a_leap_over_half_of_all_counters_costs_no_memory() -> None:
    window = ReplayWindow()
    window.commit(1)
    window.commit((1 << 64) - 1)
    assert not window.is_fresh(1)
    assert window.is_fresh((1 << 64) - 2)


def test_counter_zero_never_opens() -> None:
    assert not ReplayWindow().is_fresh(0)
