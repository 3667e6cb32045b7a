"""The daemon's side of its orders to the net agent: see `proxy.netagent.orders`."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Final

from proxy.drivers.line import DaemonsEnd

_LONGEST: Final = 480
_AT_ONCE: Final = 8
"""Lines of so many bytes that fit one write to a pipe (PIPE_BUF), and are one transaction of the agent's."""

_SECONDS: Final = 15.0

ANSWERS: Final = (b"done ", b"no ")
"""How the agent's answers to orders begin."""


class AgentClient:
    """Says orders, one batch at a time, and waits for their answers."""

    def __init__(self, channel: DaemonsEnd) -> None:
        """Speak by ``channel``; whoever reads it hands answers to `heard`."""
        self._channel = channel
        self._number = 0
        self._waiting: dict[int, asyncio.Future[str | None]] = {}
        self._turn = asyncio.Lock()

    def heard(self, answer: bytes) -> None:
        """Take an answer: done or no, the order's number, and what it says."""
        word, _, rest = answer.partition(b" ")
        number, _, text = rest.partition(b" ")
        future = self._waiting.pop(int(number), None) if number.isdigit() else None
        if future is not None and not future.done():
            future.set_result(text.decode("utf-8", "replace") if word == b"done" else None)

    async def order(self, verb: str, *arguments: str) -> str | None:
        """Have one order carried out; return what the agent says to it, None where it refuses or is gone."""
        return (await self._say([" ".join((verb, *arguments))]))[0]

    async def with_addresses(self, verb: str, addresses: Iterable[bytes]) -> bool:
        """Have an order carried out for many packed addresses; say whether for all."""
        lines = list(_lines(verb, addresses))
        done = True
        for begin in range(0, len(lines), _AT_ONCE):
            done &= None not in await self._say(lines[begin : begin + _AT_ONCE])
        return done

    async def _say(self, lines: list[str]) -> list[str | None]:
        async with self._turn:
            numbers, loop = [], asyncio.get_running_loop()
            for _ in lines:
                self._number += 1
                numbers.append(self._number)
                self._waiting[self._number] = loop.create_future()
            futures = [self._waiting[number] for number in numbers]
            numbered = zip(numbers, lines, strict=True)
            try:
                self._channel.say("\n".join(f"{n} {line}" for n, line in numbered).encode())
                async with asyncio.timeout(_SECONDS):
                    return [await future for future in futures]
            except (OSError, TimeoutError):
                return [None] * len(lines)
            finally:
                for number in numbers:
                    with contextlib.suppress(KeyError):
                        del self._waiting[number]


def _lines(verb: str, addresses: Iterable[bytes]) -> Iterator[str]:
    line = verb
    for text in (str(ip_address(address)) for address in addresses):
        if len(line) + len(text) >= _LONGEST:
            yield line
            line = verb
        line += f" {text}"
    if line != verb:
        yield line
