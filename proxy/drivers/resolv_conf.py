"""Rewrites resolv.conf in place, and puts it back: where queries cannot be redirected by the kernel."""

from collections.abc import Callable
from pathlib import Path

from proxy.dns.resolv import diverted, restored


def divert(path: Path) -> None:
    """Name our listeners in the place of the nameservers. Raises OSError."""
    _rewrite(path, diverted)


def restore(path: Path) -> None:
    """Undo `divert`, whoever did it and whatever has been written since; nothing where nobody did. Raises OSError."""
    _rewrite(path, restored)


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    def changed(before: bytes) -> bytes:
        text = before.decode(errors="surrogateescape")
        return change(text).encode(errors="surrogateescape")

    before = path.read_bytes()
    if changed(before) == before:  # so that a file that needs nothing may be read-only
        return
    # In place: it is often one file bound into a container, which a new one in its stead would leave behind.
    with path.open("r+b") as opened:
        before = opened.read()
        after = changed(before)
        opened.seek(0)
        # Empty lines cover what is longer, until it is cut off: killed between the two, nothing of it is left.
        opened.write(after.ljust(len(before), b"\n"))
        opened.flush()
        opened.truncate(len(after))
