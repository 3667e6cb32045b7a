"""Requests a second that nginx answers, asked by wrk: 32 connections kept alive, a file of 1,000 bytes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.cache import program
from support.processes import HarnessError
from support.servers import NGINX_CONFIGURATION

from bench.peers import Link
from bench.work import running

PORT: Final = 8080
CONNECTIONS: Final = 32
MARGIN_SECONDS: Final = 30.0

SERVER: Final = f"listen {PORT}; listen [::]:{PORT}; keepalive_requests 1000000000;"
"""On every address: a peer's tunnel has its own."""


@dataclass(frozen=True)
class Http:
    """wrk in the client, nginx in the server."""

    name: str = "http"
    metrics: tuple[str, ...] = ("http",)

    def prepare(self) -> None:
        """Both come from Debian."""
        program("nginx")
        program("wrk")

    def run(self, link: Link, seconds: float) -> dict[str, float]:
        """Ask; thousands of answers a second."""
        prefix = link.server.directory / "nginx"
        (prefix / "html").mkdir(parents=True)
        (prefix / "html/index.html").write_text("x" * 1000, encoding="ascii")
        configuration = prefix / "nginx.conf"
        configuration.write_text(
            NGINX_CONFIGURATION.format(prefix=prefix, server=SERVER), encoding="ascii"
        )
        host = f"[{link.address}]" if ":" in link.address else link.address
        asking = ("wrk", "--threads", "1", "--connections", str(CONNECTIONS))
        command = [*asking, "--duration", f"{seconds:.0f}", f"http://{host}:{PORT}/index.html"]
        serve: list[str | Path] = ["nginx", "-p", prefix, "-c", configuration, "-e", "stderr"]
        with running(link.server, serve, PORT):
            said = link.client.run(command, timeout=seconds + MARGIN_SECONDS).stdout
        rate = re.search(r"^Requests/sec: +([\d.]+)", said, re.MULTILINE)
        if rate is None or "Non-2xx" in said:
            raise HarnessError(f"wrk: {said.strip()}")
        return {"http": float(rate[1]) / 1000}
