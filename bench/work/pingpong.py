"""64 bytes there and back over one TCP connection, by a C program (bench/load.c): alone, and beside a bulk stream."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.cache import c_program
from support.processes import wait_for

from bench import machine
from bench.peers import Link
from bench.work import LOAD, bulk, number, running

PORT: Final = 7777
FLOWING_BYTES: Final = 5_000_000
"""So much has left when the bulk stream is called flowing."""
FLOWING_SECONDS: Final = 30.0
MARGIN_SECONDS: Final = 30.0
BULK_EXTRA_SECONDS: Final = 30
"""The bulk stream would last so much longer: it is ended with the ping-pong."""


@dataclass(frozen=True)
class PingPong:
    """Round trips on an idle path, or beside bulk in the same direction."""

    beside_bulk: bool = False

    @property
    def name(self) -> str:
        """Give `ping` or `bulkping`."""
        return "bulkping" if self.beside_bulk else "ping"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it gives."""
        kind = "bulk" if self.beside_bulk else "ping"
        return (f"{kind}_p50", f"{kind}_p99")

    def prepare(self) -> None:
        """Compile the program."""
        c_program(LOAD)

    def run(self, link: Link, seconds: float) -> dict[str, float]:
        """Measure; p50 and p99 in microseconds."""
        load = c_program(LOAD)
        command: list[str | Path] = [load, "ping", link.address, str(PORT), f"{seconds:g}"]
        with (
            running(link.server, [load, "pong", str(PORT)], PORT),
            _bulk(link, seconds) if self.beside_bulk else nullcontext(),
        ):
            said = link.client.run(command, timeout=seconds + MARGIN_SECONDS).stdout.split()
        return dict(zip(self.metrics, (number(text, "ping") for text in said[1:]), strict=True))


@contextmanager
def _bulk(link: Link, seconds: float) -> Iterator[None]:
    """Have one TCP stream flow for as long as the context lasts."""
    before = machine.sent_bytes(link.client)
    sending = bulk.client_command(link, seconds + BULK_EXTRA_SECONDS)
    with running(link.server, bulk.SERVE, bulk.PORT), running(link.client, sending):
        wait_for(
            "the bulk stream",
            lambda: machine.sent_bytes(link.client) > before + FLOWING_BYTES,
            FLOWING_SECONDS,
        )
        yield
