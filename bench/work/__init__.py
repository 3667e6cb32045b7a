"""What is measured: one module a kind of work. Each run of a work gives one value of each of its metrics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from support.namespaces import Pod
from support.processes import HarnessError, Process

from bench.peers import Link

LOAD: Final = Path(__file__).parents[1] / "load.c"
"""The program that sends, and answers, datagrams."""


@dataclass(frozen=True)
class Metric:
    """One figure: its title, unit, and which way is better."""

    key: str
    title: str
    unit: str
    higher_is_better: bool = True
    digits: int = 2


METRICS: Final = {
    metric.key: metric
    for metric in (
        Metric("tcp1", "TCP, 1 stream", "Gbit/s"),
        Metric("tcp4", "TCP, 4 streams", "Gbit/s"),
        Metric("udp64", "UDP, payload 64 bytes, delivered", "thousand/s", digits=0),
        Metric("udp1400", "UDP, packets of 1,400 bytes, delivered", "thousand/s", digits=0),
        Metric("ping_p50", "Round trip of 64 bytes, p50", "us", higher_is_better=False, digits=0),
        Metric("ping_p99", "Round trip of 64 bytes, p99", "us", higher_is_better=False, digits=0),
        Metric("bulk_p50", "Round trip beside bulk, p50", "us", higher_is_better=False, digits=0),
        Metric("bulk_p99", "Round trip beside bulk, p99", "us", higher_is_better=False, digits=0),
        Metric("http", "nginx, keep-alive", "thousand requests/s", digits=1),
        Metric("cpu_peer", "CPU a gigabyte, the peer's processes", "s/GB", higher_is_better=False),
        Metric("cpu_all", "CPU a gigabyte, the whole machine", "s/GB", higher_is_better=False),
        Metric("memory", "Memory of one pod, one session", "MB", higher_is_better=False, digits=1),
        Metric("handshakes", "Handshakes, both ends on one core", "1/s", digits=0),
        Metric("dns_rate", "DNS answers, 32 asked for at once", "1/s", digits=0),
        Metric("dns_cpu", "CPU an answer, the DNS proxy", "us", higher_is_better=False, digits=0),
        Metric("dns_p50", "DNS answer, p50", "us", higher_is_better=False, digits=0),
        Metric("dns_p99", "DNS answer, p99", "us", higher_is_better=False, digits=0),
        Metric("start", "First protected packet after start", "s", higher_is_better=False),
        Metric(
            "memory300", "Memory of one pod, 350 sessions", "MB", higher_is_better=False, digits=1
        ),
        Metric(
            "session_kb",
            "Memory, each further idle session",
            "KB",
            higher_is_better=False,
            digits=1,
        ),
        Metric("join_all", "2,000 pods join at once", "s", higher_is_better=False, digits=1),
        Metric("join_rate", "Certificates", "1/s", digits=0),
        Metric("join_cpu", "CPU a certificate, the CA", "ms", higher_is_better=False),
        Metric("join_retries", "Times a pod was asked to come back", "", higher_is_better=False),
    )
}


class Work(Protocol):
    """What a work's module provides."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of METRICS that it gives."""

    def prepare(self) -> None:
        """Have its programs; `UnavailableError` if that cannot be."""

    def run(self, link: Link, seconds: float) -> dict[str, float]:
        """Do it for about so long; values by metric. `HarnessError` if it fails."""


class Alone(Protocol):
    """A work that needs no pods and no peer: it has contestants of its own."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Keys of METRICS that it gives."""

    def prepare(self) -> None:
        """Have its programs; `UnavailableError` if that cannot be."""

    @property
    def once(self) -> bool:
        """Tell whether one round of it is enough."""

    def contestants(self) -> tuple[str, ...]:
        """Name who is compared."""

    def run(self, contestant: str, seconds: float) -> dict[str, float]:
        """Do it for about so long; values by metric."""


def number(text: str, what: str) -> float:
    """Read a figure that a program printed."""
    try:
        return float(text)
    except ValueError:
        raise HarnessError(f"{what} printed {text[:80]!r}, not a number") from None


@contextmanager
def running(pod: Pod, argv: Sequence[str | Path], port: int = 0) -> Iterator[Process]:
    """Have a program in a pod for as long as the context lasts; with a TCP port, from when it listens."""
    process = pod.start(argv)
    try:
        if port:
            pod.wait_for_listener(process, port)
        yield process
    finally:
        process.stop()
