"""DNS through Tencrypt's proxy, and asked of the server directly: dnsmasq on loopback, which knows every name asked.

Over UDP, A records of the project's zone: many queries under way at once for the rate, one at a time for the round
trip. A busy name's answer is the same for seconds, and its reading is remembered; so a third contestant asks each name
in letters that were never sent before, and each answer has to be read.
"""

import os
import random
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shutil import which
from time import perf_counter
from typing import Final

from support.cache import UnavailableError
from support.dns_server import dnsmasq_here, free_port
from support.processes import HarnessError, Process

from bench import machine
from proxy.dns import wire

ALONE: Final = "dnsmasq alone"
OURS: Final = "tencrypt"
NEW: Final = "tencrypt-new-answers"

NAMES: Final = 100
AT_ONCE: Final = 32
PATIENCE: Final = 3.0
WARM: Final = 200
"""Queries that are not counted."""
SEED: Final = 53


@dataclass(frozen=True)
class Dns:
    """How many answers a second, at what cost, and how soon."""

    name: str = "dns"
    metrics: tuple[str, ...] = ("dns_rate", "dns_cpu", "dns_p50", "dns_p99")
    once: bool = False

    def prepare(self) -> None:
        """Have the server."""
        if which("dnsmasq") is None:
            raise UnavailableError("no program dnsmasq")

    def contestants(self) -> tuple[str, ...]:
        """Give the server alone, and the proxy before it in two ways."""
        return ALONE, OURS, NEW

    def run(self, contestant: str, seconds: float) -> dict[str, float]:
        """Ask for so many seconds, half of it one at a time; answers a second and microseconds."""
        names = [f"web-{number}.shop.svc.cluster.local" for number in range(NAMES)]
        records = [f"host-record={name},10.0.{number}.1" for number, name in enumerate(names)]
        with tempfile.TemporaryDirectory(prefix="tencrypt-bench-dns-") as folder:
            place = Path(folder)
            with dnsmasq_here(place, records) as server:
                if contestant == ALONE:
                    return _asked(server, _queries(names, mixed=False), seconds / 2)[0]
                with _proxy(server, place) as (port, pid):
                    queries = _queries(names, mixed=contestant == NEW)
                    values, spent = _asked(port, queries, seconds / 2, pid)
                    return {**values, "dns_cpu": spent}


@contextmanager
def _proxy(server: int, place: Path) -> Iterator[tuple[int, int]]:
    """Have the proxy before the server; its port and process id."""
    port = free_port()
    process = Process(
        [sys.executable, "-m", "bench.dns_proxy", str(port), str(server)],
        place / "proxy",
        env={**os.environ, "PYTHONPATH": str(machine.TREE)},
    )
    try:
        process.wait_until("its socket", lambda: process.stdout.endswith("\n"))
        yield port, process.pid
    finally:
        process.stop()


def _queries(names: list[str], *, mixed: bool) -> Iterator[bytes]:
    """Give queries for one name after the other, each with the next id; mixed: in letters of either case."""
    drawn = random.Random(SEED)  # noqa: S311 - a run repeats
    for asked in count():
        name = names[asked % len(names)]
        if mixed:
            name = "".join(drawn.choice((letter, letter.upper())) for letter in name)
        yield wire.make_query(asked & 0xFFFF, name, wire.A)


def _asked(
    port: int, queries: Iterator[bytes], seconds: float, pid: int | None = None
) -> tuple[dict[str, float], float]:
    """Ask; the figures, and how many microseconds of CPU process `pid` spent on an answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.connect(("127.0.0.1", port))
        program.settimeout(PATIENCE)
        for _ in range(WARM):
            _trip(program, next(queries))
        before = machine.processor_seconds([pid] if pid else [])
        answers, took = _many(program, queries, seconds)
        spent = machine.processor_seconds([pid] if pid else []) - before
        trips, begin = [], perf_counter()
        while perf_counter() < begin + seconds:
            trips.append(_trip(program, next(queries)))
    *_, p99 = statistics.quantiles(trips, n=100)
    return {
        "dns_rate": answers / took,
        "dns_p50": statistics.median(trips) * 1e6,
        "dns_p99": p99 * 1e6,
    }, spent / answers * 1e6


def _many(program: socket.socket, queries: Iterator[bytes], seconds: float) -> tuple[int, float]:
    """Keep AT_ONCE queries under way; how many were answered, in how many seconds."""
    begin, answers = perf_counter(), 0
    for _ in range(AT_ONCE):
        program.send(next(queries))
    while perf_counter() < begin + seconds:
        _good(program)
        answers += 1
        program.send(next(queries))
    took = perf_counter() - begin
    for _ in range(AT_ONCE):
        _good(program)
    return answers, took


def _trip(program: socket.socket, query: bytes) -> float:
    begin = perf_counter()
    program.send(query)
    answer = _good(program)
    took = perf_counter() - begin
    if not wire.matches(answer, wire.parse_query(query).id, wire.parse_query(query).question):
        raise HarnessError("an answer to another question")
    return took


def _good(program: socket.socket) -> bytes:
    """Receive an answer that has one record."""
    try:
        answer = program.recv(4096)
    except OSError as error:
        raise HarnessError(f"no answer: {error}") from error
    if wire.rcode(answer) != wire.NOERROR or not wire.records(answer):
        raise HarnessError(f"not an address: {answer[:12].hex()}")
    return answer
