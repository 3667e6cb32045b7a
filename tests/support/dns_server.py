"""A real DNS server, dnsmasq, with the records that a test wants; and one that lies."""

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from support.processes import HarnessError, Process

DNS_PORT: Final = 53

Answering = Callable[[bytes, tuple[str, int]], Sequence[bytes]]


def dnsmasq_command(
    address: str, port: int, records: Sequence[str], directory: Path
) -> list[str | Path]:
    """Give what serves `records` (dnsmasq's options without dashes, as host-record=NAME,ADDRESS)."""
    configuration = directory / f"dnsmasq.{address.replace(':', '_')}.{port}.conf"
    lines = [
        "keep-in-foreground",
        "no-resolv",
        "no-hosts",
        "no-daemon",
        "user=root",
        "bind-interfaces",
        f"listen-address={address}",
        f"port={port}",
        "local-ttl=5",
        "dns-forward-max=5000",
        "pid-file=",
        *records,
    ]
    configuration.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    return ["dnsmasq", f"--conf-file={configuration}"]


def free_port() -> int:
    """Give a port of 127.0.0.1 that is free for UDP and TCP.

    It lies below those that the kernel gives to clients: of these, a free UDP port is often a TCP client's.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 200):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            socket.socket() as stream,
            contextlib.suppress(OSError),
        ):
            datagrams.bind(("127.0.0.1", port))
            stream.bind(("127.0.0.1", port))
            return port
    raise HarnessError("no free port on 127.0.0.1")


@contextlib.contextmanager
def dnsmasq_here(directory: Path, records: Sequence[str]) -> Iterator[int]:
    """Serve on 127.0.0.1 of this namespace; yields the port."""
    port = free_port()
    process = Process(dnsmasq_command("127.0.0.1", port, records, directory), directory / "dnsmasq")
    try:
        process.wait_until("its socket", lambda: _serves(port))
        yield port
    finally:
        process.stop()


def _serves(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def liar(answering: Answering) -> Iterator[int]:
    """Serve on 127.0.0.1 over UDP what `answering` makes of a query; yields the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]

        def serve() -> None:
            while True:
                data, asker = server.recvfrom(65535)
                if not data:
                    return
                for answer in answering(data, asker):
                    server.sendto(answer, asker)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield port
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", ("127.0.0.1", port))
            thread.join()
