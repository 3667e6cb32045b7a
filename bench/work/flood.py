"""UDP as fast as the sender can: how many datagrams are delivered (bench/load.c, sendmmsg and recvmmsg).

The sender is not paced: what is measured is what arrives under overload.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.cache import c_program
from support.processes import HarnessError

from bench.peers import Link
from bench.work import LOAD, number, running

PORT: Final = 7778
MARGIN_SECONDS: Final = 30.0
PACKET: Final = 1400
"""Bytes of an IP packet that fits every peer's tunnel unfragmented."""
SMALL: Final = 64


@dataclass(frozen=True)
class Flood:
    """Datagrams with a payload of 64 bytes, or packets of 1,400."""

    small: bool

    @property
    def name(self) -> str:
        """Give `udp64` or `udp1400`."""
        return "udp64" if self.small else "udp1400"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it gives."""
        return (self.name,)

    def prepare(self) -> None:
        """Compile the program."""
        c_program(LOAD)

    def run(self, link: Link, seconds: float) -> dict[str, float]:
        """Send; thousands a second that arrived."""
        load = c_program(LOAD)
        headers = 48 if ":" in link.address else 28
        size = SMALL if self.small else PACKET - headers
        command: list[str | Path] = [
            load,
            "flood",
            link.address,
            str(PORT),
            str(size),
            f"{seconds:g}",
        ]
        with running(link.server, [load, "sink", str(PORT)]) as sink:
            sink.wait_until("ready", lambda: "ready" in sink.stdout)
            link.client.run(command, timeout=seconds + MARGIN_SECONDS)
            if sink.wait() != 0:
                raise HarnessError(sink.describe())
        count, span = (number(text, "sink") for text in sink.stdout.split()[1:])
        return {self.name: count / max(span, seconds) / 1000}
