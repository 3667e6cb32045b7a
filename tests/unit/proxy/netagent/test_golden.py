"""The kernel's part as text that people read: what changes in it is seen in the same commit."""

import pytest
from support.golden import FOLDER, SETTINGS, golden_plan


@pytest.mark.parametrize("name", SETTINGS)
def test_rules_routes_and_filter_are_the_reviewed_ones(name: str) -> None:
    # `python tests/support/golden.py` writes them anew; then read what `git diff` shows.
    assert golden_plan(name).describe() + "\n" == (FOLDER / f"{name}.txt").read_text("ascii")
