"""Requests a second that nginx answers, asked by wrk: 32 connections kept alive, a file of 1,000 bytes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.processes import HarnessError

from bench.cache import program
from bench.peers import Link
from bench.work import running

PORT: Final = 8080
CONNECTIONS: Final = 32
MARGIN_SECONDS: Final = 30.0

# One worker; tests/support has the same on other addresses.
CONFIGURATION: Final = """\
daemon off;
user root;
worker_processes 1;
pid {prefix}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    server {{
        listen {port};
        listen [::]:{port};
        root {prefix}/html;
    }}
}}
"""


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
        configuration.write_text(CONFIGURATION.format(prefix=prefix, port=PORT), encoding="ascii")
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
