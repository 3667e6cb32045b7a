"""`tencrypt status`, `rekey`, `verify`, `explain` and `check`: what is asked of a running proxy."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlencode

from policy.exits import FAILED, FINE, LEAK, NOT_SO, WRONG, say

Ask = Callable[[argparse.Namespace], int]


class Question(NamedTuple):
    """What a proxy is asked over its socket."""

    method: str
    url: str
    body: bytes | None = None


RUN_DIRECTORY: Final = Path("/run/tencrypt")

_STATUS: Final = """\
Asks a running proxy for its sessions (peer, cipher, key-exchange group, age, bytes), for what it refused
and why, and for the remaining life of its certificate."""

_STATUS_EXAMPLES: Final = """\
examples:
  tencrypt status
  tencrypt status --socket /run/tencrypt/shop.nginx1.sock --json"""

_REKEY: Final = """\
Begins a new session, with new keys, beside each one that a running proxy has, and waits until it has taken over.
No packet is lost; where no handshake succeeds within 5 s, the session there is stays in use (exit code 1)."""

_REKEY_EXAMPLES: Final = """\
examples:
  tencrypt rekey
  tencrypt rekey nginx2 --socket /run/tencrypt/shop.nginx1.sock"""

_VERIFY: Final = """\
Proves that traffic with a peer is encrypted: lets random canaries run there and back by ordinary TCP and UDP
sockets, while both pods look at what passes their interfaces. Both need verify = "project" in their settings.
Takes about a second.

exit codes: 0 proven, 1 no proxy answers, 5 a leak: something was outside in clear, 6 not proven (and why)"""

_VERIFY_EXAMPLES: Final = """\
examples:
  tencrypt verify nginx2
  tencrypt verify 10.0.0.2 --socket /run/tencrypt/shop.nginx1.sock --json"""

_EXPLAIN: Final = """\
Asks a running proxy what would become of a packet: encrypted, bypassed (in clear), refused or local, and by which
fact. What packets would have looked up is looked up."""

_EXPLAIN_EXAMPLES: Final = """\
examples:
  tencrypt explain nginx2.shop.svc.cluster.local 80
  tencrypt explain 10.0.0.2 5432 --json"""

_CHECK: Final = """\
Asks a running proxy whose encryption is permissive what strict would refuse: the flows in clear that its kernel has
counted, with whom, and what to do about each. Counts reach back 24 hours at most, and to the proxy's start."""

_CHECK_EXAMPLES: Final = """\
examples:
  tencrypt check --ready-for strict
  tencrypt check --ready-for strict --since 10m     # after something was mended
  tencrypt check --ready-for strict --json

exit codes: 0 ready, 1 no proxy answers, 2 wrong usage, 6 not ready"""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_SINCE: Final = re.compile(r"([1-9][0-9]{0,5})([smh])")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of whatever asks a running proxy."""
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=Path,
        help=f"the proxy's socket; found in {RUN_DIRECTORY} where there is one",
    )
    parser.add_argument(
        "--json", action="store_true", help="print what the proxy answered, for programs"
    )


def build(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group's parsers; each sets ``func``, which returns the exit code."""

    def command(
        name: str, func: Ask, what: str, text: str, examples: str
    ) -> argparse.ArgumentParser:
        parser = subparsers.add_parser(
            name,
            help=what,
            description=text,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_options(parser)
        parser.set_defaults(func=func)
        return parser

    command("status", _status, "ask a running proxy", _STATUS, _STATUS_EXAMPLES)
    rekey = command(
        "rekey",
        _rekey,
        "renew a running proxy's sessions now",
        _REKEY,
        _REKEY_EXAMPLES,
    )
    rekey.add_argument("pod", metavar="POD", nargs="?", help="only the sessions with this pod")
    verify = command(
        "verify",
        _verify,
        "prove that traffic with a peer is encrypted",
        _VERIFY,
        _VERIFY_EXAMPLES,
    )
    verify.add_argument(
        "peer", metavar="PEER", help="a pod to which there is a session, or any member's address"
    )
    explain = command(
        "explain",
        _explain,
        "say what becomes of packets to an address or a name, and why",
        _EXPLAIN,
        _EXPLAIN_EXAMPLES,
    )
    explain.add_argument("target", metavar="ADDRESS|NAME", help="an address, or a whole DNS name")
    explain.add_argument("port", metavar="PORT", nargs="?", type=_port, help="the destination port")
    explain.add_argument(
        "--protocol", choices=("tcp", "udp", "sctp", "icmp"), default="tcp", help="tcp if left out"
    )
    check = command(
        "check",
        _check,
        "whether a pod is ready for what is to come",
        _CHECK,
        _CHECK_EXAMPLES,
    )
    check.add_argument("--ready-for", choices=("strict",), required=True, help="what is to come")
    check.add_argument(
        "--since", type=_since, default=86_400, metavar="TIME", help="only flows that young, as 10m"
    )


def _status(args: argparse.Namespace) -> int:
    from proxy.status import draw

    return ask_proxy(
        "status", args, Question("GET", "/v1/status"), lambda answer: (draw(answer), FINE)
    )


def _rekey(args: argparse.Namespace) -> int:
    from proxy import rekey

    def draw(answer: dict[str, object]) -> tuple[str, int]:
        if args.pod is not None and answer["sessions"] == []:
            return f"no session with {args.pod}", FAILED
        text, fine = rekey.draw(answer)
        return text, FINE if fine else FAILED

    query = urlencode({} if args.pod is None else {"pod": args.pod})
    return ask_proxy("rekey", args, Question("POST", f"/v1/rekey?{query}"), draw)


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text}: a port from 1 to 65535")
    return int(text)


def _explain(args: argparse.Namespace) -> int:
    from proxy import explain

    query = {"target": args.target, "protocol": explain.PROTOCOLS[args.protocol]}
    if args.port is not None:
        query["port"] = args.port
    url = f"/v1/explain?{urlencode(query)}"
    return ask_proxy(
        "explain", args, Question("GET", url), lambda answer: (explain.draw(answer), FINE)
    )


def _verify(args: argparse.Namespace) -> int:
    from proxy.verify import verdict

    codes = {verdict.PROVEN: FINE, verdict.LEAK: LEAK}

    def draw(answer: dict[str, object]) -> tuple[str, int]:
        return verdict.draw(answer), codes.get(str(answer["verdict"]), NOT_SO)

    return ask_proxy(
        "verify", args, Question("POST", f"/v1/verify?{urlencode({'peer': args.peer})}"), draw
    )


def _since(text: str) -> int:
    found = _SINCE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: a time as 30s, 10m or 2h")
    return int(found[1]) * _UNITS[found[2]]


def _check(args: argparse.Namespace) -> int:
    from proxy import strictness

    def draw(answer: dict[str, object]) -> tuple[str, int]:
        text, ready = strictness.draw(answer)
        return text, FINE if ready else NOT_SO

    return ask_proxy(
        "check", args, Question("GET", f"/v1/ready-for-strict?since={args.since}"), draw
    )


def ask_proxy(
    name: str,
    args: argparse.Namespace,
    question: Question,
    draw: Callable[[dict[str, object]], tuple[str, int]],
) -> int:
    """Ask the proxy whose socket is named, or the only one there is; print what it says, and give ``draw``'s code."""
    from proxy.drivers import admin

    path: Path | None = args.socket
    if path is None:
        there = sorted(RUN_DIRECTORY.glob("*.sock")) if RUN_DIRECTORY.is_dir() else []
        if len(there) != 1:
            listing = ", ".join(map(str, there)) or f"none in {RUN_DIRECTORY}"
            return say(f"{name}: name one proxy's socket with --socket: {listing}", WRONG)
        path = there[0]
    try:
        answer = admin.ask(path, question.method, question.url, question.body)
        text, code = draw(answer)
        print(json.dumps(answer, indent=2) if args.json else text)
    except OSError as error:
        return say(f"{name}: no proxy answers at {path}: {error.strerror or error}", FAILED)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        return say(f"{name}: {path} is not a proxy of this version: {error}", FAILED)
    return code
