"""Each security check is taken out by name, and the one test that must turn red does.

A mutant is an edit of the source in a copy of the tree. Its test passes on the whole tree (the tier that it
belongs to shows that); here it must fail, or the check could be lost without anybody noticing.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import (
    of_identity,
    of_issuance,
    of_membership,
    of_rosters,
    of_services,
    of_sessions,
    of_trust,
)
from mutants.mutant import ROOT, Mutant

MUTANTS = [
    *of_sessions.MUTANTS,
    *of_identity.MUTANTS,
    *of_issuance.MUTANTS,
    *of_membership.MUTANTS,
    *of_rosters.MUTANTS,
    *of_services.MUTANTS,
    *of_trust.MUTANTS,
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what the tests need."""
    to = tmp_path_factory.mktemp("tree")
    for folder in ("proxy", "ca", "policy", "tests"):
        shutil.copytree(ROOT / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "tencrypt.py"):
        shutil.copy(ROOT / file, to)
    return to


def run(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    # The tree stands before the installed package on the path.
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_check_cannot_be_lost_unnoticed(mutant: Mutant, copy: Path) -> None:
    wholes = {copy / file: (copy / file).read_text() for file, _, _ in mutant.edits()}
    for file, old, new in mutant.edits():
        text = (copy / file).read_text()
        assert text.count(old) == 1, f"{file} holds the check {text.count(old)} times"
        (copy / file).write_text(text.replace(old, new))
    try:
        result = run(copy, mutant.test)
    finally:
        for path, whole in wholes.items():
            path.write_text(whole)
    assert result.returncode == 1, result.stdout[-2000:] + result.stderr[-2000:]
    assert " failed" in result.stdout.splitlines()[-1]
