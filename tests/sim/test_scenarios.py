"""Many stories: whatever loss, partitions and restarts are drawn, the invariants hold and pairs talk again."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sim.mishaps import Pods, make_pods
from sim.scenario import Story
from sim.tables import ENTRIES, USED, counting, drawn, missing, unknown
from sim.world import World
from support.pki import START, Authority, Leaf

from proxy.session.wire import RECORD

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


@pytest.mark.parametrize("confirmed", [True, False])
def test_orderly_stop_past_the_end_of_certificates_closes_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
    confirmed: bool,  # noqa: FBT001 - drawn
) -> None:
    """Stories come here rarely, and chance is no coverage: sessions that have ended and not gone yet."""
    world, authority = World(1), Authority()
    ends = START + timedelta(seconds=world.now + 3)
    nodes = []
    for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2")):
        made = authority.issue(Leaf(pod=name, addresses=(address,), ends=ends))
        own = replace(made.own, not_after=ends.timestamp())
        nodes.append(world.join(replace(made, own=own)))
    a, b = nodes
    if not confirmed:
        world.tamper = lambda data, _from, _to: [] if data[0] >= RECORD else [data]
    a.table.connect(b.packed, world.now)
    a.settle()
    world.run(1)
    if confirmed:
        a.table.renew(world.now)
        a.settle()
        world.run(1)
    else:
        monkeypatch.setattr(b.table, "next_timer", lambda: None)  # the pod sleeps
        world.run(1)
    world.run(1.5)
    assert b.table.sessions
    b.table.close(world.now)
    assert not b.table.sessions


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
