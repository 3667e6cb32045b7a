"""Many stories: whatever loss, partitions and restarts are drawn, the invariants hold and pairs talk again."""

from collections import Counter
from collections.abc import Iterator

import pytest
from sim.mishaps import Pods, make_pods
from sim.scenario import Story
from sim.tables import ENTRIES, USED, counting, drawn, missing, unknown

ENOUGH = 1000
"""Stories after which each entry of the state tables has been used."""

TOLD: Counter[str] = Counter()


@pytest.fixture(scope="module")
def pods() -> Pods:
    return make_pods()


@pytest.fixture(scope="module", autouse=True)
def counted() -> Iterator[None]:
    with counting():
        yield


def test_invariants_hold_in_every_story(block: range, pods: Pods) -> None:
    for seed in block:
        story = Story(seed, pods)
        try:
            story.run()
        except AssertionError as broken:
            last = "\n".join(story.happened[-10:])
            pytest.fail(
                f"seed {seed}: {broken}; again: python tests/sim/scenario.py {seed}\n{last}"
            )
        TOLD["stories"] += 1


def test_stories_use_every_entry_of_the_state_tables() -> None:
    assert not unknown(), "stands in no table: " + "; ".join(unknown())
    if TOLD["stories"] < ENOUGH:
        pytest.skip(f"asked of {ENOUGH} stories or more, not of {TOLD['stories']}")
    assert not missing(), "never used: " + "; ".join(missing())


def test_entry_that_no_story_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(USED, ENTRIES[0], 0)
    assert ENTRIES[0] in missing()
    monkeypatch.setitem(USED, "session confirmed ends: nobody knows why", 1)
    assert unknown() == ["session confirmed ends: nobody knows why"]
    assert any("nobody knows why" in line for line in drawn())
