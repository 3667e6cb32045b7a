"""The wheel, installed in an empty environment and run from another folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tencrypt

TREE = Path(tencrypt.__file__).parent


def run(*argv: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=TREE)
    (built,) = folder.iterdir()
    return built


def test_it_holds_the_three_packages_and_the_entry_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    information = f"tencrypt-{tencrypt.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {
        "proxy", "ca", "policy", "tencrypt.py", information,
    }  # fmt: skip
    strange = [name for name in names if not name.endswith(".py") and information not in name]
    assert strange == []


def test_it_holds_every_module_of_the_tree(wheel: Path) -> None:
    modules = {
        str(path.relative_to(TREE))
        for package in ("proxy", "ca", "policy")
        for path in (TREE / package).rglob("*.py")
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert held == modules | {"tencrypt.py"}


def test_it_runs_from_another_folder_with_the_locked_requirements_alone(
    wheel: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "venv", environment, cwd=elsewhere)
    pip = (environment / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q")
    locked = TREE / "requirements/runtime.txt"
    run(*pip, "--require-hashes", "--no-deps", "-r", locked, cwd=elsewhere)
    run(*pip, "--no-index", wheel, cwd=elsewhere)  # fails where the lock misses a dependency
    command = environment / "bin/tencrypt"
    assert run(command, "--version", cwd=elsewhere) == f"tencrypt {tencrypt.__version__}\n"
    assert "exit codes:" in run(command, "--help", cwd=elsewhere)
    for name in tencrypt.GROUPS:
        assert f"usage: tencrypt {name}" in run(command, name, "--help", cwd=elsewhere)
