"""nftables through the program `nft`, each change one transaction."""

from __future__ import annotations

import shutil
import subprocess

from proxy.netagent.errors import MachineLacksError, NetAgentError
from proxy.netagent.plan import NFT_TABLE

# Where PATH leaves the system's folders out, as it does for a user's sudo on Debian.
_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"
_SECONDS = 30


def find_nft() -> str:
    """Return the program's path. Raises MachineLacksError."""
    found = shutil.which("nft", path=_FOLDERS)
    if found is None:
        raise MachineLacksError("the program nft is missing (Debian package nftables)")
    return found


def apply(text: str) -> None:
    """Carry `text` out whole or not at all. Raises NetAgentError."""
    _run("-f", "-", text=text)


def has_table() -> bool:
    """Say whether our table is there."""
    return f"table inet {NFT_TABLE}" in _run("list", "tables", "inet").splitlines()


def delete_table() -> None:
    """Remove our table, if it is there."""
    apply(f"table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n")


def _run(*arguments: str, text: str = "") -> str:
    command = [find_nft(), *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - fixed program and arguments, no shell
            command, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetAgentError(f"cannot run nft: {error}") from error
    if done.returncode == 0:
        return done.stdout
    reason = " ".join(done.stderr.split())
    if "Operation not permitted" in reason:
        raise MachineLacksError(
            "cannot change nftables: needs CAP_NET_ADMIN in this network namespace"
        )
    raise NetAgentError(f"nft failed: {reason}")
