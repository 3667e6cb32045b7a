"""What the commands of `tencrypt ca` share: their parsers, errors of one line, durations, passphrases."""

import argparse
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from policy.exits import FAILED, LACKING, WRONG, say

PASSPHRASE_VARIABLE: Final = "TENCRYPT_CA_PASSPHRASE"  # noqa: S105 - a variable's name

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LARGEST_PASSPHRASE: Final = 1024

Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


class UsageError(Exception):
    """Wrong usage or configuration; one line."""


def add(  # noqa: PLR0913, PLR0917 - a command in full
    subparsers: "Subparsers[argparse.ArgumentParser]",
    name: str,
    summary: str,
    texts: tuple[str, str],
    command: Callable[[argparse.Namespace], int] | None = None,
    group: str = "ca",
) -> argparse.ArgumentParser:
    """Add a command of a group with its description and examples; return its parser."""
    description, epilog = texts
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command is not None:
        parser.set_defaults(func=told_in_one_line(f"{group} {name}", command))
    return parser


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the CA's directory."""
    parser.add_argument(
        "--dir", metavar="DIR", type=Path, required=True, help="made by `tencrypt ca init`"
    )


def add_passphrase(parser: argparse.ArgumentParser) -> None:
    """Add the option that `read_passphrase` goes by."""
    parser.add_argument(
        "--passphrase-file",
        metavar="F",
        type=Path,
        help=f"its first line is the passphrase; otherwise {PASSPHRASE_VARIABLE}",
    )


def told_in_one_line(
    name: str, command: Callable[[argparse.Namespace], int]
) -> Callable[[argparse.Namespace], int]:
    """Return the command with each of its errors told in one line, and its exit code."""

    def run(args: argparse.Namespace) -> int:
        from ca.documents import StateError
        from ca.drivers.file_documents import DirectoryError
        from ca.signer import SignerError
        from policy.settings_source import SettingsError

        try:
            return command(args)
        except (UsageError, DirectoryError, SettingsError) as error:
            return say(f"{name}: {error}", WRONG)
        except (SignerError, StateError) as error:
            return say(f"{name}: {error}", FAILED)
        except BrokenPipeError:  # the reader has seen enough; the entry ends quietly
            raise
        except OSError as error:
            code = LACKING if isinstance(error, PermissionError) else FAILED
            return say(f"{name}: {error.filename}: {error.strerror}", code)

    return run


def wall() -> datetime:
    """Return the time."""
    return datetime.now(UTC)  # noqa: TID251 - the one place that reads the clock for the CA


def checked(option: str, text: str, check: Callable[[str], str]) -> str:
    """Return an option's text as ``check`` gives it; raises `UsageError`."""
    try:
        return check(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}") from None


def duration(option: str, text: str, longest: timedelta) -> timedelta:
    """Return what an option as 30m or 24h means; raises `UsageError`."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text, re.ASCII)
    life = timedelta(seconds=int(match[1]) * _UNITS[match[2]]) if match else timedelta()
    if not timedelta() < life <= longest:
        raise UsageError(f"{option} {text!r}: as 30m, 24h or 7d, at most {longest.days}d")
    return life


def read_passphrase(path: Path | None) -> bytes:
    """Return the passphrase of a file or the environment; the file counts where both are given."""
    if path is None:
        passphrase = os.environb.get(PASSPHRASE_VARIABLE.encode(), b"")
        if not passphrase:
            raise UsageError(f"no passphrase: give --passphrase-file or set {PASSPHRASE_VARIABLE}")
    else:
        passphrase = _first_line(path)
    if not 0 < len(passphrase) <= _LARGEST_PASSPHRASE:
        where = path or PASSPHRASE_VARIABLE
        raise UsageError(f"{where}: a passphrase of 1 to {_LARGEST_PASSPHRASE} bytes")
    return passphrase


def _first_line(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # Refused like a token file: a warning would scroll by, and the mode stay.
            if os.fstat(file.fileno()).st_mode & 0o004:
                raise UsageError(f"{path}: every user can read it: chmod o= {path}")
            return file.readline(_LARGEST_PASSPHRASE + 2).rstrip(b"\r\n")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
