"""The CA's directory: private, whole or not there, and one server at a time."""

import contextlib
import json
import os
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from support.authority import DAY, PASSPHRASE, TRUST_DOMAIN, Authority, make_claims, now

from ca.documents import StaleError, StateError
from ca.drivers.file_backend import (
    create,
    open_signer,
    read_root,
    sole_server,
)
from ca.drivers.file_documents import DirectoryError, FileDocuments
from ca.drivers.tokens import read_tokens
from ca.issue import find_token
from ca.lease import Lease
from ca.namespace import Namespace, to_json
from ca.overview import read_leases

LEASE = Lease(
    "0" * 16, "web-1", "shop", make_claims().addresses, "1f", 1 << 33, service_account="web"
)
SHOP = "namespaces/shop"
RECORD = to_json(Namespace((LEASE,)))


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
        authority.documents.write(SHOP, RECORD, 0)
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.directory.rglob("*")
    }
    folders = {modes.pop(name) for name in ("tokens", "namespaces", "roots")}
    assert folders == {stat.S_IMODE(authority.directory.stat().st_mode)} == {0o700}
    documents = {"documents.lock", "shop.json", "0123456789abcdef.json"}
    named = {"root.key", "root.pem", "ca.json", "bundle.json", *documents}
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
    again = FileDocuments(authority.directory)
    assert [record.claims.id for record in read_tokens(again)] == ["a" * 16, "b" * 16]
    assert find_token(again, "a" * 16) == find_token(authority.documents, "a" * 16)
    assert find_token(again, "c" * 16) is None


def test_token_whose_file_is_deleted_is_void(authority: Authority) -> None:
    authority.token("a" * 16)
    (authority.directory / "tokens" / f"{'a' * 16}.json").unlink()
    assert find_token(authority.documents, "a" * 16) is None


def test_leases_outlive_the_process(authority: Authority) -> None:
    authority.documents.write(SHOP, RECORD, 0)
    assert read_leases(FileDocuments(authority.directory)) == (LEASE,)


def test_document_is_replaced_whole_or_not_at_all(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.documents.write(SHOP, RECORD, 0)

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(DirectoryError, match=r"shop\.json: No space"):
            authority.documents.write(SHOP, {}, 1)
    assert read_leases(authority.documents) == (LEASE,)
    assert [path.name for path in (authority.directory / "namespaces").iterdir()] == ["shop.json"]


def test_only_the_latest_version_is_replaced(authority: Authority) -> None:
    documents = authority.documents
    with pytest.raises(StaleError):
        documents.write(SHOP, RECORD, 1)
    documents.write(SHOP, {}, 0)
    before = documents.state(SHOP)
    FileDocuments(authority.directory).write(SHOP, RECORD, 1)
    assert documents.state(SHOP) != before
    with pytest.raises(StaleError):
        documents.write(SHOP, {}, 1)
    assert read_leases(documents) == (LEASE,)


def test_one_of_many_writers_at_once_succeeds(authority: Authority) -> None:
    barrier, won = threading.Barrier(8), []

    def write(number: int) -> None:
        barrier.wait(10)
        with contextlib.suppress(StaleError):
            FileDocuments(authority.directory).write(SHOP, {"by": number}, 0)
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert authority.documents.read(SHOP).content == {"by": won[0]}
    assert len(won) == 1


@pytest.mark.parametrize("name", ["", "../x", "tokens/../x", "tokens/a/b", "/etc/passwd", "a\n"])
def test_no_document_lies_outside_the_directory(authority: Authority, name: str) -> None:
    with pytest.raises(DirectoryError, match="no document has this name"):
        authority.documents.read(name)


BARE = b'{"version": 1, "content": %s}'


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"7", b"[]", b"\xff", b'{"version": 0, "content": {}}',
        BARE % b"[]", BARE % b'{"leases": [1]}', BARE % b'{"leases": [{"pod": "web-1"}]}',
        BARE % json.dumps(RECORD | {"version": -1}).encode(),
        BARE % json.dumps(RECORD | {"joins": {"a": [1]}}).encode(),
    ],
)  # fmt: skip
def test_damaged_records_are_an_error_and_not_an_empty_list(
    authority: Authority, content: bytes
) -> None:
    (authority.directory / "namespaces/shop.json").write_bytes(content)
    with pytest.raises(StateError, match="damaged"):
        read_leases(authority.documents)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", BARE % b'{"hash": "x", "claims": {}}', BARE % b'{"hash": 1}']
)
def test_damaged_token_is_an_error(authority: Authority, content: bytes) -> None:
    (authority.directory / "tokens" / f"{'a' * 16}.json").write_bytes(content)
    with pytest.raises(StateError, match="damaged"):
        find_token(authority.documents, "a" * 16)


def test_record_of_another_token_is_damaged(authority: Authority) -> None:
    authority.token("a" * 16)
    tokens = authority.directory / "tokens"
    (tokens / f"{'a' * 16}.json").rename(tokens / f"{'b' * 16}.json")
    with pytest.raises(StateError, match="it is another token's"):
        find_token(authority.documents, "b" * 16)


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
