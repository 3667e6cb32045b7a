"""`tencrypt ca revoke`: how the CA's owner withdraws pods; and who that owner is."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

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
    from ca.documents import Documents
    from ca.revocations import Kind
    from ca.signer import Signer

_LONGEST_KNOWN: Final = 31 * 86_400
"""Seconds for which a certificate can count: 30 days, and one."""

REVOKE: Final = """\
Withdraws a certificate, a pod, an identity (a service account) or an issuer below a root: the CA gives it nothing any
more, and pods end its sessions and open none. Pods that hear the CA, or any other pod, do so within seconds. --lift
takes it back; without anything to withdraw, what is withdrawn is listed."""

REVOKE_EXAMPLES: Final = """\
examples:
  tencrypt ca revoke --dir /srv/tencrypt-ca --pod shop/web-1 --reason "its node was taken over"
  tencrypt ca revoke --dir /srv/tencrypt-ca --certificate 5b1f0c...
  tencrypt ca revoke --dir /srv/tencrypt-ca --identity shop/build
  tencrypt ca revoke --dir /srv/tencrypt-ca --pod shop/web-1 --lift
  tencrypt ca revoke --dir /srv/tencrypt-ca"""


def build(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    revoke = add(commands, "revoke", "withdraw pods", (REVOKE, REVOKE_EXAMPLES), _revoke)
    add_directory(revoke)
    add_passphrase(revoke)
    what = revoke.add_mutually_exclusive_group()
    what.add_argument(
        "--certificate", metavar="SERIAL", help="hexadecimal, as `ca show --json` says it"
    )
    what.add_argument("--pod", metavar="NS/POD", help="until it is lifted")
    what.add_argument("--identity", metavar="NS/SERVICE-ACCOUNT", help="all its pods")
    what.add_argument("--issuer", metavar="SHA256", help="of an intermediate's certificate")
    revoke.add_argument("--reason", default="", help="for the record")
    revoke.add_argument("--lift", action="store_true", help="take it back")
    revoke.add_argument("--json", action="store_true", help="of the list, for programs")


@dataclass(frozen=True, slots=True)
class Owner:
    """The CA as its owner has it."""

    directory: Path
    documents: "Documents"
    passphrase_file: Path | None

    def signer(self) -> "Signer":
        """Return what signs for roots."""
        from ca import vault_cli
        from ca.drivers import file_backend

        settings = file_backend.vault_settings(self.directory)
        if settings is not None:
            return vault_cli.open_owners_signer(settings)
        return file_backend.open_signer(self.directory, read_passphrase(self.passphrase_file))


def owner_of(args: argparse.Namespace) -> Owner:
    """Return the CA that a command is about."""
    from ca import vault_cli

    directory: Path = args.dir
    passphrase_file = getattr(args, "passphrase_file", None)
    return Owner(directory, vault_cli.documents_of(directory), passphrase_file)


def _revoke(args: argparse.Namespace) -> int:
    from ca import owner, rotation
    from ca.revocations import Entry, Kind

    ours = owner_of(args)
    if args.issuer is not None:
        return _revoke_issuer(args, ours)
    what = _what(args)
    if what is None:
        return _list_revoked(args, ours)
    kind, namespace, name = what
    since = int(wall().timestamp())
    # Who has a certificate can renew it for a day after its end, and no longer.
    ends = since + _LONGEST_KNOWN if kind is Kind.CERTIFICATE else 0
    entry = Entry(kind, namespace, name, since, args.reason, ends)
    try:
        changed = owner.change_revocations(
            ours.documents,
            lambda found: found.lifting(what) if args.lift else found.adding(entry),
        )
    except rotation.RotationError as error:
        raise UsageError(str(error)) from None
    named = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
    if args.lift:
        print(f"{named} is withdrawn no more" if changed else f"{named} was not withdrawn")
    else:
        print(f"{named} is withdrawn" if changed else f"{named} was withdrawn already")
    return FINE


def _revoke_issuer(args: argparse.Namespace, ours: Owner) -> int:
    from ca import owner, rotation
    from ca.messages import MessageError, parse_fingerprint

    if args.lift:
        raise UsageError("--lift: an issuer that was withdrawn stays so")
    try:
        digest = parse_fingerprint(args.issuer).removeprefix("sha256:")
        owner.step(
            ours.documents,
            ours.signer(),
            "issuer",
            lambda bundle, standing, _without: rotation.revoke_issuer(bundle, digest, standing),
            wall(),
        )
    except (MessageError, rotation.RotationError) as error:
        raise UsageError(f"--issuer {args.issuer}: {error}") from None
    print(f"issuer {digest} is withdrawn")
    return FINE


def _what(args: argparse.Namespace) -> "tuple[Kind, str, str] | None":
    import re

    from ca.revocations import Kind
    from policy.identity import check_namespace, check_pod_name, check_service_account

    if args.certificate is not None:
        serial = args.certificate.lower().replace(":", "").lstrip("0")
        if not re.fullmatch(r"[0-9a-f]{1,40}", serial):
            raise UsageError(f"--certificate {args.certificate!r}: a serial, hexadecimal")
        return Kind.CERTIFICATE, "", serial
    for option, kind, text, check in (
        ("--pod", Kind.POD, args.pod, check_pod_name),
        ("--identity", Kind.IDENTITY, args.identity, check_service_account),
    ):
        if text is not None:
            namespace, _, name = text.partition("/")
            try:
                return kind, check_namespace(namespace), check(name)
            except ValueError as error:
                raise UsageError(f"{option} {text!r}: as shop/web-1: {error}") from None
    return None


def _list_revoked(args: argparse.Namespace, ours: Owner) -> int:
    from dataclasses import asdict

    from ca.issue import text_of
    from ca.overview import table
    from ca.revocations import read_revocations

    entries = read_revocations(ours.documents)[0].entries
    if args.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return FINE
    rows = [
        (one.kind.value, f"{one.namespace}/{one.name}".lstrip("/"), text_of(one.since), one.reason)
        for one in entries
    ]
    print("\n".join(table("withdrawn", ("what", "name", "since", "reason"), rows)))
    return FINE
