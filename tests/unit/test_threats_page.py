"""docs/threats.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threats.md").read_text("utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)


def test_each_threat_is_there_once() -> None:
    assert re.findall(r"^\| (T\d) \|", PAGE, re.MULTILINE) == [f"T{n}" for n in range(1, 8)]


def test_each_test_that_is_named_exists() -> None:
    assert len(NAMED) > 20
    for path, name in NAMED:
        text = (ROOT / path).read_text("utf-8")
        assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), (path, name)


def test_limits_that_tests_pin_are_told() -> None:
    told = {name for _, name in NAMED}
    texts = [path.read_text("utf-8") for path in (ROOT / "tests/netns").glob("test_*.py")]
    pinned = [
        name
        for text in texts
        for name in re.findall(r"^def (test_limit_\w+)\(", text, re.MULTILINE)
    ]
    assert pinned
    assert set(pinned) <= told
