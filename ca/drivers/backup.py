"""A copy of the CA's directory in one file, and the directory again from it (tar, gzip).

The key in it is as encrypted as it was. A copy is taken beside a server that runs: each file in it is whole. What
came after it is not in it: a pod that renewed meanwhile is refused as superseded, and joins anew by its token.
"""

import gzip
import io
import os
import re
import secrets
import tarfile
import zlib
from datetime import datetime
from pathlib import Path
from typing import Final

from ca.documents import NAMESPACES, TOKENS, Documents, StateError
from ca.drivers.file_backend import (
    FILES,
    FOLDERS,
    ROOTS,
    fresh_directory,
    read_root,
    read_trust_domain,
)
from ca.drivers.file_documents import DirectoryError, FileDocuments, write_whole
from ca.drivers.tokens import read_tokens
from ca.namespace import parse, to_json
from ca.overview import read_leases

_DOCUMENT: Final = re.compile(
    rf"({TOKENS}/[0-9a-f]{{16}}|{NAMESPACES}/[a-z0-9]([a-z0-9-]{{0,61}}[a-z0-9])?)\.json"
    rf"|{ROOTS}/[0-9a-f]{{16}}\.(key|pem)"
)
_LARGEST: Final = 256 << 20
_MOST_FILES: Final = 100_000


def save(directory: Path, path: Path) -> int:
    """Write the copy to a file that is not there yet; return how many files it holds. Raises `DirectoryError`."""
    read_root(directory)
    names = [name for name in FILES if (directory / name).exists()]
    for folder in FOLDERS:
        names += sorted(f"{folder}/{one.name}" for one in (directory / folder).glob("[!.]*"))
    size = sum((directory / name).stat().st_size + 1024 for name in names)  # with tar's headers
    if len(names) > _MOST_FILES or size > _LARGEST:
        raise DirectoryError(
            f"{directory}: {len(names)} files, {size >> 20} MiB: a copy holds {_MOST_FILES} and {_LARGEST >> 20} MiB"
        )
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.exists():
            raise DirectoryError(f"{path} is there already")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with (
            os.fdopen(descriptor, "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name in names:
                _add(archive, name, (directory / name).read_bytes())
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        os.link(beside, path)  # unlike a renaming it replaces nothing
    except OSError as error:
        raise DirectoryError(f"{path}: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)
    return len(names)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    archive.addfile(member, io.BytesIO(content))


def restore(path: Path, directory: Path, wall: datetime) -> int:
    """Make the directory, which must be new or empty, from a copy; return how many files it holds.

    Pods may hold later rosters than the copy knows of: versions rise to that of ``wall``. Whatever fails, nothing of it
    stays. Raises `DirectoryError`.
    """
    try:
        files = _read(path)
        with fresh_directory(directory):
            for folder in FOLDERS:
                (directory / folder).mkdir(mode=0o700)
            for name, content in files.items():
                write_whole(directory / name, content)
            _check(path, directory)
            _raise_versions(FileDocuments(directory), wall)
    except OSError as error:
        raise DirectoryError(f"{path}: {error.strerror or error}") from None
    return len(files)


def _read(path: Path) -> dict[str, bytes]:
    try:
        # To its end first, which gzip's sum is at: tar would stop at its own, and not see what is cut off.
        with gzip.open(path) as whole:
            unpacked = whole.read(_LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DirectoryError(f"{path}: not a copy of a CA's directory: {error}") from None
    try:
        return read_members(unpacked)
    except DirectoryError as error:
        raise DirectoryError(f"{path}: {error}") from None


def read_members(unpacked_untrusted: bytes) -> dict[str, bytes]:
    """Return the files of an archive by name, none of them but a CA's; raises `DirectoryError`."""
    if len(unpacked_untrusted) > _LARGEST:
        raise DirectoryError(f"more than {_LARGEST >> 20} MiB")
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked_untrusted), mode="r:") as archive:
            for member in archive:
                name = member.name
                if not member.isreg() or (name not in FILES and not _DOCUMENT.fullmatch(name)):
                    raise DirectoryError(f"{name[:80]!r} is no file of a CA's directory")
                if name in files or len(files) >= _MOST_FILES:
                    raise DirectoryError(f"{name[:80]!r} is there twice, or too much")
                content = archive.extractfile(member)
                files[name] = content.read() if content else b""
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
        raise DirectoryError(f"not a copy of a CA's directory: {error}") from None
    return files


def _raise_versions(documents: Documents, wall: datetime) -> None:
    for name in documents.names(NAMESPACES):
        found = documents.read(name)
        record = parse(found.content).raised(wall.timestamp())
        documents.write(name, to_json(record), found.version)


def _check(path: Path, directory: Path) -> None:
    """Read all of it as a server would, but for the key."""
    try:
        read_root(directory)
        read_trust_domain(directory)
        documents = FileDocuments(directory)
        read_tokens(documents)
        read_leases(documents)
    except StateError as error:
        raise DirectoryError(f"{path}: {error}") from None
