"""Where requests for certificates wait for each other: those of a namespace that come together share a write."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from ca.documents import StateError
from ca.drivers.service import Service
from ca.grant import Asked, Outcome, grant
from ca.issue import Issued
from ca.signer import SignerError

LARGEST_BATCH: Final = 64
"""Requests that share a write: they wait for the last signature among them."""

_Waiting = tuple[Asked, "asyncio.Future[Outcome]"]


class Counter:
    """Grants what is asked for, a namespace at a time."""

    def __init__(self, service: Service) -> None:
        """Grant as ``service`` does."""
        self._service = service
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, asked: Asked, namespace: str) -> Issued:
        """Return what is issued; raises `Refused`, `SignerError` and `StateError`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.setdefault(namespace, deque()).append((asked, answer))
        if namespace not in self._tasks:
            self._tasks[namespace] = loop.create_task(self._serve(namespace))
        outcome = await answer
        if isinstance(outcome, Issued):
            return outcome
        raise outcome

    async def close(self) -> None:
        """Wait until what was begun is done."""
        await asyncio.gather(*self._tasks.values())

    async def _serve(self, namespace: str) -> None:
        waiting = self._waiting[namespace]
        try:
            while waiting:
                count = min(len(waiting), LARGEST_BATCH)
                batch = [waiting.popleft() for _ in range(count)]
                # Who does not wait any more has asked again by now, or will.
                await self._grant([one for one in batch if not one[1].done()], namespace)
                await asyncio.sleep(0)
        finally:
            del self._tasks[namespace], self._waiting[namespace]
            _let_go(waiting)

    async def _grant(self, batch: list[_Waiting], namespace: str) -> None:
        service = self._service
        asked = [one for one, _ in batch]
        try:
            outcomes = await service.work(
                lambda: grant(asked, namespace, service.office, service.wall())
            )
            for (_, answer), outcome in zip(batch, outcomes, strict=True):
                if not answer.done():
                    answer.set_result(outcome)
        except (StateError, SignerError) as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        finally:
            _let_go(batch)


def _let_go(batch: Iterable[_Waiting]) -> None:
    for _, answer in batch:
        answer.cancel()  # whoever has an answer keeps it
