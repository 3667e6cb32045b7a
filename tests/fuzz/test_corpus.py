"""Each fuzz target on its seeds, their truncations and the corpus: what was once found stays mended."""

from pathlib import Path

import pytest
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_good_input_is_taken_and_no_truncation_or_known_input_surprises(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        if target.good:
            target.run(seed)
        for length in range(0, len(seed), max(1, len(seed) // 50)):
            target(seed[:length])
    for file in sorted((CORPUS / name).glob("*")):
        target(file.read_bytes())
