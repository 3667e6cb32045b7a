"""The command `tencrypt`: what it says, what it loads, and how it ends."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tencrypt

TREE = Path(tencrypt.__file__).parent


def run(*words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tencrypt", *words],
        cwd=TREE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def loaded_by(*words: str) -> set[str]:
    """Return the modules that one call of the command loads."""
    program = f"""
import sys, tencrypt
try:
    tencrypt.main({words!r})
except SystemExit:
    pass
print("loaded:", *sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_help_teaches_commands_examples_and_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0
    for promised in (
        *tencrypt.GROUPS,
        "examples:",
        "exit codes:",
        "tencrypt run --config pod.toml",
    ):
        assert promised in done.stdout


def test_the_version_is_told() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"tencrypt {tencrypt.__version__}\n")


@pytest.mark.parametrize("words", [(), ("bogus",), ("--bogus",)])
def test_wrong_usage_ends_with_2_and_nothing_on_stdout(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: tencrypt")


def test_help_loads_no_group() -> None:
    assert not loaded_by("--help") & {"proxy", "ca", "policy", "aiohttp", "OpenSSL", "pyroute2"}


@pytest.mark.parametrize(
    ("command", "module", "other"),
    [("ca", "ca.cli", "proxy.cli"), ("run", "proxy.cli", "ca.cli")],
)
def test_a_command_loads_its_own_group_alone(command: str, module: str, other: str) -> None:
    loaded = loaded_by(command, "--help")
    assert module in loaded
    assert other not in loaded


@pytest.mark.parametrize("command", tencrypt.GROUPS)
def test_each_command_explains_itself(command: str) -> None:
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: tencrypt {command}")


def test_a_reader_that_left_gets_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("--help", stdout=writer)
    os.close(writer)
    assert done.stderr == ""  # the exit code is argparse's affair: its releases differ


def test_an_interruption_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    class Group:
        @staticmethod
        def build(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
            subparsers.add_parser("ca").set_defaults(func=interrupted)

    monkeypatch.setitem(sys.modules, "ca.cli", Group)  # the keyboard is the one thing to imitate
    assert tencrypt.main(["ca"]) == 130


def test_the_entry_stays_short() -> None:
    assert len((TREE / "tencrypt.py").read_text().splitlines()) <= 80
