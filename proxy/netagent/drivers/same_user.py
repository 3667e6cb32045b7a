"""Who else runs as the daemon's user in this network namespace: what it sends from the session port may leave."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.netagent.settings import PlanError

PATIENCE: Final = 3.0
"""Seconds for the daemon of an agent that was killed to end: it hears of that at once."""

_PACE: Final = 0.05
_PROC: Final = Path("/proc")
_OF_NAMESPACE: Final = "net/dev"
"""Whose inode is the network namespace's own; unlike ns/net it may be looked at without CAP_SYS_PTRACE."""


def require_none(uid: int) -> None:
    """Return if there is no such process that we can see; raises PlanError, which names one."""
    deadline = _now() + PATIENCE
    while found := next(_others(uid), None):
        if _now() > deadline:
            raise PlanError(
                f"daemon_uid = {uid}: {found} runs as this user here: one that no other program of the pod has"
            )
        time.sleep(_PACE)


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - before there is any event loop


def _others(uid: int) -> Iterator[str]:
    here = (_PROC / "thread-self" / _OF_NAMESPACE).stat().st_ino
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if (process / _OF_NAMESPACE).stat().st_ino != here:
                continue
            text = (process / "status").read_text("utf-8", errors="replace")
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            # Real, effective, saved and of files: it may take any.
            if str(uid) in fields["Uid"].split():
                yield f"{fields['Name'].strip()} (PID {process.name})"
