"""TCP streams by iperf3, from the client to the server; with one stream also what a gigabyte costs."""

import json
from dataclasses import dataclass
from typing import Final

from support.cache import program
from support.processes import HarnessError

from bench import machine
from bench.peers import Link
from bench.work import running

PORT: Final = 5201
SERVE: Final = ("iperf3", "--server", "--port", str(PORT))
GIGABIT: Final = 1e9
GIGABYTE: Final = 1e9
MARGIN_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Bulk:
    """So many streams at once."""

    streams: int

    @property
    def name(self) -> str:
        """tcp1, tcp4."""
        return f"tcp{self.streams}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it gives."""
        return ("tcp1", "cpu_peer", "cpu_all") if self.streams == 1 else (self.name,)

    def prepare(self) -> None:
        """Debian's iperf3 is enough."""
        program("iperf3")

    def run(self, link: Link, seconds: float) -> dict[str, float]:
        """Send; what arrived, and the processors' time meanwhile."""
        with running(link.server, SERVE, PORT):
            peer, busy = machine.processor_seconds(link.all_pids()), machine.busy_seconds()
            done = link.client.run(
                client_command(link, seconds, self.streams), timeout=seconds + MARGIN_SECONDS
            )
            peer = machine.processor_seconds(link.all_pids()) - peer
            busy = machine.busy_seconds() - busy
        received = json.loads(done.stdout)["end"]["sum_received"]
        gigabytes = received["bytes"] / GIGABYTE
        if not gigabytes:
            raise HarnessError("iperf3: nothing arrived")
        values = {self.name: received["bits_per_second"] / GIGABIT}
        if self.streams == 1:
            values |= {"cpu_all": busy / gigabytes}
            if link.pids:
                values |= {"cpu_peer": peer / gigabytes}
        return values


def client_command(link: Link, seconds: float, streams: int = 1) -> list[str]:
    """Give the client's command; its report is JSON."""
    where = ("--client", link.address, "--port", str(PORT), "--json")
    return ["iperf3", *where, "--time", f"{seconds:.0f}", "--parallel", str(streams)]
