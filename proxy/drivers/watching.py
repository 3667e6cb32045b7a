"""The daemon's end of its net agent's watchers (``proxy.verify.orders``)."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Final, TypeVar

from proxy.drivers.line import DaemonsEnd
from proxy.errors import Dropped
from proxy.verify import orders
from proxy.verify.judge import Judge
from proxy.verify.messages import Seen

WATCH: Final = b"watch"
BUSY: Final = b"busy"
"""What the agent is asked for, and answers with a descriptor that commands a watcher, or without one."""

_SECONDS: Final = 2.0

T = TypeVar("T", orders.Looking, orders.AllFlowed, orders.Ended)


class WatcherGoneError(Exception):
    """There is no watcher, or none any more; the net agent's log says why."""


class Watching:
    """A watcher that obeys us."""

    def __init__(self, channel: socket.socket) -> None:
        """Speak by ``channel``."""
        self._channel = channel

    async def order(self, order: orders.Order, answer: type[T], judge: Judge | None = None) -> T:
        """Give an order and return its answer; entries go to ``judge``. Raises `WatcherGoneError`."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._channel, order.encode())
            while said_untrusted := await loop.sock_recv(self._channel, orders.LARGEST):
                told = orders.parse_told(said_untrusted)
                if isinstance(told, bytes) and judge is not None:
                    judge.take(told)
                    await asyncio.sleep(0)
                elif isinstance(told, answer):
                    return told
                else:
                    break
        except Dropped as error:
            raise WatcherGoneError(f"the net agent's watcher: {error}") from error
        except OSError:
            pass  # it has ended with words of ours unread
        raise WatcherGoneError("the net agent's watcher has ended: its log says why")

    async def finish(self, judge: Judge) -> tuple[Seen, tuple[str, ...]]:
        """Let it end; return what was seen, judged, and in words what should not have been."""
        told = await self.order(orders.Finish(), orders.Ended, judge)
        return judge.seen(told.tallies), told.texts


class Watchers:
    """Has the agent give us watchers, one at a time."""

    def __init__(self, agent: DaemonsEnd) -> None:
        """Ask by ``agent``; what it answers goes to `given`."""
        self._agent = agent
        self._next: asyncio.Future[socket.socket | None] | None = None

    def given(self, channel: socket.socket | None) -> None:
        """Take the agent's answer: what commands a watcher, or None while another one is at it."""
        if self._next is not None and not self._next.done():
            self._next.set_result(channel)
        elif channel is not None:
            channel.close()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Watching]:
        """Have a watcher for as long as the context lasts. Raises `WatcherGoneError`."""
        self._next = answer = asyncio.get_running_loop().create_future()
        try:
            self._agent.say(WATCH)
            async with asyncio.timeout(_SECONDS):
                channel = await answer
        except (OSError, TimeoutError) as error:
            raise WatcherGoneError("the net agent gives no watcher") from error
        if channel is None:
            raise WatcherGoneError("another watcher is at work: try again")
        with channel:
            channel.setblocking(False)  # noqa: FBT003 - the standard library's signature
            yield Watching(channel)
