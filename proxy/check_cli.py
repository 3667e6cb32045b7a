"""`tencrypt check`: whether a pod is ready for what is to come."""

import argparse
import re
from pathlib import Path
from typing import Final

from proxy.cli import FINE, RUN_DIRECTORY, ask_proxy

NOT_READY: Final = 6

_CHECK: Final = """\
Asks a running proxy whose encryption is permissive what strict would refuse: the flows in clear that its kernel has
counted, with whom, and what to do about each. Counts reach back 24 hours at most, and to the proxy's start."""

_EXAMPLES: Final = """\
examples:
  tencrypt check --ready-for strict
  tencrypt check --ready-for strict --since 10m     # after something was mended
  tencrypt check --ready-for strict --json

exit codes: 0 ready, 1 no proxy answers, 2 wrong usage, 6 not ready"""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_SINCE: Final = re.compile(r"([1-9][0-9]{0,5})([smh])")


def build(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group's parser; it sets ``func``, which returns the exit code."""
    check = subparsers.add_parser(
        "check",
        help="whether a pod is ready for what is to come",
        description=_CHECK,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("--ready-for", choices=("strict",), required=True, help="what is to come")
    check.add_argument(
        "--since", type=_since, default=86_400, metavar="TIME", help="only flows that young, as 10m"
    )
    check.add_argument(
        "--socket",
        metavar="PATH",
        type=Path,
        help=f"the proxy's socket; found in {RUN_DIRECTORY} where there is one",
    )
    check.add_argument(
        "--json", action="store_true", help="print what the proxy answered, for programs"
    )
    check.set_defaults(func=_check)


def _since(text: str) -> int:
    found = _SINCE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: a time as 30s, 10m or 2h")
    return int(found[1]) * _UNITS[found[2]]


def _check(args: argparse.Namespace) -> int:
    from proxy import strictness

    def draw(answer: dict[str, object]) -> tuple[str, int]:
        text, ready = strictness.draw(answer)
        return text, FINE if ready else NOT_READY

    return ask_proxy("check", args, "GET", f"/v1/ready-for-strict?since={args.since}", draw)
