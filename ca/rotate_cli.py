"""`tencrypt ca rotate`: how the CA's owner replaces the root that issues."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from ca.common_cli import (
    Subparsers,
    UsageError,
    add,
    add_directory,
    add_passphrase,
    duration,
    read_passphrase,
    wall,
)
from ca.revoke_cli import Owner, owner_of
from policy.exits import FINE, NOT_SO, say

if TYPE_CHECKING:
    from cryptography import x509

    from ca.owner import Decide, Forced
    from ca.rotation import Standing
    from ca.signer import Signer
    from ca.trust import TrustRecord
    from ca.trust_bundle import TrustBundle

_ROOT_LIFE: Final = timedelta(days=3650)
_LONGEST_WAIT: Final = timedelta(days=7)
_LOOK_SECONDS: Final = 1.0
_WIDTH: Final = 30
_MOST_NAMED: Final = 20

ROTATE: Final = """\
Replaces the root that issues without an outage, one step at a time. `prepare` makes a root that every pod comes to
trust; `activate` has it issue, once every live pod has said that it does; pods renew under it by themselves; `revoke`
takes the former one out, once no live certificate is under it. `taint` is for a root that may be stolen: from then on
its word on roots counts no more. `rollback` undoes `prepare`, or goes back to the former root.

A step that pods stand in the way of names them, and changes nothing. --wait waits for them; --without leaves one out;
--force REASON waits for none, and is on record. Before `taint` and `revoke`, put the new root's fingerprint into the
settings of pods (ca_root_fingerprint): who starts with a pin on a root that is withdrawn cannot join."""

ROTATE_EXAMPLES: Final = """\
examples, in order:
  tencrypt ca rotate status --dir /srv/tencrypt-ca
  tencrypt ca rotate prepare --dir /srv/tencrypt-ca --passphrase-file pass
  tencrypt ca rotate activate --dir /srv/tencrypt-ca --passphrase-file pass --wait 10m
  tencrypt ca rotate revoke --dir /srv/tencrypt-ca --passphrase-file pass --root 3f9c --wait 1d

exit codes: 0 done; 1 failed; 2 wrong usage, or no step from here; 6 pods stand in the way"""

_STEPS: Final = {
    "prepare": "make the root that shall issue next",
    "activate": "have the next root issue",
    "taint": "a former root vouches for nothing any more",
    "revoke": "take a root out",
    "rollback": "undo `prepare`, or go back to the former root",
}


def build(commands: "Subparsers[argparse.ArgumentParser]") -> None:
    """Add the commands' parsers."""
    group = add(commands, "rotate", "replace the root", (ROTATE, ROTATE_EXAMPLES))
    steps = group.add_subparsers(title="steps", metavar="STEP", required=True)
    status = add(
        steps,
        "status",
        "roots, and where pods stand",
        (ROTATE, ROTATE_EXAMPLES),
        _status,
        "ca rotate",
    )
    add_directory(status)
    status.add_argument("--json", action="store_true", help="for programs; times in Unix seconds")
    for name, summary in _STEPS.items():
        step = add(
            steps, name, summary, (ROTATE, ROTATE_EXAMPLES), partial(_step, name), "ca rotate"
        )
        add_directory(step)
        add_passphrase(step)
        if name in {"taint", "revoke"}:
            step.add_argument("--root", required=True, help="the beginning of its fingerprint")
        if name in {"activate", "revoke", "rollback"}:
            step.add_argument("--wait", metavar="TIME", help="for pods, as 10m")
            step.add_argument(
                "--without", metavar="NS/POD", action="append", default=[], help="leave a pod out"
            )
            step.add_argument("--force", metavar="REASON", help="wait for no pod")


def _status(args: argparse.Namespace) -> int:
    from ca import owner

    record, standing = owner.look(owner_of(args).documents, wall())
    print(
        json.dumps(_to_json(record, standing), indent=2) if args.json else _draw(record, standing)
    )
    return FINE


def _step(name: str, args: argparse.Namespace) -> int:
    from ca import owner, rotation

    ours = owner_of(args)
    try:
        if name == "rollback" and owner.take_back(ours.documents):
            print("taken back: a step that was begun and not finished")
            return FINE
        signer = ours.signer()
        decide = _decide(name, args, ours)
        bundle = _patiently(args, lambda forced: _carry_out(name, ours, signer, decide, forced))
    except rotation.GateError as error:
        _name(error.missing)
        return say(f"ca rotate {name}: {error}: nothing was changed", NOT_SO)
    except rotation.RotationError as error:
        raise UsageError(str(error)) from None
    _forget(name, ours, bundle)
    record, standing = owner.look(ours.documents, wall())
    print(_draw(record, standing))
    return FINE


def _carry_out(
    name: str, ours: Owner, signer: "Signer", decide: "Decide", forced: "Forced"
) -> "TrustBundle":
    from ca import owner

    return owner.step(ours.documents, signer, name, decide, wall(), forced=forced)


def _decide(name: str, args: argparse.Namespace, ours: Owner) -> "Decide":
    from ca import rotation

    if name == "prepare":
        root = _make_root(ours)
        return lambda bundle, _standing, _without: rotation.prepare(bundle, root)
    if name == "taint":
        return lambda bundle, _standing, _without: rotation.taint(bundle, args.root)
    if name == "revoke":
        return lambda bundle, standing, without: rotation.revoke(
            bundle, args.root, standing, without
        )
    return rotation.activate if name == "activate" else rotation.rollback


def _make_root(ours: Owner) -> "x509.Certificate":
    """Make the next root where the others are; raises where there is one already, before it makes any."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from ca import rotation, vault_cli
    from ca.certificates import Issuer, make_root
    from ca.drivers import file_backend
    from ca.trust import read_trust

    bundle = read_trust(ours.documents).bundle
    number = int(wall().timestamp())  # an attempt that was interrupted has used up another
    settings = file_backend.vault_settings(ours.directory)
    key = ec.generate_private_key(ec.SECP256R1())
    root = make_root(key, bundle.trust_domain, wall(), _ROOT_LIFE, number)
    rotation.prepare(bundle, root)
    if settings is not None:
        return vault_cli.make_next_root(settings, number)
    file_backend.add_root(ours.directory, Issuer(root, key), read_passphrase(ours.passphrase_file))
    return root


def _forget(name: str, ours: Owner, bundle: "TrustBundle") -> None:
    """Delete the keys of roots that are trusted no more, where they are ours to delete."""
    from ca.drivers import file_backend

    if name in {"revoke", "rollback"} and not file_backend.vault_settings(ours.directory):
        file_backend.forget_roots(ours.directory, bundle.trusted)


def _patiently(
    args: argparse.Namespace, attempt: "Callable[[Forced], TrustBundle]"
) -> "TrustBundle":
    """Attempt until no pod stands in the way, for as long as is asked; show how many do."""
    from ca import rotation
    from ca.owner import Forced

    given = vars(args)
    forced = Forced(tuple(given.get("without") or ()), given.get("force") or "")
    patience = (
        timedelta() if given.get("wait") is None else duration("--wait", args.wait, _LONGEST_WAIT)
    )
    until = wall() + patience
    shown = -1
    while True:
        try:
            return attempt(forced)
        except rotation.GateError as error:
            if wall() >= until:
                raise
            if len(error.missing) != shown:
                shown = len(error.missing)
                print(f"waiting: {error}", file=sys.stderr, flush=True)
        time.sleep(_LOOK_SECONDS)


def _to_json(record: "TrustRecord", standing: "Standing") -> dict[str, object]:
    bundle = record.bundle
    return {
        "version": bundle.version,
        "hash": record.vouched.hash,
        "is_proposed": bool(record.proposed),
        "roots": [
            {
                "fingerprint": root.fingerprint,
                "state": root.state.value,
                "not_after": int(root.certificate.not_valid_after_utc.timestamp()),
                "pods": sorted(standing.under.get(root.fingerprint, ())),
            }
            for root in bundle.roots
        ],
        "pods": {"live": len(standing.live), "missing": sorted(standing.missing)},
    }


def _draw(record: "TrustRecord", standing: "Standing") -> str:
    from ca.overview import table

    bundle = record.bundle
    rows = [
        (
            root.state.value,
            root.fingerprint[:16],
            f"{root.certificate.not_valid_after_utc:%Y-%m-%d}",
            str(len(standing.under.get(root.fingerprint, ()))),
        )
        for root in bundle.roots
    ]
    lines = table(f"roots, version {bundle.version}", ("state", "root", "ends", "pods"), rows)
    live, there = len(standing.live), len(standing.live) - len(standing.missing)
    full = _WIDTH * there // live if live else _WIDTH
    bar = "█" * full + "░" * (_WIDTH - full)
    lines += ["", f"{bar} {there} of {live} pods go by these roots"]
    lines += [f"  not yet: {name}" for name in sorted(standing.missing)[:_MOST_NAMED]]
    if record.proposed:
        lines += [
            "",
            "a step was begun and not finished: the next one takes its place, `rollback` takes it back",
        ]
    return "\n".join(lines)


def _name(missing: tuple[str, ...]) -> None:
    for one in missing[:_MOST_NAMED]:
        print(f"  {one}", file=sys.stderr)
    if len(missing) > _MOST_NAMED:
        print(f"  and {len(missing) - _MOST_NAMED} more", file=sys.stderr)
