"""What the CA's server serves, its clock, and where work is done that may block."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from ca.documents import Documents
from ca.drivers.audit import Audit
from ca.facts import ReadCrl, no_crl
from ca.grant import Office, in_turn
from ca.limits import Limit, of_refusals
from ca.signer import Signer

T = TypeVar("T")

LOOK_SECONDS: Final = 0.5
FAR_LOOK_SECONDS: Final = 2.0
"""Between two looks whether another server, or the CA's owner, has changed a record: at hand, and over a network."""

THREADS: Final = 16
"""Of each of the two kinds: what reads and writes records, and what waits for a signature."""


@dataclass(frozen=True, slots=True)
class Service:
    """What the server serves: ``life`` is that of pods' certificates, ``wall`` the clock."""

    documents: Documents
    signer: Signer
    life: timedelta
    wall: Callable[[], datetime]
    audit: Audit
    keep: Callable[[], None] | None = None
    """Asks a signer over the network whether it answers, and may block; None where key and records are at hand."""
    read_crl: ReadCrl = no_crl
    """Gives the serials that the signer's own list withdraws."""
    refusals: Limit = field(default_factory=of_refusals)
    """Who was refused too often is not even heard."""
    _workers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, "ca-work")
    )
    _signers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, "ca-sign")
    )

    @property
    def office(self) -> Office:
        """Who grants."""
        side_by_side = in_turn if self.keep is None else self._side_by_side
        return Office(self.documents, self.signer, self.life, side_by_side, self.read_crl)

    async def work(self, work: Callable[[], T]) -> T:
        """Do what may block: on the loop where all is at hand, as some 30 us a signature and a synced write a batch."""
        if self.keep is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    def _side_by_side(self, things: Sequence[Callable[[], T]]) -> list[T]:
        return list(self._signers.map(lambda thing: thing(), things))

    def close(self) -> None:
        """Begin nothing more; what was begun ends by itself."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._signers.shutdown(wait=False, cancel_futures=True)
