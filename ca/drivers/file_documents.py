"""The CA's state in its directory: a file a document, `{"version": N, "content": {...}}`.

Compare-and-swap holds among all processes that go by this module: each write is under a lock of its own.
Who deletes a document there has deleted what it said: it is empty from then on.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from typing_extensions import override

from ca.documents import Document, Documents, JsonObject, StaleError, StateError

LOCK: Final = "documents.lock"
_NAME: Final = re.compile(r"[a-z]+(/[a-z0-9.-]{1,253})?")


class DirectoryError(StateError):
    """The directory is not one that can be used so; the text is one line and names it."""


class FileDocuments(Documents):
    """Documents below a directory; each appears whole or not at all."""

    def __init__(self, directory: Path) -> None:
        """Read and write below ``directory``, which is there."""
        self._directory = directory

    @override
    def read(self, name: str) -> Document:
        path = self._path(name)
        try:
            return _document(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return Document({}, 0)
        except OSError as error:
            raise DirectoryError(f"{path}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DirectoryError(f"{path}: damaged: {error}") from None

    @override
    def write(self, name: str, content: JsonObject, version: int) -> None:
        path = self._path(name)
        # Not indented: that takes more than twice as long, and each grant writes the whole namespace.
        encoded = json.dumps({"version": version + 1, "content": content})
        try:
            with self._locked():
                if self.read(name).version != version:
                    raise StaleError(name)
                path.parent.mkdir(mode=0o700, exist_ok=True)
                write_whole(path, encoded.encode() + b"\n")
        except OSError as error:
            raise DirectoryError(f"{path}: {error.strerror}") from None

    @override
    def state(self, name: str) -> object:
        try:
            found = self._path(name).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    @override
    def names(self, folder: str) -> list[str]:
        return sorted(f"{folder}/{one.stem}" for one in (self._directory / folder).glob("*.json"))

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise DirectoryError(f"{name[:80]!r}: no document has this name")
        return self._directory / f"{name}.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._directory / LOCK, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _document(fields: JsonObject) -> Document:
    version, content = fields["version"], fields["content"]
    if type(version) is not int or version < 1 or not isinstance(content, dict):
        raise ValueError("version or content")
    return Document(content, version)


def write_whole(path: Path, data: bytes) -> None:
    """Put a file of mode 0600 in place, whole and durable."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
