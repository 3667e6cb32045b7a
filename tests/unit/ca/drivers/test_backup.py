"""A CA whose disk is lost comes back from its copy: pods renew and join as before, and nothing else is a copy."""

import io
import shutil
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.authority import PASSPHRASE, Authority, now
from unit.ca.drivers.test_server_renew import obtain

from ca.drivers import backup
from ca.drivers.backup import restore, save
from ca.drivers.file_backend import change_passphrase, open_signer
from ca.drivers.file_documents import LOCK, DirectoryError
from ca.namespace import Namespace, parse, to_json


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def lose_and_restore(authority: Authority, copy: Path) -> None:
    shutil.rmtree(authority.directory)
    restore(copy, authority.directory, authority.wall)
    authority.signer = open_signer(authority.directory, PASSPHRASE)


def test_a_copy_is_the_owners_alone_and_replaces_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.tar.gz"
    authority.token()
    assert save(authority.directory, copy) == 5
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    before = copy.read_bytes()
    with pytest.raises(DirectoryError, match=r"copy\.tar\.gz is there already"):
        save(authority.directory, copy)
    assert copy.read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} == {"ca", "copy.tar.gz"}


@pytest.mark.parametrize(("bound", "value"), [("_MOST_FILES", 3), ("_LARGEST", 4_000)])
def test_what_could_not_be_restored_is_not_copied(
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    value: int,
) -> None:
    authority.token()
    monkeypatch.setattr(backup, bound, value)
    with pytest.raises(DirectoryError, match="a copy holds"):
        save(authority.directory, tmp_path / "copy")
    assert {one.name for one in tmp_path.iterdir()} == {"ca"}


def test_what_is_restored_is_what_was_copied(authority: Authority, tmp_path: Path) -> None:
    token = authority.token()
    before = {
        one.relative_to(authority.directory): one.read_bytes()
        for one in authority.directory.rglob("*")
        if one.is_file() and one.name != LOCK
    }
    save(authority.directory, tmp_path / "copy")
    lose_and_restore(authority, tmp_path / "copy")
    after = {
        one.relative_to(authority.directory): (one.read_bytes(), stat.S_IMODE(one.stat().st_mode))
        for one in authority.directory.rglob("*")
        if one.is_file() and one.name != LOCK
    }
    assert after == {name: (content, 0o600) for name, content in before.items()}
    assert token


def test_a_restored_record_makes_rosters_that_pods_take(
    authority: Authority, tmp_path: Path
) -> None:
    before = Namespace(version=7, swept=1)
    authority.documents.write("namespaces/shop", to_json(before), 0)
    save(authority.directory, tmp_path / "copy")
    lose_and_restore(authority, tmp_path / "copy")
    after = parse(authority.documents.read("namespaces/shop").content)
    assert after == before.raised(authority.wall.timestamp())


def test_the_passphrase_is_changed_and_the_former_opens_nothing(authority: Authority) -> None:
    change_passphrase(authority.directory, PASSPHRASE, b"a new one")
    with pytest.raises(DirectoryError, match="this passphrase does not open it"):
        open_signer(authority.directory, PASSPHRASE)
    signer = open_signer(authority.directory, b"a new one")
    assert signer.issuer.key.public_key() == authority.issuer.key.public_key()
    with pytest.raises(DirectoryError, match="this passphrase does not open it"):
        change_passphrase(authority.directory, PASSPHRASE, b"third")


def archive(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for member, content in members:
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


HOSTILE = {
    "a way out": (member("../root.pem"), b"x"),
    "an absolute path": (member("/etc/passwd"), b"x"),
    "a symbolic link": (member("root.pem", tarfile.SYMTYPE, "/etc/passwd"), b""),
    "a hard link": (member("root.pem", tarfile.LNKTYPE, "/etc/passwd"), b""),
    "a device": (member("root.pem", tarfile.CHRTYPE), b""),
    "another file": (member("authorized_keys"), b"x"),
    "a token's file of another name": (member("tokens/../../x.json"), b"x"),
}


@pytest.mark.parametrize("bad", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_with_anything_else_makes_nothing(
    tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes]
) -> None:
    path = archive(tmp_path / "copy", [bad])
    with pytest.raises(DirectoryError, match="is no file of a CA's directory"):
        restore(path, tmp_path / "ca", now())
    assert {one.name for one in tmp_path.iterdir()} == {"copy"}


def test_a_damaged_copy_makes_nothing(authority: Authority, tmp_path: Path) -> None:
    save(authority.directory, tmp_path / "copy")
    whole = (tmp_path / "copy").read_bytes()
    for size in (0, 1, 20, len(whole) // 2, len(whole) - 9):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(DirectoryError, match="cut: "):
            restore(tmp_path / "cut", tmp_path / "new", now())
        assert not (tmp_path / "new").exists()


def test_a_copy_whose_files_are_damaged_makes_nothing(tmp_path: Path) -> None:
    path = archive(tmp_path / "copy", [(member("root.pem"), b"no certificate")])
    with pytest.raises(DirectoryError, match="copy: "):
        restore(path, tmp_path / "ca", now())
    assert not (tmp_path / "ca").exists()


def test_a_directory_in_use_is_not_overwritten(authority: Authority, tmp_path: Path) -> None:
    save(authority.directory, tmp_path / "copy")
    with pytest.raises(DirectoryError, match="is not empty"):
        restore(tmp_path / "copy", authority.directory, now())
    assert open_signer(authority.directory, PASSPHRASE).issuer.root == authority.root


async def test_after_a_lost_disk_pods_renew_and_join(authority: Authority, tmp_path: Path) -> None:
    async with authority.serving():
        joined = await obtain(authority)
        waiting = authority.token("f" * 16, ["10.0.0.9"])
        save(authority.directory, tmp_path / "copy")
    lose_and_restore(authority, tmp_path / "copy")
    async with authority.serving():
        renewed = await obtain(authority, joined)
        later = await obtain(authority, token=waiting)
    assert len(authority.events("renewed")) == 1
    serials = {one.certificate.serial_number for one in (joined, renewed, later)}
    assert len(serials) == 3
