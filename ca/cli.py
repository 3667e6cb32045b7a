"""`tencrypt ca`: what the owner of a project's certificate authority types."""

import argparse
import contextlib
import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ca import directory_cli, revoke_cli, rotate_cli, vault_cli
from ca.common_cli import (
    Subparsers,
    UsageError,
    add,
    add_directory,
    add_passphrase,
    checked,
    duration,
    read_passphrase,
    wall,
)
from policy.exits import FINE

if TYPE_CHECKING:
    from ca.documents import Documents
    from ca.signer import Signer

_LONGEST_TOKEN: Final = timedelta(days=365)
_LONGEST_CERTIFICATE: Final = timedelta(days=30)

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


def build(subparsers: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add the group's parsers; each sets ``func``, which returns the exit code."""
    group = add(subparsers, "ca", "the project's certificate authority", (_CA, _CA_EXAMPLES))
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    directory_cli.build(commands)
    rotate_cli.build(commands)
    revoke_cli.build(commands)

    serve = add(commands, "serve", "run it over HTTPS", (_SERVE, _SERVE_EXAMPLES), _serve)
    add_directory(serve)
    serve.add_argument(
        "--listen", metavar="ADDR:PORT", required=True, help="as 10.0.1.1:8443 or [fd00::1]:8443"
    )
    serve.add_argument(
        "--ttl",
        default="24h",
        help="life of pods' certificates, which are renewed at half of it (default 24h, at most 30d)",
    )
    add_passphrase(serve)

    token = add(commands, "token", "make a join token", (_JOIN, _JOIN_EXAMPLES), _token)
    add_directory(token)
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
    token.add_argument(
        "--uses",
        metavar="N",
        help="how often it can be used (default: until its time is over, so that a restarted pod comes back)",
    )

    setup = add(
        commands, "vault-setup", "prepare Vault or OpenBao", (vault_cli.SETUP, ""), _vault_setup
    )
    vault_cli.add_options(setup)
    setup.add_argument(
        "--ttl", default="24h", help="longest life of pods' certificates (default 24h, at most 30d)"
    )

    show = add(commands, "show", "root, tokens, leases", (_SHOW, _SHOW_EXAMPLES), _show)
    add_directory(show)
    show.add_argument("--json", action="store_true", help="for programs; times in Unix seconds")


def _uses(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text, re.ASCII):
        raise UsageError(f"--uses {text!r}: a whole number from 1 to 999999")
    return int(text)


def _serve(args: argparse.Namespace) -> int:
    import asyncio

    from ca import serving
    from ca.drivers import audit, file_backend, server
    from ca.drivers.file_documents import FileDocuments
    from ca.drivers.service import Service
    from ca.facts import no_crl
    from ca.overview import read_leases
    from ca.trust import read_trust

    life = duration("--ttl", args.ttl, _LONGEST_CERTIFICATE)
    try:
        host, port = server.parse_listen(args.listen)
    except ValueError:
        raise UsageError(
            f"--listen {args.listen!r}: ADDR:PORT, as 10.0.1.1:8443 or [fd00::1]:8443"
        ) from None
    directory: Path = args.dir
    settings = file_backend.vault_settings(directory)
    if settings is None:
        signer: Signer = file_backend.open_signer(directory, read_passphrase(args.passphrase_file))
        documents: Documents = FileDocuments(directory)
        read_leases(documents)  # damaged records are told now and not to the first pod
        if read_trust(documents).bundle.active.not_valid_after_utc <= wall():
            raise UsageError(f"{directory}: its root has ended: make a new CA")
        keep, read_crl = None, no_crl
    else:
        opened = vault_cli.open_ca(settings)
        signer, documents = opened.signer, opened.documents
        keep, read_crl = opened.keep, opened.read_crl
    service = Service(documents, signer, life, wall, audit.lines(wall), keep, read_crl)
    with file_backend.sole_server(directory) if settings is None else contextlib.nullcontext():
        try:
            asyncio.run(serving.until_signal(service, host, port))
        except OSError as error:
            if isinstance(error, PermissionError):
                raise PermissionError(error.errno, error.strerror, args.listen) from None
            raise UsageError(f"--listen {args.listen}: {os.strerror(error.errno or 0)}") from None
    return FINE


def _token(args: argparse.Namespace) -> int:
    import secrets

    from ca.documents import namespace_name
    from ca.drivers import file_backend
    from ca.drivers.tokens import make_token
    from ca.messages import JoinClaims, MessageError, check_addresses
    from policy.identity import check_namespace, check_pod_name, check_service_account

    life = duration("--ttl", args.ttl, _LONGEST_TOKEN)
    uses = 0 if args.uses is None else _uses(args.uses)
    directory: Path = args.dir
    try:
        addresses = check_addresses(tuple(args.address))
    except MessageError as error:
        raise UsageError(f"--address: {error}") from None
    claims = JoinClaims(
        id=secrets.token_hex(8),
        trust_domain=file_backend.read_trust_domain(directory),
        pod=checked("--name", args.name, check_pod_name),
        namespace=checked("--namespace", args.namespace, check_namespace),
        service_account=checked("--service-account", args.service_account, check_service_account),
        addresses=addresses,
        expires=int((wall() + life).timestamp()),
    )
    documents = vault_cli.documents_of(directory)
    documents.read(
        namespace_name(claims.namespace)
    )  # pods of a namespace without a record cannot join
    print(make_token(documents, claims, uses))
    return FINE


def _show(args: argparse.Namespace) -> int:
    from ca import overview
    from ca.drivers import file_backend
    from ca.drivers.tokens import read_tokens
    from ca.trust import read_trust

    documents = vault_cli.documents_of(args.dir)
    root = read_trust(documents).bundle.active
    trust_domain = file_backend.read_trust_domain(args.dir)
    seen = overview.look(
        trust_domain, root, read_tokens(documents), overview.read_leases(documents), wall()
    )
    print(json.dumps(overview.to_json(seen), indent=2) if args.json else overview.draw(seen))
    return FINE


def _vault_setup(args: argparse.Namespace) -> int:
    return vault_cli.setup(args, duration("--ttl", args.ttl, _LONGEST_CERTIFICATE))
