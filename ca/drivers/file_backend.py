"""The embedded CA's directory: its key, its tokens, its leases.

::

    DIR/              0700   one `ca serve` at a time holds a lock on it
      root.key        0600   the root's key, encrypted (ca.keyfile); or
      vault.toml      0600   where Vault is, which has the key
      issuer.pem      0600   what lies between that key and the root, the key's own certificate first; if anything
      ca.json         0600   the trust domain, where the root does not name it
      root.pem        0600   the root; made last, so a directory without it is none
      tokens/ID.json  0600   each join token's hash and claims; delete the file and the token is void, and
                             certificates got by it are renewed no more
      bundle.json            the project's roots (`ca.trust`), and revocations.json who is withdrawn
      roots/FP.key, FP.pem   the roots that came after the first, by the beginning of their fingerprint
      namespaces/NS.json     who holds which addresses until when, and the roster's version (`ca.namespace`)

Every file appears whole or not at all: written beside its place, synced, renamed.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ca.certificates import Issuer, KeySigner, make_root, trust_domain_of
from ca.documents import NAMESPACES, TOKENS
from ca.drivers.file_documents import DirectoryError, FileDocuments, write_whole
from ca.keyfile import decrypt_key, encrypt_key
from ca.revocations import REVOCATIONS
from ca.signer import SignerError
from ca.trust import BUNDLE, begin, read_trust
from ca.trust_bundle import fingerprint
from policy.identity import check_trust_domain

_ROOT: Final = "root.pem"
_KEY: Final = "root.key"
_VAULT: Final = "vault.toml"
_ISSUER: Final = "issuer.pem"
_CA: Final = "ca.json"
FILES: Final = (_KEY, _VAULT, _ISSUER, _CA, f"{BUNDLE}.json", f"{REVOCATIONS}.json", _ROOT)
"""Those that lie in the directory itself."""

ROOTS: Final = "roots"
FOLDERS: Final = (TOKENS, NAMESPACES, ROOTS)


def create(
    directory: Path, trust_domain: str, passphrase: bytes, wall: datetime, life: timedelta
) -> x509.Certificate:
    """Make a CA in a directory that is not there or empty; return its root.

    Whatever fails or interrupts, nothing of it stays. Raises `DirectoryError`.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    root = make_root(key, trust_domain, wall, life)
    create_for_issuer(directory, trust_domain, passphrase, Issuer(root, key), wall)
    return root


def create_for_issuer(
    directory: Path, trust_domain: str, passphrase: bytes, issuer: Issuer, wall: datetime
) -> None:
    """Make a CA that signs as an issuer in a directory that is not there or empty; as `create`."""
    files = {
        _KEY: encrypt_key(issuer.key, passphrase, secrets.token_bytes(32)),
        _CA: _ca_file(trust_domain),
    }
    if issuer.between:
        files[_ISSUER] = b"".join(one.public_bytes(Encoding.PEM) for one in issuer.between)
    signer = KeySigner(issuer, trust_domain)
    with _filling(directory, files, issuer.root):
        begin(FileDocuments(directory), signer, issuer.root, wall)


def create_for_vault(
    directory: Path, trust_domain: str, settings: str, root: x509.Certificate
) -> None:
    """Make a CA whose key is Vault's in a directory that is not there or empty; raises `DirectoryError`.

    ``settings`` is the text of its `ca.vault_settings`, ``root`` the one that Vault signs under.
    """
    files = {_VAULT: settings.encode(), _CA: _ca_file(trust_domain)}
    with _filling(directory, files, root):
        pass


def _ca_file(trust_domain: str) -> bytes:
    return json.dumps({"trust_domain": trust_domain}).encode() + b"\n"


@contextlib.contextmanager
def _filling(directory: Path, files: Mapping[str, bytes], root: x509.Certificate) -> Iterator[None]:
    """Make a CA's directory of these files and what the body writes."""
    try:
        with fresh_directory(directory):
            for folder in FOLDERS:
                (directory / folder).mkdir(mode=0o700)
            for name, content in files.items():
                write_whole(directory / name, content)
            yield
            write_whole(directory / _ROOT, root.public_bytes(Encoding.PEM))
    except OSError as error:
        raise DirectoryError(f"{directory}: {error.strerror}") from None


def vault_settings(directory: Path) -> Path | None:
    """Return the file that says where Vault is; None where the directory has the key itself."""
    path = directory / _VAULT
    return path if path.exists() else None


@contextlib.contextmanager
def fresh_directory(directory: Path) -> Iterator[None]:
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
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if is_new:
            directory.rmdir()
        raise


def read_root(directory: Path) -> x509.Certificate:
    """Return the root of a CA's directory; raises `DirectoryError`."""
    try:
        root = x509.load_pem_x509_certificate((directory / _ROOT).read_bytes())
    except FileNotFoundError:
        raise DirectoryError(f"{directory} holds no CA: `tencrypt ca init` makes one") from None
    except OSError as error:
        raise DirectoryError(f"{directory / _ROOT}: {error.strerror}") from None
    except ValueError as error:
        raise DirectoryError(f"{directory / _ROOT}: not a project's root: {error}") from None
    return root


def read_trust_domain(directory: Path) -> str:
    """Return whose CA it is; raises `DirectoryError`."""
    path = directory / _CA
    try:
        return check_trust_domain(json.loads(path.read_bytes())["trust_domain"])
    except FileNotFoundError:  # made before there was this file
        pass
    except OSError as error:
        raise DirectoryError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DirectoryError(f"{path}: damaged: {error}") from None
    try:
        return trust_domain_of(read_root(directory))
    except ValueError as error:
        raise DirectoryError(f"{directory / _ROOT}: not a project's root: {error}") from None


def open_signer(directory: Path, passphrase: bytes) -> KeySigner:
    """Return what signs with the directory's keys, each decrypted once; raises `DirectoryError`."""
    first = read_root(directory)

    def find(root: x509.Certificate) -> Issuer | None:
        if root == first:
            try:
                return _first_issuer(directory, root, passphrase)
            except DirectoryError as error:
                raise SignerError(str(error)) from None
        return _find_issuer(directory, root, passphrase)

    active = read_trust(FileDocuments(directory)).bundle.active
    try:
        issuer = find(active)
    except SignerError as error:
        raise DirectoryError(str(error)) from None
    if issuer is None:
        raise DirectoryError(
            f"{_root_path(directory, active)}: the key of the root that issues is lost"
        )
    return KeySigner(issuer, read_trust_domain(directory), find)


def _first_issuer(directory: Path, root: x509.Certificate, passphrase: bytes) -> Issuer:
    key = _read_key(directory, passphrase)
    issuer = Issuer(root, key, _read_between(directory))
    if key.public_key() != issuer.certificate.public_key():
        name = _ISSUER if issuer.between else _ROOT
        raise DirectoryError(f"{directory / _KEY} is not the key of {directory / name}")
    return issuer


def add_root(directory: Path, issuer: Issuer, passphrase: bytes) -> None:
    """Keep a root that shall issue later, and its key encrypted; raises `DirectoryError`."""
    path = _root_path(directory, issuer.root)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(
            path.with_suffix(".key"), encrypt_key(issuer.key, passphrase, secrets.token_bytes(32))
        )
        chain = (*issuer.between, issuer.root)
        write_whole(path, b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    except OSError as error:
        raise DirectoryError(f"{path}: {error.strerror}") from None


def forget_roots(directory: Path, trusted: Collection[x509.Certificate]) -> None:
    """Delete the keys of roots that are trusted no more, the first one's too; raises `DirectoryError`."""
    kept = {_root_path(directory, root).stem for root in trusted}
    gone = [one for one in (directory / ROOTS).glob("*.*") if one.stem not in kept]
    if read_root(directory) not in trusted:
        gone.append(directory / _KEY)
    for path in gone:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DirectoryError(f"{path}: {error.strerror}") from None


def _root_path(directory: Path, root: x509.Certificate) -> Path:
    return directory / ROOTS / f"{fingerprint(root)[:16]}.pem"


def _find_issuer(directory: Path, root: x509.Certificate, passphrase: bytes) -> Issuer | None:
    path = _root_path(directory, root)
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
        key = decrypt_key(path.with_suffix(".key").read_bytes(), passphrase)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SignerError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise SignerError(f"{path}: damaged, or this passphrase does not open its key") from None
    if chain[-1] != root or key.public_key() != chain[0].public_key():
        raise SignerError(f"{path}: not the key of its certificate")
    return Issuer(root, key, tuple(chain[:-1]))


def change_passphrase(directory: Path, former: bytes, passphrase: bytes) -> None:
    """Encrypt the directory's keys anew; whatever fails, one of the two opens each. Raises `DirectoryError`."""
    # All are opened before the first is written: a wrong passphrase changes nothing.
    paths = [directory / _KEY, *sorted((directory / ROOTS).glob("*.key"))]
    keys = [(path, _open_key(path, former)) for path in paths if path.exists()]
    for path, key in keys:
        try:
            write_whole(path, encrypt_key(key, passphrase, secrets.token_bytes(32)))
        except OSError as error:
            raise DirectoryError(f"{path}: {error.strerror}") from None


def _read_key(directory: Path, passphrase: bytes) -> ec.EllipticCurvePrivateKey:
    return _open_key(directory / _KEY, passphrase)


def _open_key(path: Path, passphrase: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        return decrypt_key(path.read_bytes(), passphrase)
    except OSError as error:
        raise DirectoryError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise DirectoryError(f"{path}: this passphrase does not open it") from None


def _read_between(directory: Path) -> tuple[x509.Certificate, ...]:
    path = directory / _ISSUER
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise DirectoryError(f"{path}: {error.strerror}") from None
    except ValueError as error:
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
