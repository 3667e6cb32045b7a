"""What the CA's server serves, and its clock."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from ca.drivers.audit import Audit
from ca.roster import RosterStore
from ca.signer import Signer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Service:
    """What the server serves: ``life`` is that of pods' certificates, ``wall`` the clock."""

    store: RosterStore
    signer: Signer
    life: timedelta
    wall: Callable[[], datetime]
    audit: Audit
    keep: Callable[[], None] | None = None
    """Asks a signer over the network whether it answers, and may block; None for a key at hand."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Do what reads records, has something signed and writes records, with nothing in between, as `ca.issue` asks.

        Signing with a key at hand takes some 30 us and a synced write, and is done on the loop; a signer that may
        block has a thread meanwhile.
        """
        if self.keep is None:
            return work()
        # Who waits for its turn may go; what was begun goes on, and nobody else begins before it is over.
        await self._turn.acquire()
        begun = asyncio.get_running_loop().create_task(self._in_thread(work))
        begun.add_done_callback(_heed)
        return await asyncio.shield(begun)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        finally:
            self._turn.release()


def _heed(task: asyncio.Task[T]) -> None:
    """Look at what came of it, which nobody may be waiting for any more."""
    if not task.cancelled():
        task.exception()
