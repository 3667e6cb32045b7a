"""Files that settings are read from: whatever they are, one line says what is wrong with them."""

import os
from pathlib import Path

import pytest

from proxy.drivers.settings_file import load, read_token
from proxy.settings import SettingsError

WALL = 1_767_323_045.0


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, folder, pipe, large, binary = (tmp_path / name for name in "abcde")
    folder.mkdir()
    os.mkfifo(pipe)
    large.write_bytes(b"#" * 70_000)
    binary.write_bytes(b"\xff")
    for path, reason in (
        (missing, "No such file or directory"),
        (folder, "not a regular file"),
        (pipe, "not a regular file"),
        (large, "larger than 65536 bytes"),
        (binary, "not UTF-8 text"),
    ):
        with pytest.raises(SettingsError) as caught:
            load(str(path), {}, WALL)
        assert str(caught.value) == f"{path}: {reason}"


def test_a_mistake_is_told_under_the_name_the_user_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("\nsession_prt = 1\n")
    with pytest.raises(SettingsError, match=r"^mine\.toml:2: session_prt is not a setting: "):
        load("mine.toml", {}, WALL)


def test_without_a_file_the_environments_names_are_asked_for() -> None:
    with pytest.raises(SettingsError, match=r"^TENCRYPT_TRUST_DOMAIN is missing: a SPIFFE"):
        load(None, {}, WALL)


def test_a_token_that_every_user_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("tct1")
    path.chmod(0o640)
    assert read_token(str(path)) == "tct1"
    path.chmod(0o644)
    with pytest.raises(ValueError, match=r"^every user can read it: chmod o= token$"):
        read_token(str(path))
