"""What a mutant is, and where the tests are that must turn red."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFUSED = "tests/sim/test_refused_peers.py"
TRUST = "tests/sim/test_trust.py"
PATHS = "tests/sim/test_paths.py"
HOSTILE = "tests/sim/test_hostile_paths.py"
UNIT = "tests/unit/proxy"
CERTIFICATE = f"{UNIT}/credentials/test_certificate.py::test_anything_else_is_refused"


@dataclass(frozen=True)
class Mutant:
    """``old`` stands once in ``file``; with ``new`` in its place ``test`` fails."""

    name: str
    file: str
    old: str
    new: str
    test: str
    also: tuple[str, str, str] | None = None
    """A second edit, where two checks stand behind each other. (TLS 1.2 would take four: not listed.)"""

    def edits(self) -> list[tuple[str, str, str]]:
        return [(self.file, self.old, self.new), *([self.also] if self.also else [])]
