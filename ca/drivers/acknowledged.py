"""Which bundle each pod goes by, as it says in its poll: put on record, those that come together by one write."""

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from typing import Final

from ca.documents import StateError
from ca.drivers.service import Service
from ca.lease import Lease
from ca.namespace import Namespace
from ca.renew import Caller, require_lease

PACE: Final = 1.0
"""Seconds between two writes."""


class Acknowledgements:
    """Collects them, and writes what is new."""

    def __init__(self, service: Service) -> None:
        """Write to the records of ``service``; `start` begins."""
        self._service = service
        self._said: dict[str, dict[tuple[str, str], str]] = {}
        """By namespace: for each pod's name and key the hash."""
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Write from now on."""
        self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def close(self) -> None:
        """Write no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def hear(self, caller: Caller, record: Namespace, bundle_hash: str) -> None:
        """Note what a pod says for itself, where its lease does not say so yet."""
        if require_lease(caller, record.leases).bundle != bundle_hash:
            namespace = caller.identity.namespace
            self._said.setdefault(namespace, {})[caller.pod, caller.key] = bundle_hash
            self._news.set()

    async def _write_all(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            said, self._said = self._said, {}
            for namespace, hashes in said.items():
                try:
                    await self._service.work(partial(self._write, namespace, hashes))
                except StateError as error:  # it says so again in its next poll
                    self._service.audit("failed", {"namespace": namespace, "message": str(error)})
            await asyncio.sleep(PACE)

    def _write(self, namespace: str, hashes: dict[tuple[str, str], str]) -> None:
        def noted(lease: Lease) -> Lease:
            said = hashes.get((lease.pod, lease.key)) or hashes.get((lease.pod, lease.previous))
            return lease if said in {None, lease.bundle} else replace(lease, bundle=str(said))

        def change(record: Namespace) -> Namespace:
            leases = tuple(map(noted, record.leases))
            return record if leases == record.leases else replace(record, leases=leases)

        self._service.office.change(namespace, change)
