"""`tencrypt ca init`, `passphrase`, `backup` and `restore`: the directory that is the CA."""

import argparse
from datetime import timedelta
from pathlib import Path
from typing import Final

from ca import vault_cli
from ca.common_cli import (
    Subparsers,
    UsageError,
    add,
    add_passphrase,
    read_passphrase,
    wall,
)
from policy.exits import FINE

_MOST_YEARS: Final = 30

_INIT: Final = """\
Makes a CA in DIR, which must be new or empty: a P-256 root key, encrypted under the passphrase, and a root
certificate for the trust domain. With --config the key is Vault's, and DIR says where that is. Prints the root's
fingerprint, which goes into each pod's settings."""

_INIT_EXAMPLES: Final = """\
examples:
  head -c 24 /dev/urandom | base64 >pass && chmod 600 pass
  tencrypt ca init /srv/tencrypt-ca --trust-domain shop.example --passphrase-file pass"""


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
    add_passphrase(init)


def _init(args: argparse.Namespace) -> int:
    from cryptography.hazmat.primitives.serialization import Encoding

    from ca.drivers import file_backend
    from ca.messages import root_fingerprint

    directory: Path = args.dir
    if args.config is not None:
        trust_domain, root = vault_cli.prepare(directory, args.config)
    else:
        trust_domain = _trust_domain(args.trust_domain)
        if not 1 <= args.years <= _MOST_YEARS:
            raise UsageError(f"--years {args.years}: 1 to {_MOST_YEARS}")
        passphrase = read_passphrase(args.passphrase_file)
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
