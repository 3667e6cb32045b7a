"""Rewrites resolv.conf in place, and puts it back: where queries cannot be redirected by the kernel."""

from pathlib import Path

from proxy.dns.resolv import diverted, restored


def divert(path: Path) -> None:
    """Name our listeners in the place of the nameservers. Raises OSError."""
    _rewrite(path, diverted(path.read_text(encoding="utf-8", errors="surrogateescape")))


def restore(path: Path) -> None:
    """Undo `divert`, whoever did it and whatever has been written since; nothing where nobody did. Raises OSError."""
    _rewrite(path, restored(path.read_text(encoding="utf-8", errors="surrogateescape")))


def _rewrite(path: Path, text: str) -> None:
    before = path.read_bytes()
    after = text.encode(errors="surrogateescape")
    if after == before:
        return
    # In place: it is often one file bound into a container, which a new one in its stead would leave behind.
    with path.open("r+b") as opened:
        opened.write(after)
        opened.truncate()
