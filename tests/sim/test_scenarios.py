"""Many stories: whatever loss, partitions and restarts are drawn, the invariants hold and pairs talk again."""

import pytest
from sim.scenario import Pods, Story, make_pods


@pytest.fixture(scope="module")
def pods() -> Pods:
    return make_pods()


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
