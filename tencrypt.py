"""Tencrypt's one command: names its groups and loads only the one that is called."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

__version__ = "0.1.0.dev0"
GROUPS: Final = {
    "run": ("proxy.cli", "run a pod's proxy: everything it says to its project leaves encrypted"),
    "status": ("proxy.ask_cli", "ask a running proxy for its sessions, counters and certificate"),
    "rekey": ("proxy.ask_cli", "begin new sessions, with new keys, beside those of a proxy"),
    "verify": ("proxy.ask_cli", "prove that traffic with a peer is encrypted"),
    "explain": ("proxy.ask_cli", "say what becomes of packets to an address or a name, and why"),
    "check": ("proxy.ask_cli", "whether a pod is ready for strict encryption"),
    "cert": ("proxy.cert_cli", "the pod's certificate: show, verify any, rotate now"),
    "net": ("proxy.net_cli", "what the kernel holds for a pod: plan, up, down, show, break-glass"),
    "ca": ("ca.cli", "the project's certificate authority: init, serve, token, show, backup"),
}
"""Command to the module whose ``build(subparsers)`` adds its parser, and its line of help."""

DESCRIPTION: Final = """\
Encrypts and authenticates the traffic between the pods of one project (namespace) with no change to any image. Each
pod runs a proxy (`run`); a small certificate authority (`ca`) gives each its identity. All else is left alone."""

EPILOG: Final = """\
examples:
  tencrypt ca init /srv/tencrypt-ca --trust-domain shop.example --passphrase-file pass
  tencrypt run --config pod.toml

exit codes:
  0    done, or stopped in order
  1    failed while it ran
  2    wrong usage or configuration: nothing was set up
  3    the certificate authority refused, or could not be reached
  4    this machine lacks something: a privilege, a device, a program, a free port
  130  interrupted from the keyboard
`tencrypt COMMAND --help` says more about each command, and what else it may end with."""


def parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser with the group of ``command`` loaded and the others only named."""
    top = argparse.ArgumentParser(
        prog="tencrypt",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"tencrypt {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    loaded = GROUPS[command][0] if command in GROUPS else None
    for name, (module, summary) in GROUPS.items():
        if module != loaded:
            subparsers.add_parser(name, help=summary)
    if loaded is not None:
        importlib.import_module(loaded).build(subparsers)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Help and wrong usage raise SystemExit (0, 2)."""
    words = sys.argv[1:] if argv is None else list(argv)
    command = next((word for word in words if not word.startswith("-")), None)
    try:
        try:
            args = parser(command).parse_args(words)
            return int(args.func(args))
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
