"""The bundle in force as a server goes by it: read before it serves, and again when its document changes."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Final

from ca.documents import StateError
from ca.drivers.service import FAR_LOOK_SECONDS, LOOK_SECONDS, Service
from ca.trust import BUNDLE, Trust, read_trust

AWAY_SECONDS: Final = 2.0
"""Between two attempts to begin while the records cannot be read."""

Changed = Callable[[Trust], Awaitable[None]]


class TrustWatch:
    """Holds the bundle, and tells of each new one."""

    trust: Trust
    """From `begin` on."""

    def __init__(self, service: Service, changed: Changed) -> None:
        """Give each bundle to ``changed``, the first one too; what that raises ends nothing."""
        self._service, self._changed = service, changed
        self._state: object = None
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Read it as soon as that can be, and look again from now on."""
        while True:
            try:
                await self._read()
                break
            except StateError as error:
                if self._service.keep is None:
                    raise
                self._service.audit("signer_away", {"message": str(error)})
            await asyncio.sleep(AWAY_SECONDS)
        await self._changed(self.trust)
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        pause = LOOK_SECONDS if self._service.keep is None else FAR_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            former = self.trust
            try:
                await self._read()
            except StateError:
                continue  # the signer's watch and each request tell of it
            if self.trust.hash != former.hash:
                self._tell(former)
                await self._changed(self.trust)

    async def _read(self) -> None:
        documents = self._service.documents
        # The state first: what is written in between is read again the next time.
        state = await self._service.work(lambda: documents.state(BUNDLE))
        if state != self._state:
            self.trust = await self._service.work(lambda: read_trust(documents))
            self._state = state

    def _tell(self, former: Trust) -> None:
        trust = self.trust
        fields: dict[str, object] = {
            "version": trust.bundle.version,
            "hash": trust.hash,
            "roots": {root.fingerprint: root.state.value for root in trust.bundle.roots},
        }
        self._service.audit("bundle", fields)
        for step in trust.steps:
            if step not in former.steps:
                self._service.audit("rotation", {**asdict(step), "missing": list(step.missing)})
