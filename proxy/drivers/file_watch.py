"""A file that people or Kubernetes change while we run: read now, and whenever it is another."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from proxy.flow.endpoints_file import LARGEST_FILE

PACE: Final = 1.0
"""Seconds between looks: a mounted ConfigMap changes by a symbolic link, which inotify would have to follow."""

_SMALL: Final = 4096


async def watch(
    path: Path,
    take: Callable[[str | OSError], Awaitable[None]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Give ``take`` the file's text, or why it cannot be read, at once and after each change; never returns.

    A change is given once two looks found the same: an editor or a shell writes in place, and a file of rules that is
    seen empty, or cut between two of them, would say that what it is about to forbid is allowed.
    """
    given = before = _state(path)
    await take(read(path))
    while True:
        await sleep(PACE)
        now = _state(path)
        if now == before != given:
            text = read(path)
            if _state(path) == now:
                given = now
                await take(text)
        before = now


def read(path: Path) -> str | OSError:
    """Return the text, or why it cannot be read; a little more of it than any parser takes, at most."""
    try:
        with path.open("rb") as opened:
            return opened.read(LARGEST_FILE + 1).decode("utf-8", "replace")
    except OSError as error:
        return error


def read_json(path: Path) -> dict[str, object] | None:
    """Return the object that a small file holds; None without one."""
    try:
        value = json.loads(path.read_bytes()[:_SMALL])
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return {str(key): str(text)[:200] for key, text in value.items()}


def _state(path: Path) -> object:
    """Return what is different once the file is."""
    try:
        stat = path.stat()
    except OSError as error:
        return error.errno
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
