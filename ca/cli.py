"""`tencrypt ca`: what the owner of a project's certificate authority types."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ca import vault_cli

if TYPE_CHECKING:
    from ca.signer import Signer

FINE, FAILED, WRONG, LACKING = 0, 1, 2, 4

PASSPHRASE_VARIABLE: Final = "TENCRYPT_CA_PASSPHRASE"  # noqa: S105 - a variable's name

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_TOKEN: Final = timedelta(days=365)
_LONGEST_CERTIFICATE: Final = timedelta(days=30)
_MOST_YEARS: Final = 30
_LARGEST_PASSPHRASE: Final = 1024

_Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it

_CA: Final = """\
The project's own certificate authority: a directory with an encrypted root key, a server that signs, and
join tokens. A token names a pod, its namespace, service account and addresses; whoever holds it gets
certificates for exactly these until it expires, so a restarted pod comes back by itself. A pod that runs
renews its certificate with its own key, also after the token's end."""

_CA_EXAMPLES: Final = """\
examples, in order:
  tencrypt ca init /srv/tencrypt-ca --trust-domain shop.example --passphrase-file pass
  tencrypt ca serve --dir /srv/tencrypt-ca --listen 10.0.1.1:8443 --passphrase-file pass
  tencrypt ca token --dir /srv/tencrypt-ca --name nginx1 --namespace shop \\
      --service-account default --address 10.0.0.1
  tencrypt ca show --dir /srv/tencrypt-ca"""

_INIT: Final = """\
Makes a CA in DIR, which must be new or empty: a P-256 root key, encrypted under the passphrase, and a root
certificate for the trust domain. With --config the key is Vault's, and DIR says where that is. Prints the root's
fingerprint, which goes into each pod's settings."""

_INIT_EXAMPLES: Final = """\
examples:
  head -c 24 /dev/urandom | base64 >pass && chmod 600 pass
  tencrypt ca init /srv/tencrypt-ca --trust-domain shop.example --passphrase-file pass"""

_SERVE: Final = """\
Serves the CA over HTTPS until SIGTERM or Ctrl-C. Says on standard output when it is ready; each certificate
that it issues or refuses is one line on standard error. One server a directory."""

_SERVE_EXAMPLES: Final = """\
examples:
  tencrypt ca serve --dir /srv/tencrypt-ca --listen 10.0.1.1:8443 --passphrase-file pass
  TENCRYPT_CA_PASSPHRASE=... tencrypt ca serve --dir /srv/tencrypt-ca --listen [fd00::1]:8443 --ttl 1h"""

_JOIN: Final = """\
Makes a join token and prints it, and nothing else, on standard output. The directory keeps its hash only.
No passphrase is needed, and the server may be running. To void a token, and to renew its pod's certificate
no more, delete DIR/tokens/ID.json."""

_JOIN_EXAMPLES: Final = """\
examples:
  tencrypt ca token --dir /srv/tencrypt-ca --name nginx1 --namespace shop --service-account default \\
      --address 10.0.0.1 --address fd00::1 --ttl 7d >token"""

_SHOW: Final = "Shows the root, the join tokens that are still good, and who holds which addresses."

_SHOW_EXAMPLES: Final = """\
examples:
  tencrypt ca show --dir /srv/tencrypt-ca
  tencrypt ca show --dir /srv/tencrypt-ca --json"""


class _UsageError(Exception):
    """Wrong usage or configuration; one line."""


def build(subparsers: "_Subparsers[argparse.ArgumentParser]") -> None:
    """Add the group's parsers; each sets ``func``, which returns the exit code."""
    group = _add(subparsers, "ca", "the project's certificate authority", (_CA, _CA_EXAMPLES))
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    init = _add(commands, "init", "make a CA", (_INIT, _INIT_EXAMPLES), _init)
    init.add_argument("dir", metavar="DIR", type=Path, help="new or empty directory")
    which = init.add_mutually_exclusive_group(required=True)
    which.add_argument("--trust-domain", metavar="TD", help="as shop.example; its key is made here")
    which.add_argument(
        "--config", metavar="FILE", help="its key is Vault's: see `tencrypt ca vault-setup`"
    )
    init.add_argument("--years", type=int, default=10, help="life of the root (default 10)")
    _add_passphrase(init)

    serve = _add(commands, "serve", "run it over HTTPS", (_SERVE, _SERVE_EXAMPLES), _serve)
    _add_directory(serve)
    serve.add_argument(
        "--listen", metavar="ADDR:PORT", required=True, help="as 10.0.1.1:8443 or [fd00::1]:8443"
    )
    serve.add_argument(
        "--ttl",
        default="24h",
        help="life of pods' certificates, which are renewed at half of it (default 24h, at most 30d)",
    )
    _add_passphrase(serve)

    token = _add(commands, "token", "make a join token", (_JOIN, _JOIN_EXAMPLES), _token)
    _add_directory(token)
    token.add_argument("--name", metavar="POD", required=True, help="the pod's name")
    token.add_argument("--namespace", metavar="NS", required=True)
    token.add_argument("--service-account", metavar="SA", required=True)
    token.add_argument(
        "--address",
        metavar="A",
        required=True,
        action="append",
        help="an address of the pod; repeatable, up to 16",
    )
    token.add_argument(
        "--ttl", default="24h", help="how long it can be used (default 24h, at most 365d)"
    )

    setup = _add(
        commands, "vault-setup", "prepare Vault or OpenBao", (vault_cli.SETUP, ""), _vault_setup
    )
    vault_cli.add_options(setup)
    setup.add_argument(
        "--ttl", default="24h", help="longest life of pods' certificates (default 24h, at most 30d)"
    )

    show = _add(commands, "show", "root, tokens, leases", (_SHOW, _SHOW_EXAMPLES), _show)
    _add_directory(show)
    show.add_argument("--json", action="store_true", help="for programs; times in Unix seconds")


def _add(
    subparsers: "_Subparsers[argparse.ArgumentParser]",
    name: str,
    summary: str,
    texts: tuple[str, str],
    command: Callable[[argparse.Namespace], int] | None = None,
) -> argparse.ArgumentParser:
    description, epilog = texts
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command is not None:
        parser.set_defaults(func=_told_in_one_line(f"ca {name}", command))
    return parser


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir", metavar="DIR", type=Path, required=True, help="made by `tencrypt ca init`"
    )


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file",
        metavar="F",
        type=Path,
        help=f"its first line is the passphrase; otherwise {PASSPHRASE_VARIABLE}",
    )


def _told_in_one_line(
    name: str, command: Callable[[argparse.Namespace], int]
) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        from ca.drivers.file_backend import DirectoryError
        from ca.signer import SignerError
        from policy.settings_source import SettingsError

        try:
            return command(args)
        except (_UsageError, DirectoryError, SettingsError) as error:
            return _say(f"{name}: {error}", WRONG)
        except SignerError as error:
            return _say(f"{name}: {error}", FAILED)
        except BrokenPipeError:  # the reader has seen enough; the entry ends quietly
            raise
        except OSError as error:
            code = LACKING if isinstance(error, PermissionError) else FAILED
            return _say(f"{name}: {error.filename}: {error.strerror}", code)

    return run


def _say(message: str, code: int) -> int:
    print(f"tencrypt: {message}", file=sys.stderr)
    return code


def _wall() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the one place that reads the clock for the CA


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
            raise _UsageError(f"--years {args.years}: 1 to {_MOST_YEARS}")
        passphrase = _passphrase(args.passphrase_file)
        life = timedelta(days=365 * args.years)
        root = file_backend.create(directory, trust_domain, passphrase, _wall(), life)
    print(f"CA of {trust_domain} in {directory}")
    print(f"root fingerprint {root_fingerprint(root.public_bytes(Encoding.DER))}")
    return FINE


def _trust_domain(text: str) -> str:
    from policy.identity import IdentityError, check_trust_domain

    try:
        return check_trust_domain(text)
    except IdentityError as error:
        raise _UsageError(f"--trust-domain {text!r}: {error}") from None


def _serve(args: argparse.Namespace) -> int:
    import asyncio

    from ca import serving
    from ca.drivers import audit, file_backend, server
    from ca.drivers.service import Service

    life = _duration("--ttl", args.ttl, _LONGEST_CERTIFICATE)
    try:
        host, port = server.parse_listen(args.listen)
    except ValueError:
        raise _UsageError(
            f"--listen {args.listen!r}: ADDR:PORT, as 10.0.1.1:8443 or [fd00::1]:8443"
        ) from None
    directory: Path = args.dir
    settings = file_backend.vault_settings(directory)
    if settings is None:
        signer: Signer = file_backend.open_signer(directory, _passphrase(args.passphrase_file))
        keep = None
    else:
        signer, keep = vault_cli.open_signer(settings, file_backend.read_root(directory))
    if signer.roots[0].not_valid_after_utc <= _wall():
        raise _UsageError(f"{directory}: its root has ended: make a new CA")
    store = file_backend.FileStore(directory)
    store.leases()  # a damaged store is told now and not to the first pod
    service = Service(store, signer, life, _wall, audit.lines(_wall), keep)
    with file_backend.sole_server(directory):
        try:
            asyncio.run(serving.until_signal(service, host, port))
        except OSError as error:
            if isinstance(error, PermissionError):
                raise PermissionError(error.errno, error.strerror, args.listen) from None
            raise _UsageError(f"--listen {args.listen}: {os.strerror(error.errno or 0)}") from None
    return FINE


def _token(args: argparse.Namespace) -> int:
    import secrets

    from ca.drivers import file_backend
    from ca.messages import JoinClaims, MessageError, check_addresses
    from policy.identity import check_namespace, check_pod_name, check_service_account

    life = _duration("--ttl", args.ttl, _LONGEST_TOKEN)
    directory: Path = args.dir
    try:
        addresses = check_addresses(tuple(args.address))
    except MessageError as error:
        raise _UsageError(f"--address: {error}") from None
    claims = JoinClaims(
        id=secrets.token_hex(8),
        trust_domain=_trust_domain_in(directory),
        pod=_checked("--name", args.name, check_pod_name),
        namespace=_checked("--namespace", args.namespace, check_namespace),
        service_account=_checked("--service-account", args.service_account, check_service_account),
        addresses=addresses,
        expires=int((_wall() + life).timestamp()),
    )
    print(file_backend.FileStore(directory).make_token(claims))
    return FINE


def _trust_domain_in(directory: Path) -> str:
    from ca.certificates import trust_domain_of
    from ca.drivers import file_backend

    root = file_backend.read_root(directory)
    settings = file_backend.vault_settings(directory)
    if settings is None:
        return trust_domain_of(root)
    return vault_cli.load(str(settings)).trust_domain


def _show(args: argparse.Namespace) -> int:
    from ca import overview
    from ca.drivers import file_backend

    store = file_backend.FileStore(args.dir)
    root = file_backend.read_root(args.dir)
    trust_domain = _trust_domain_in(args.dir)
    seen = overview.look(trust_domain, root, store.tokens(), store.leases(), _wall())
    print(json.dumps(overview.to_json(seen), indent=2) if args.json else overview.draw(seen))
    return FINE


def _vault_setup(args: argparse.Namespace) -> int:
    return vault_cli.setup(args, _duration("--ttl", args.ttl, _LONGEST_CERTIFICATE))


def _checked(option: str, text: str, check: Callable[[str], str]) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise _UsageError(f"{option} {text!r}: {error}") from None


def _duration(option: str, text: str, longest: timedelta) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text, re.ASCII)
    life = timedelta(seconds=int(match[1]) * _UNITS[match[2]]) if match else timedelta()
    if not timedelta() < life <= longest:
        raise _UsageError(f"{option} {text!r}: as 30m, 24h or 7d, at most {longest.days}d")
    return life


def _passphrase(path: Path | None) -> bytes:
    """Return the passphrase of a file or the environment; the file counts where both are given."""
    if path is None:
        passphrase = os.environb.get(PASSPHRASE_VARIABLE.encode(), b"")
        if not passphrase:
            raise _UsageError(f"no passphrase: give --passphrase-file or set {PASSPHRASE_VARIABLE}")
    else:
        passphrase = _first_line(path)
    if not 0 < len(passphrase) <= _LARGEST_PASSPHRASE:
        where = path or PASSPHRASE_VARIABLE
        raise _UsageError(f"{where}: a passphrase of 1 to {_LARGEST_PASSPHRASE} bytes")
    return passphrase


def _first_line(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # Refused like a token file: a warning would scroll by, and the mode stay.
            if os.fstat(file.fileno()).st_mode & 0o004:
                raise _UsageError(f"{path}: every user can read it: chmod o= {path}")
            return file.readline(_LARGEST_PASSPHRASE + 2).rstrip(b"\r\n")
    except OSError as error:
        raise _UsageError(f"{path}: {error.strerror}") from None
