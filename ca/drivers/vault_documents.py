"""The CA's state in Vault's KV engine, version 2: a secret a document, written by its compare-and-swap.

What is large is packed (zlib), for Vault's storage takes 1 MiB a secret. A document that is not there is damage, for
`tencrypt ca vault-setup` wrote each, but for tokens.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Callable
from typing import Final, TypeVar

from typing_extensions import override

from ca.documents import (
    TOKENS,
    Document,
    Documents,
    JsonObject,
    StaleError,
    StateAwayError,
    StateError,
)
from ca.drivers.vault import Json, Vault, VaultRefusedError
from ca.signer import SignerAwayError, SignerError

_PACKED: Final = "zlib"
_LARGEST_PLAIN: Final = 4096
_LARGEST: Final = 32 << 20
"""Bytes of a document: a hundred times what fits packed."""

T = TypeVar("T")


class VaultDocuments(Documents):
    """Documents below a mount."""

    def __init__(self, vault: Vault, mount: str) -> None:
        """Read and write by ``vault`` below ``mount``."""
        self._vault, self._mount = vault, mount

    @override
    def read(self, name: str) -> Document:
        path = f"{self._mount}/data/{name}"
        found = _told(lambda: self._vault.read(path))
        if found is not None:
            return read_document(path, found)
        if name.startswith(f"{TOKENS}/"):
            return Document({}, 0)
        raise StateError(
            f"{path} is not there: `tencrypt ca vault-setup` writes one for each of namespaces"
        )

    @override
    def write(self, name: str, content: JsonObject, version: int) -> None:
        path = f"{self._mount}/data/{name}"
        fields = {"data": pack(content), "options": {"cas": version}}

        def write() -> None:
            try:
                self._vault.write(path, fields)
            except VaultRefusedError as error:
                if "check-and-set" in str(error):
                    raise StaleError(name) from None
                raise

        _told(write)

    @override
    def state(self, name: str) -> object:
        found = _told(lambda: self._vault.read(f"{self._mount}/metadata/{name}"))
        data = (found or {}).get("data")
        if not isinstance(data, dict):
            return None
        # After a restore a version can come a second time, and its time cannot.
        return data.get("current_version"), data.get("updated_time")

    @override
    def names(self, folder: str) -> list[str]:
        found = _told(lambda: self._vault.names(f"{self._mount}/metadata/{folder}"))
        return sorted(f"{folder}/{name}" for name in found)


def read_document(path: str, answer_untrusted: Json) -> Document:
    """Return what an answer says; raises `StateError`."""
    try:
        found = answer_untrusted["data"]
        version, data = found["metadata"]["version"], found["data"]
        if type(version) is int and version > 0 and isinstance(data, dict):
            return Document(_unpack(data), version)
    except (KeyError, TypeError, ValueError, RecursionError, zlib.error, binascii.Error):
        pass
    raise StateError(f"{path}: damaged")


def pack(content: JsonObject) -> JsonObject:
    """Return a document as it is kept."""
    plain = json.dumps(content, separators=(",", ":")).encode()
    if len(plain) <= _LARGEST_PLAIN:
        return content
    return {_PACKED: base64.b64encode(zlib.compress(plain, 1)).decode("ascii")}


def _unpack(data: JsonObject) -> JsonObject:
    packed = data.get(_PACKED)
    if not isinstance(packed, str):
        return data
    unpacking = zlib.decompressobj()
    plain = unpacking.decompress(base64.b64decode(packed, validate=True), _LARGEST)
    content: object = json.loads(plain)
    if not unpacking.eof or not isinstance(content, dict):
        raise ValueError("too large, cut off, or not an object")
    return content


def _told(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except SignerAwayError as error:
        raise StateAwayError(str(error)) from None
    except SignerError as error:
        raise StateError(str(error)) from None
