"""Whether the signer answers: asked regularly, for `/readyz`, and said in the audit when it changes."""

import asyncio
import contextlib
from typing import Final

from ca.drivers.service import Service
from ca.signer import SignerError

ASK_SECONDS: Final = 10.0
AWAY_SECONDS: Final = 2.0
"""Between two attempts while it is away: requests are not even tried then."""


class SignerWatch:
    """Asks a signer that may be away; one with its key at hand never is."""

    def __init__(self, service: Service) -> None:
        """Begin as if it answered: who serves has had something signed."""
        self._service = service
        self.is_away = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Ask from now on."""
        if self._service.keep is not None:
            self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        keep = self._service.keep
        while keep is not None:
            await asyncio.sleep(AWAY_SECONDS if self.is_away else ASK_SECONDS)
            try:
                await asyncio.to_thread(keep)
            except SignerError as error:
                self._note(is_away=True, message=str(error))
            else:
                self._note(is_away=False, message="")

    def _note(self, *, is_away: bool, message: str) -> None:
        if is_away != self.is_away:
            event = "signer_away" if is_away else "signer_back"
            self._service.audit(event, {"message": message} if message else {})
        self.is_away = is_away
