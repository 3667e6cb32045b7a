"""`tencrypt cert`: what a pod proves itself with, and what it would say of others."""

import argparse
from pathlib import Path
from typing import Final

from policy.exits import FAILED, FINE, NOT_SO, WRONG, say
from proxy.ask_cli import Ask, Question, add_options, ask_proxy

_LARGEST_FILE: Final = 65_536

_CERT: Final = """\
What a running pod proves itself with. Its key is in memory alone and is shown by nothing."""

_EXAMPLES: Final = """\
examples:
  tencrypt cert show
  tencrypt cert verify peer.pem
  tencrypt cert rotate --socket /run/tencrypt/shop.nginx1.sock

exit codes: 0 done, or accepted; 1 no proxy answers, or the CA gave no certificate; 2 wrong usage; 6 refused"""

_SHOW: Final = "Shows the pod's chain as a tree from the root down, other roots that it trusts, and when it is renewed."
_VERIFY: Final = """\
Says what this pod would say of a certificate, were a peer to show it now, and why. FILE holds PEM, leaf first."""
_ROTATE: Final = """\
Has a fresh key certified now and begins new sessions with it; open connections notice nothing. Where the CA gives no
certificate, the one in use stays (exit code 1)."""


def build(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group's parser; each command sets ``func``, which returns the exit code."""
    group = subparsers.add_parser(
        "cert",
        help="the pod's certificate: show, verify, rotate",
        description=_CERT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, func: Ask, what: str, text: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(
            name,
            help=what,
            description=text,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_options(parser)
        parser.set_defaults(func=func)
        return parser

    command("show", _show, "what the pod holds", _SHOW)
    verify = command("verify", _verify, "what the pod would say of a certificate", _VERIFY)
    verify.add_argument("file", metavar="FILE", help="certificates in PEM, leaf first")
    command("rotate", _rotate, "renew it now", _ROTATE)


def _show(args: argparse.Namespace) -> int:
    from proxy import cert

    question = Question("GET", "/v1/certificate")
    return ask_proxy("cert show", args, question, lambda answer: (cert.draw(answer), FINE))


def _verify(args: argparse.Namespace) -> int:
    from proxy import cert

    try:
        with Path(args.file).open("rb") as file:
            pem = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        return say(f"cert verify: {args.file}: {error.strerror}", WRONG)
    if len(pem) > _LARGEST_FILE:
        return say(f"cert verify: {args.file}: larger than {_LARGEST_FILE} bytes", WRONG)

    def draw(answer: dict[str, object]) -> tuple[str, int]:
        return cert.draw_verdict(answer), FINE if answer["accepted"] else NOT_SO

    return ask_proxy("cert verify", args, Question("POST", "/v1/certificate/judge", pem), draw)


def _rotate(args: argparse.Namespace) -> int:
    def draw(answer: dict[str, object]) -> tuple[str, int]:
        if answer["renewed"]:
            return f"renewed: certificate {answer['serial']}", FINE
        return f"not renewed, {answer['serial']} stays in use: {answer['error']}", FAILED

    return ask_proxy("cert rotate", args, Question("POST", "/v1/certificate/rotate"), draw)
