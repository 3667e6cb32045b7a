"""The embedded CA's directory: its key, its tokens, its leases.

::

    DIR/              0700   one `ca serve` at a time holds a lock on it
      root.key        0600   the root's key, encrypted (ca.keyfile); or
      vault.toml      0600   where Vault is, which has the key
      root.pem        0600   the root; made last, so a directory without it is none
      tokens/ID.json  0600   each join token's hash and claims; delete the file and the token is void, and
                             certificates got by it are renewed no more
      leases.json     0600   who holds which addresses until when
      rosters.json    0600   the last version of each namespace's roster

Every file appears whole or not at all: written beside its place, synced, renamed.
"""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from typing_extensions import override

from ca.certificates import Issuer, KeySigner, make_root, trust_domain_of
from ca.issue import TokenRecord
from ca.keyfile import decrypt_key, encrypt_key
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

_ROOT: Final = "root.pem"
_KEY: Final = "root.key"
_VAULT: Final = "vault.toml"
_TOKENS: Final = "tokens"
_LEASES: Final = "leases.json"
_ROSTERS: Final = "rosters.json"


class DirectoryError(Exception):
    """The directory is not one that can be used so; the text is one line and names it."""


def create(
    directory: Path, trust_domain: str, passphrase: bytes, wall: datetime, life: timedelta
) -> x509.Certificate:
    """Make a CA in a directory that is not there or empty; return its root.

    Whatever fails or interrupts, nothing of it stays. Raises `DirectoryError`.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    root = make_root(key, trust_domain, wall, life)
    encrypted = encrypt_key(key, passphrase, secrets.token_bytes(32))
    _fill(directory, _KEY, encrypted, root)
    return root


def create_for_vault(directory: Path, settings: str, root: x509.Certificate) -> None:
    """Make a CA whose key is Vault's in a directory that is not there or empty; raises `DirectoryError`.

    ``settings`` is the text of its `ca.vault_settings`, ``root`` the one that Vault signs under.
    """
    _fill(directory, _VAULT, settings.encode(), root)


def _fill(directory: Path, name: str, content: bytes, root: x509.Certificate) -> None:
    try:
        with _fresh_directory(directory):
            (directory / _TOKENS).mkdir(mode=0o700)
            _write(directory / name, content)
            FileStore(directory).put_leases(())
            _write(directory / _ROOT, root.public_bytes(Encoding.PEM))
    except OSError as error:
        raise DirectoryError(f"{directory}: {error.strerror}") from None


def vault_settings(directory: Path) -> Path | None:
    """Return the file that says where Vault is; None where the directory has the key itself."""
    path = directory / _VAULT
    return path if path.exists() else None


@contextlib.contextmanager
def _fresh_directory(directory: Path) -> Iterator[None]:
    """Hold an empty directory of mode 0700, and empty or remove it again where the body fails."""
    is_new = not directory.exists()
    if is_new:
        directory.mkdir(mode=0o700)
    elif any(directory.iterdir()):
        raise DirectoryError(f"{directory} is not empty: a new CA wants a directory of its own")
    try:
        directory.chmod(0o700)
        yield
    except BaseException:
        for path in list(directory.iterdir()):
            path.rmdir() if path.is_dir() else path.unlink()
        if is_new:
            directory.rmdir()
        raise


def read_root(directory: Path) -> x509.Certificate:
    """Return the root of a CA's directory; raises `DirectoryError`."""
    try:
        root = x509.load_pem_x509_certificate((directory / _ROOT).read_bytes())
        if vault_settings(directory) is None:
            trust_domain_of(root)
    except FileNotFoundError:
        raise DirectoryError(f"{directory} holds no CA: `tencrypt ca init` makes one") from None
    except OSError as error:
        raise DirectoryError(f"{directory / _ROOT}: {error.strerror}") from None
    except ValueError as error:
        raise DirectoryError(f"{directory / _ROOT}: not a project's root: {error}") from None
    return root


def open_signer(directory: Path, passphrase: bytes) -> KeySigner:
    """Return what signs with the directory's key, decrypted once; raises `DirectoryError`."""
    root = read_root(directory)
    path = directory / _KEY
    try:
        key = decrypt_key(path.read_bytes(), passphrase)
    except OSError as error:
        raise DirectoryError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise DirectoryError(f"{path}: this passphrase does not open it") from None
    if key.public_key() != root.public_key():
        raise DirectoryError(f"{path} is not the key of {directory / _ROOT}")
    return KeySigner(Issuer(root, key))


class FileStore(RosterStore):
    """The directory's tokens and leases. Tokens may be made while a server runs; only it writes leases."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._leases_read: tuple[tuple[int, ...], tuple[Lease, ...]] | None = None

    def make_token(self, claims: JoinClaims) -> str:
        """Return a token's text, which is nowhere else; the directory keeps its hash."""
        text = encode_token(claims, secrets.token_bytes(32))
        record = {"hash": token_hash(text), "claims": json.loads(encode_claims(claims))}
        _write(self._token_path(claims.id), json.dumps(record, indent=1).encode() + b"\n")
        return text

    def tokens(self) -> list[TokenRecord]:
        """Return all tokens that are kept, expired ones too."""
        return [_read_token(path) for path in sorted((self._directory / _TOKENS).glob("*.json"))]

    @override
    def token(self, token_id: str) -> TokenRecord | None:
        try:
            return _read_token(self._token_path(token_id))
        except FileNotFoundError:
            return None

    @override
    def leases(self) -> tuple[Lease, ...]:
        path = self._directory / _LEASES
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
        _write(self._directory / _LEASES, json.dumps({"leases": fields}, indent=1).encode() + b"\n")

    @override
    def roster_versions(self) -> dict[str, int]:
        path = self._directory / _ROSTERS
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
        _write(self._directory / _ROSTERS, encoded.encode() + b"\n")

    def _token_path(self, token_id: str) -> Path:
        return self._directory / _TOKENS / f"{token_id}.json"


def _read_token(path: Path) -> TokenRecord:
    try:
        fields = json.loads(path.read_bytes())
        return TokenRecord(fields["hash"], parse_claims(json.dumps(fields["claims"]).encode()))
    except (ValueError, TypeError, KeyError, MessageError) as error:
        raise DirectoryError(f"{path}: damaged: {error}") from None


@contextlib.contextmanager
def sole_server(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: two servers would each grant an address once. Raises `DirectoryError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryError(f"{directory} is being served already") from None
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
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
