"""`tencrypt ca init`, `passphrase`, `backup` and `restore`: the directory that is the CA."""

import argparse
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ca import vault_cli
from ca.common_cli import (
    Subparsers,
    UsageError,
    add,
    add_directory,
    add_passphrase,
    read_passphrase,
    wall,
)
from policy.exits import FINE

if TYPE_CHECKING:
    from cryptography import x509

_MOST_YEARS: Final = 30
_LARGEST_PEM: Final = 65_536

_INIT: Final = """\
Makes a CA in DIR, which must be new or empty: a P-256 root key, encrypted under the passphrase, and a root
certificate for the trust domain. Prints the root's fingerprint, which goes into each pod's settings.

With --issuer and --issuer-key a root or intermediate that was made elsewhere signs: the chain from it to its root, and
its key (ECDSA P-256 or P-384), of which an encrypted copy goes into DIR. With --config the key is Vault's, and DIR says
where that is."""

_INIT_EXAMPLES: Final = """\
examples:
  head -c 24 /dev/urandom | base64 >pass && chmod 600 pass
  tencrypt ca init /srv/tencrypt-ca --trust-domain shop.example --passphrase-file pass
  tencrypt ca init /srv/tencrypt-ca --trust-domain shop.example --passphrase-file pass \\
      --issuer shop-and-company.pem --issuer-key shop.key"""

_CHANGE: Final = """\
Encrypts the key in DIR under another passphrase. A server that runs has the key already and needs no restart; from its
next start on it wants the new one. Copies of DIR made before open with the former."""

_CHANGE_EXAMPLES: Final = """\
examples:
  tencrypt ca passphrase --dir /srv/tencrypt-ca --passphrase-file pass --new-passphrase-file new"""

_BACKUP: Final = """\
Copies DIR, its key as encrypted as it is there, into one new file that its owner alone can read. The server may be
running. Make one after `init`, and each day: pods that renewed since the copy join anew by their tokens."""

_BACKUP_EXAMPLES: Final = """\
examples:
  tencrypt ca backup --dir /srv/tencrypt-ca ca-$(date +%F).tar.gz"""

_RESTORE: Final = "Makes DIR, which must be new or empty, from such a copy. The passphrase is that of the copy's day."

_RESTORE_EXAMPLES: Final = """\
examples:
  tencrypt ca restore ca-2026-11-24.tar.gz /srv/tencrypt-ca"""


def build(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add the commands' parsers."""
    init = add(commands, "init", "make a CA", (_INIT, _INIT_EXAMPLES), _init)
    init.add_argument("dir", metavar="DIR", type=Path, help="new or empty directory")
    which = init.add_mutually_exclusive_group(required=True)
    which.add_argument("--trust-domain", metavar="TD", help="as shop.example; its key is made here")
    which.add_argument(
        "--config", metavar="FILE", help="its key is Vault's: see `tencrypt ca vault-setup`"
    )
    init.add_argument("--years", type=int, default=10, help="life of the root (default 10)")
    init.add_argument("--issuer", metavar="PEM", type=Path, help="its chain, the root last")
    init.add_argument("--issuer-key", metavar="PEM", type=Path, help="the issuer's key")
    add_passphrase(init)

    texts = (_CHANGE, _CHANGE_EXAMPLES)
    change = add(commands, "passphrase", "change the key's passphrase", texts, _change_passphrase)
    add_directory(change)
    add_passphrase(change)
    change.add_argument(
        "--new-passphrase-file", metavar="F", type=Path, required=True, help="its first line"
    )

    backup = add(commands, "backup", "copy it into a file", (_BACKUP, _BACKUP_EXAMPLES), _backup)
    add_directory(backup)
    backup.add_argument("file", metavar="FILE", type=Path, help="a new file")

    texts = (_RESTORE, _RESTORE_EXAMPLES)
    restore = add(commands, "restore", "make it from a copy", texts, _restore)
    restore.add_argument("file", metavar="FILE", type=Path, help="made by `tencrypt ca backup`")
    restore.add_argument("dir", metavar="DIR", type=Path, help="new or empty directory")


def _init(args: argparse.Namespace) -> int:
    from cryptography.hazmat.primitives.serialization import Encoding

    from ca.drivers import file_backend
    from ca.messages import root_fingerprint

    directory: Path = args.dir
    if (args.issuer is None) != (args.issuer_key is None):
        raise UsageError("--issuer and --issuer-key: both, or neither")
    if args.config is not None:
        if args.issuer is not None:
            raise UsageError("--issuer: with --config the key is Vault's")
        trust_domain, root = vault_cli.prepare(directory, args.config, wall())
    else:
        trust_domain = _trust_domain(args.trust_domain)
        if not 1 <= args.years <= _MOST_YEARS:
            raise UsageError(f"--years {args.years}: 1 to {_MOST_YEARS}")
        passphrase = read_passphrase(args.passphrase_file)
        if args.issuer is not None:
            root = _init_with_issuer(args, trust_domain, passphrase)
        else:
            life = timedelta(days=365 * args.years)
            root = file_backend.create(directory, trust_domain, passphrase, wall(), life)
    print(f"CA of {trust_domain} in {directory}")
    print(f"root fingerprint {root_fingerprint(root.public_bytes(Encoding.DER))}")
    return FINE


def _trust_domain(text: str) -> str:
    from policy.identity import IdentityError, check_trust_domain

    try:
        return check_trust_domain(text)
    except IdentityError as error:
        raise UsageError(f"--trust-domain {text!r}: {error}") from None


def _init_with_issuer(
    args: argparse.Namespace, trust_domain: str, passphrase: bytes
) -> "x509.Certificate":
    from ca.drivers import file_backend
    from ca.own_issuer import OwnIssuerError, read_own_issuer

    chain = _read(args.issuer, private=False)
    key = _read(args.issuer_key, private=True)
    try:
        issuer = read_own_issuer(chain, key, passphrase, wall())
    except OwnIssuerError as error:
        raise UsageError(f"--issuer {args.issuer}: {error}") from None
    file_backend.create_for_issuer(args.dir, trust_domain, passphrase, issuer, wall())
    return issuer.root


def _read(path: Path, *, private: bool) -> bytes:
    from policy.drivers.files import read_text

    try:
        return read_text(str(path), _LARGEST_PEM, private=private).encode()
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def _change_passphrase(args: argparse.Namespace) -> int:
    from ca.drivers import file_backend

    former = read_passphrase(args.passphrase_file)
    file_backend.change_passphrase(args.dir, former, read_passphrase(args.new_passphrase_file))
    print(f"the key in {args.dir} has the new passphrase")
    return FINE


def _backup(args: argparse.Namespace) -> int:
    from ca.drivers import backup

    count = backup.save(args.dir, args.file)
    print(f"{args.file}: {count} files of {args.dir}")
    return FINE


def _restore(args: argparse.Namespace) -> int:
    from ca.drivers import backup

    count = backup.restore(args.file, args.dir, wall())
    print(f"{args.dir}: {count} files of {args.file}")
    return FINE
