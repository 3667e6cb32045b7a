"""Tokens, leases and versions in the CA's directory (`ca.drivers.file_backend` says which files)."""

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from typing_extensions import override

from ca.issue import TokenRecord
from ca.lease import Lease
from ca.messages import (
    JoinClaims,
    MessageError,
    check_addresses,
    encode_claims,
    encode_token,
    parse_claims,
    token_hash,
)
from ca.roster import RosterStore

TOKENS: Final = "tokens"
LEASES: Final = "leases.json"
ROSTERS: Final = "rosters.json"


class DirectoryError(Exception):
    """The directory is not one that can be used so; the text is one line and names it."""


class FileStore(RosterStore):
    """The directory's tokens and leases. Tokens may be made while a server runs; only it writes leases."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._leases_read: tuple[tuple[int, ...], tuple[Lease, ...]] | None = None

    def make_token(self, claims: JoinClaims) -> str:
        """Return a token's text, which is nowhere else; the directory keeps its hash."""
        text = encode_token(claims, secrets.token_bytes(32))
        record = {"hash": token_hash(text), "claims": json.loads(encode_claims(claims))}
        write_whole(self._token_path(claims.id), json.dumps(record, indent=1).encode() + b"\n")
        return text

    def tokens(self) -> list[TokenRecord]:
        """Return all tokens that are kept, expired ones too."""
        return [_read_token(path) for path in sorted((self._directory / TOKENS).glob("*.json"))]

    @override
    def token(self, token_id: str) -> TokenRecord | None:
        try:
            return _read_token(self._token_path(token_id))
        except FileNotFoundError:
            return None

    @override
    def leases(self) -> tuple[Lease, ...]:
        path = self._directory / LEASES
        # Each request for a roster reads them: they are parsed again when the file is another.
        found = path.stat()
        state = found.st_ino, found.st_mtime_ns, found.st_size
        if self._leases_read is None or self._leases_read[0] != state:
            self._leases_read = state, self._read_leases(path)
        return self._leases_read[1]

    @staticmethod
    def _read_leases(path: Path) -> tuple[Lease, ...]:
        try:
            return tuple(
                Lease(**{**fields, "addresses": check_addresses(tuple(fields["addresses"]))})
                for fields in json.loads(path.read_bytes())["leases"]
            )
        except (ValueError, TypeError, KeyError, MessageError) as error:
            raise DirectoryError(f"{path}: damaged: {error}") from None

    @override
    def put_leases(self, leases: Iterable[Lease]) -> None:
        fields = [
            asdict(lease) | {"addresses": [str(address) for address in lease.addresses]}
            for lease in leases
        ]
        write_whole(
            self._directory / LEASES, json.dumps({"leases": fields}, indent=1).encode() + b"\n"
        )

    @override
    def roster_versions(self) -> dict[str, int]:
        path = self._directory / ROSTERS
        try:
            versions = json.loads(path.read_bytes())["versions"]
            return {str(namespace): int(version) for namespace, version in versions.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DirectoryError(f"{path}: damaged: {error}") from None

    @override
    def put_roster_versions(self, versions: Mapping[str, int]) -> None:
        encoded = json.dumps({"versions": dict(versions)}, indent=1)
        write_whole(self._directory / ROSTERS, encoded.encode() + b"\n")

    def _token_path(self, token_id: str) -> Path:
        return self._directory / TOKENS / f"{token_id}.json"


def _read_token(path: Path) -> TokenRecord:
    try:
        fields = json.loads(path.read_bytes())
        return TokenRecord(fields["hash"], parse_claims(json.dumps(fields["claims"]).encode()))
    except (ValueError, TypeError, KeyError, MessageError) as error:
        raise DirectoryError(f"{path}: damaged: {error}") from None


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
