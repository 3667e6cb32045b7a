"""`tencrypt ca vault-setup`: what an administrator of Vault runs once."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policy.exits import FAILED, FINE, NOT_SO, WRONG, say

if TYPE_CHECKING:
    from cryptography import x509

    from ca.documents import Documents
    from ca.drivers.vault import Vault
    from ca.facts import ReadCrl
    from ca.signer import Signer
    from ca.vault_settings import VaultSettings

_LARGEST_SETTINGS: Final = 65_536

SETUP: Final = """\
Prints what Vault, or OpenBao, must hold for `tencrypt ca serve`, as commands of its own command line: a PKI engine with
a root whose key never leaves it, a role for each kind of certificate, and a policy that lets the CA run these roles and
nothing else. --apply does it, as the one whose token is in VAULT_TOKEN or BAO_TOKEN, and a second time changes nothing;
an issuer that is there stays. --check says what differs."""

SETUP_EXAMPLES: Final = """\
examples:
  tencrypt ca vault-setup --config ca.toml | less
  VAULT_TOKEN=... tencrypt ca vault-setup --config ca.toml --apply
  VAULT_TOKEN=... tencrypt ca vault-setup --config ca.toml --check

exit codes: 0 done, or nothing differs; 1 Vault does not answer, or refuses; 2 wrong usage or configuration;
6 something differs"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from ca.vault_settings import KEYS
    from policy.settings_source import describe

    parser.epilog = f"keys of the configuration:\n{describe(KEYS)}\n\n{SETUP_EXAMPLES}"
    parser.add_argument("--config", metavar="FILE", help="where Vault is, as above (TOML)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--apply", action="store_true", help="do it")
    which.add_argument("--check", action="store_true", help="say what differs")
    parser.add_argument("--json", action="store_true", help="with --check, for programs")


def setup(args: argparse.Namespace, life: timedelta) -> int:
    """Run the command for pods' certificates of at most ``life``; raises `SettingsError`."""
    from ca.vault_plan import commands, plan

    settings = load(args.config)
    if not args.apply and not args.check:
        print(commands(plan(settings, life)))
        return FINE
    token = _token()
    if not token:
        return say("ca vault-setup: set VAULT_TOKEN or BAO_TOKEN to an administrator's", WRONG)
    return _with_vault(args, settings, life, token)


def _with_vault(
    args: argparse.Namespace, settings: "VaultSettings", life: timedelta, token: str
) -> int:
    from ca.drivers import vault_setup
    from ca.signer import SignerError

    vault = connect(settings, token)
    try:
        if args.apply:
            vault_setup.apply(vault, settings, life, _tell)
            return FINE
        lines = vault_setup.check(vault, settings, life)
    except SignerError as error:
        return say(f"ca vault-setup: {error}", FAILED)
    if args.json:
        print(json.dumps({"differences": lines}, indent=2))
    else:
        print("\n".join(lines) or "Vault holds what it must.")
    return NOT_SO if lines else FINE


def prepare(directory: Path, config: str | None, wall: datetime) -> "tuple[str, x509.Certificate]":
    """Make the directory of a CA whose key and state are Vault's; return its trust domain and the root to pin.

    The first of the CA's servers begins the bundle of roots with the engine's default issuer. Raises `SettingsError`,
    `DirectoryError`, `SignerError` and `StateError`.
    """
    from ca.drivers import file_backend
    from ca.drivers.vault_documents import VaultDocuments
    from ca.drivers.vault_signer import VaultSigner, read_issuer
    from ca.trust import BUNDLE, begin, read_trust
    from ca.vault_settings import to_text

    settings = load(config)
    vault = connect(settings, _token())
    documents = VaultDocuments(vault, settings.kv_mount)
    if documents.state(BUNDLE) is None:
        root = read_issuer(vault, settings.pki_mount, "default")[-1]
        begin(documents, VaultSigner(vault, settings), root, wall)
    root = read_trust(documents).bundle.active
    file_backend.create_for_vault(directory, settings.trust_domain, to_text(settings), root)
    return settings.trust_domain, root


@dataclass(frozen=True, slots=True)
class Opened:
    """A CA whose key and state are Vault's, which need not answer yet; ``keep`` asks whether it does."""

    signer: "Signer"
    documents: "Documents"
    keep: Callable[[], None]
    read_crl: "ReadCrl"


def open_ca(config: Path) -> Opened:
    """Return the CA of which ``config`` is the Vault."""
    from ca.drivers.vault_documents import VaultDocuments
    from ca.drivers.vault_signer import VaultSigner
    from ca.vault_settings import Auth

    settings = load(str(config))
    if settings.auth is Auth.TOKEN:
        warning = "vault_auth = token: nobody renews it but this CA, and it is lost where that is away for long"
        print(f"tencrypt: ca serve: {config}: {warning}", file=sys.stderr)
    vault = connect(settings)
    documents = VaultDocuments(vault, settings.kv_mount)
    signer = VaultSigner(vault, settings)
    return Opened(signer, documents, vault.keep, signer.read_crl)


def documents_of(directory: Path) -> "Documents":
    """Return the state of the CA in a directory for its owner, by VAULT_TOKEN or BAO_TOKEN where it is in Vault."""
    from ca.drivers import file_backend
    from ca.drivers.file_documents import FileDocuments
    from ca.drivers.vault_documents import VaultDocuments

    config = file_backend.vault_settings(directory)
    if config is None:
        file_backend.read_root(directory)
        return FileDocuments(directory)
    settings = load(str(config))
    return VaultDocuments(connect(settings, _token()), settings.kv_mount)


def open_owners_signer(config: Path) -> "Signer":
    """Return what signs for roots by Vault, as the owner."""
    from ca.drivers.vault_signer import VaultSigner

    settings = load(str(config))
    return VaultSigner(connect(settings, _token()), settings)


def make_next_root(config: Path, number: int) -> "x509.Certificate":
    """Have Vault make another root, whose key never leaves it; raises `SignerError`."""
    from ca.drivers.vault_signer import make_root
    from ca.vault_plan import next_root

    settings = load(str(config))
    return make_root(connect(settings, _token()), next_root(settings, number))


def load(path: str | None) -> "VaultSettings":
    """Return what a configuration says; raises `SettingsError`."""
    from ca.vault_settings import parse_vault_settings
    from policy.drivers.files import read_text
    from policy.settings_source import SettingsError

    try:
        text_untrusted = "" if path is None else read_text(path, _LARGEST_SETTINGS)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
    return parse_vault_settings(text_untrusted, os.environ, path)


def connect(settings: "VaultSettings", token: str = "") -> "Vault":
    """Return a Vault that nothing was asked of yet; by ``token`` where one is given."""
    from ca.drivers.vault import Vault

    return Vault(settings, time.monotonic, token=token)  # noqa: TID251 - the composition's clock


def _token() -> str:
    return os.environ.get("VAULT_TOKEN") or os.environ.get("BAO_TOKEN") or ""


def _tell(number: int, total: int, text: str) -> None:
    print(f"[{number}/{total}] {text}", flush=True)
