"""The CA's directory: private, whole or not there, and one server at a time."""

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from support.authority import DAY, PASSPHRASE, TRUST_DOMAIN, Authority, make_claims, now

from ca.drivers.file_backend import (
    create,
    open_signer,
    read_root,
    sole_server,
)
from ca.drivers.file_store import DirectoryError, FileStore
from ca.lease import Lease

LEASE = Lease("0" * 16, "web-1", "shop", make_claims().addresses, "1f", 1 << 33)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def make(directory: Path) -> None:
    create(directory, TRUST_DOMAIN, PASSPHRASE, now(), 365 * DAY)


def test_everything_is_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        authority = Authority(tmp_path / "ca")
        authority.token()
        authority.store.put_leases([LEASE])
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.directory.rglob("*")
    }
    assert modes.pop("tokens") == stat.S_IMODE(authority.directory.stat().st_mode) == 0o700
    named = {"root.key", "root.pem", "ca.json", "leases.json", "0123456789abcdef.json"}
    assert set(modes) == named
    assert set(modes.values()) == {0o600}


def test_roots_key_is_on_disk_encrypted_only(authority: Authority) -> None:
    secret = authority.issuer.key.private_numbers().private_value.to_bytes(32, "big")
    files = [path.read_bytes() for path in authority.directory.rglob("*") if path.is_file()]
    key = (authority.directory / "root.key").read_bytes()
    assert key.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert not any(secret in content or PASSPHRASE in content for content in files)


def test_wrong_passphrase_is_told(authority: Authority) -> None:
    with pytest.raises(DirectoryError, match=r"root\.key: this passphrase does not open it"):
        open_signer(authority.directory, b"wrong")


def test_key_of_another_root_is_refused(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    (other.directory / "root.key").replace(authority.directory / "root.key")
    with pytest.raises(DirectoryError, match="is not the key of"):
        open_signer(authority.directory, PASSPHRASE)


def test_ca_is_never_made_over_another(authority: Authority) -> None:
    with pytest.raises(DirectoryError, match="is not empty"):
        make(authority.directory)
    assert read_root(authority.directory) == authority.root


def test_folder_with_anything_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    with pytest.raises(DirectoryError, match="is not empty"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


def test_empty_folder_can_become_a_ca(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir(mode=0o755)
    make(tmp_path / "ca")
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", range(3))
def test_interrupted_making_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    failure: type[BaseException],
    *,
    is_there: bool,
) -> None:
    directory = tmp_path / "ca"
    if is_there:
        directory.mkdir()
    sync = os.fsync
    synced: list[int] = []

    def interrupt(descriptor: int) -> None:
        # Two a file: the file itself, then its directory.
        if len(synced) == 2 * step:
            raise failure(28, "No space left on device")
        synced.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises((KeyboardInterrupt, DirectoryError)):
        make(directory)
    assert directory.exists() == is_there
    assert list(tmp_path.rglob("*")) == ([directory] if is_there else [])


def test_folder_without_a_ca_is_told(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match="holds no CA: `tencrypt ca init` makes one"):
        read_root(tmp_path)


def test_token_itself_is_not_kept(authority: Authority) -> None:
    token = authority.token()
    files = [path.read_text() for path in authority.directory.rglob("*") if path.is_file()]
    assert not any(token.rpartition(".")[2] in content for content in files)


def test_tokens_outlive_the_process(authority: Authority) -> None:
    authority.token("a" * 16)
    authority.token("b" * 16)
    again = FileStore(authority.directory)
    assert [record.claims.id for record in again.tokens()] == ["a" * 16, "b" * 16]
    assert again.token("a" * 16) == authority.store.token("a" * 16)
    assert again.token("c" * 16) is None


def test_token_whose_file_is_deleted_is_void(authority: Authority) -> None:
    authority.token("a" * 16)
    (authority.directory / "tokens" / f"{'a' * 16}.json").unlink()
    assert authority.store.token("a" * 16) is None


def test_leases_outlive_the_process(authority: Authority) -> None:
    authority.store.put_leases([LEASE])
    assert FileStore(authority.directory).leases() == (LEASE,)


def test_leases_are_replaced_whole_or_not_at_all(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.store.put_leases([LEASE])

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            authority.store.put_leases([])
    assert authority.store.leases() == (LEASE,)
    assert not list(authority.directory.glob(".leases*"))


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"7", b"[]", b'{"leases": [1]}', b'{"leases": [{"pod": "web-1"}]}', b"\xff"],
)
def test_damaged_leases_are_an_error_and_not_an_empty_list(
    authority: Authority, content: bytes
) -> None:
    (authority.directory / "leases.json").write_bytes(content)
    with pytest.raises(DirectoryError, match=r"leases\.json: damaged"):
        authority.store.leases()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"hash": "x", "claims": {}}'])
def test_damaged_token_is_an_error(authority: Authority, content: bytes) -> None:
    (authority.directory / "tokens" / f"{'a' * 16}.json").write_bytes(content)
    with pytest.raises(DirectoryError, match="damaged"):
        authority.store.token("a" * 16)


def test_second_server_on_a_directory_is_refused(authority: Authority) -> None:
    with (
        sole_server(authority.directory),
        pytest.raises(DirectoryError, match="is being served already"),
        sole_server(authority.directory),
    ):
        pass
    with sole_server(authority.directory):
        pass


def test_root_lives_as_long_as_asked(tmp_path: Path) -> None:
    wall = now()
    root = create(tmp_path / "ca", TRUST_DOMAIN, PASSPHRASE, wall, timedelta(days=730))
    assert root.not_valid_after_utc == wall + timedelta(days=730)
