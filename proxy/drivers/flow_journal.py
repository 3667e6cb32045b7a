"""Which endpoint each flow has, where a daemon that was killed leaves it to the next: a file in memory.

One slot of 64 bytes a flow, written in place when it begins and emptied when it is forgotten: no call of the kernel for
either. The name's length comes last, so that what was cut short counts as empty. What is read is believed in nothing
but its form: `proxy.flow.translation` takes up what belongs to a connection that is open.
"""

import contextlib
import logging
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.drivers import logs
from proxy.flow.flows import MOST_FLOWS
from proxy.packet.rewrite import End

_SLOT: Final = 64
_SIZE: Final = MOST_FLOWS * _SLOT
_NAME_SIZES: Final = {13: 4, 37: 16}
"""Of flows' names, each with the size of its addresses."""


class FlowJournal:
    """The file of one table of flows; without one, where it cannot be had, nothing is noted."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it."""
        self._slots: dict[bytes, int] = {}
        self._free: list[int] = []
        self._next = 0
        self._memory: mmap.mmap | None = None
        self._left: list[tuple[bytes, End]] = []
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with contextlib.closing(os.fdopen(descriptor, "r+b")) as opened:
                self._left = list(_read(opened.read(_SIZE)))
                # Emptied so, it has pages for those slots alone that are written.
                os.ftruncate(opened.fileno(), 0)
                os.ftruncate(opened.fileno(), _SIZE)
                self._memory = mmap.mmap(opened.fileno(), _SIZE)
        except (OSError, ValueError) as error:
            logs.event("no_flow_journal", logging.WARNING, file=str(path), message=str(error))

    def take(self) -> list[tuple[bytes, End]]:
        """Return, once, what another daemon left: names of flows and their endpoints."""
        left, self._left = self._left, []
        return left

    def opened(self, name: bytes, target: End) -> None:
        """Note a flow."""
        memory = self._memory
        if memory is None or len(name) not in _NAME_SIZES:
            return
        if self._free:
            at = self._free.pop()
        elif self._next < _SIZE:
            at, self._next = self._next, self._next + _SLOT
        else:
            return
        self._slots[name] = at
        text = name + target.address + target.port.to_bytes(2, "big")
        memory[at + 1 : at + 1 + len(text)] = text
        memory[at] = len(name)

    def closed(self, name: bytes) -> None:
        """Forget it."""
        at = self._slots.pop(name, None)
        if at is not None and self._memory is not None:
            self._memory[at] = 0
            self._free.append(at)


def _read(memory: bytes) -> Iterator[tuple[bytes, End]]:
    for at in range(0, len(memory) - _SLOT + 1, _SLOT):
        size = memory[at]
        length = _NAME_SIZES.get(size)
        if length is not None:
            name, rest = memory[at + 1 : at + 1 + size], memory[at + 1 + size : at + _SLOT]
            yield name, End(rest[:length], int.from_bytes(rest[length : length + 2], "big"))
