"""What a run was made on, and what is read of processes and processors while it runs."""

import json
import os
import platform
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from support.namespaces import Namespace
from support.processes import HarnessError, run

TREE: Final = Path(__file__).parent.parent
TICKS: Final = os.sysconf("SC_CLK_TCK")
IDLE_FIELDS: Final = (3, 4)
"""Idle and waiting for a disk, in the first line of /proc/stat (proc(5))."""
GUEST_FIELD: Final = 8
"""From here on fields are counted in others already."""


def head() -> dict[str, str]:
    """Describe the machine and the moment."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    now = datetime.now(UTC)
    return {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "cpu": model[1] if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "vaes": "yes" if re.search(r"^flags.*\bvaes\b", text, re.MULTILINE) else "no",
        "kernel": f"{platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.2f} before the run",
    }


def commit() -> str:
    """Give the commit of the tree, marked where files differ from it."""
    try:
        return run(
            ["git", "-C", TREE, "describe", "--always", "--dirty", "--abbrev=10"]
        ).stdout.strip()
    except HarnessError:
        return "no git"


def processor_seconds(pids: Iterable[int]) -> float:
    """Give what processes with all their threads have spent, user and system (proc(5), stat)."""
    ticks = 0
    for pid in pids:
        fields = _of_process(pid, "stat").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def busy_seconds() -> float:
    """Give what all processors together have not been idle since the machine started."""
    line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    fields = enumerate(map(int, line[:GUEST_FIELD]))
    return sum(ticks for number, ticks in fields if number not in IDLE_FIELDS) / TICKS


def resident_megabytes(pids: Iterable[int]) -> float:
    """Give the memory of one pod's processes: the largest's, and what each other holds alone.

    What a forked process still shares with its parent is so counted once (smaps_rollup, proc(5)).
    """
    kilobytes = []
    for pid in pids:
        text = _of_process(pid, "smaps_rollup")
        sizes = {
            key: int(size) for key, size in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)
        }
        kilobytes.append((sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"]))
    kilobytes.sort(reverse=True)
    return (kilobytes[0][0] + sum(alone for _, alone in kilobytes[1:])) / 1024


def sent_bytes(place: Namespace, device: str = "eth0") -> int:
    """Give what has left by a device of a namespace."""
    done = run(["ip", "-netns", place.name, "-json", "-statistics", "link", "show", device])
    return int(json.loads(done.stdout)[0]["stats64"]["tx"]["bytes"])


def _of_process(pid: int, name: str) -> str:
    """Read what the kernel tells of a peer's process, which may have ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise HarnessError(f"a process of the peer has ended: {error}") from error
