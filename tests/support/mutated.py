"""Tencrypt with a check taken out: the liar whom others must see through."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from support.processes import HarnessError
from support.tencrypt import Proxy

ROOT: Final = Path(__file__).parents[2]
Edit = tuple[str, str, str]


def mutated_run(proxy: Proxy, edits: Sequence[Edit]) -> list[str | Path]:
    """Copy the tree, edit it (file, what stands once in it, what stands there then); its command."""
    tree = proxy.pod.directory / f"{proxy.pod.label}.tree"
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("proxy", "ca", "policy"):
        shutil.copytree(ROOT / package, tree / package, ignore=ignored)
    entry = Path(shutil.copy(ROOT / "tencrypt.py", tree))
    for file, old, new in edits:
        text = (tree / file).read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise HarnessError(f"{file}: {old!r} stands in it {text.count(old)} times, not once")
        (tree / file).write_text(text.replace(old, new), encoding="utf-8")
    settings = ("--config", proxy.configuration, "--netns", proxy.pod.path)
    # The script's own folder comes first on its path, before the installed packages.
    return [sys.executable, entry, "run", *settings]
