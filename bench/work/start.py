"""From `tencrypt run` to the first packet that passes: certificate from a CA nearby, rules, handshake, ping.

The peer runs already and refuses plaintext, so a ping that is answered was protected.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Final

from support.namespaces import Fabric
from support.tencrypt import ProjectCA, Proxy

from bench.peers import CLIENT, SERVER, pair

PATIENCE: Final = 20.0


@dataclass(frozen=True)
class Start:
    """A pod's first moments."""

    name: str = "start"
    metrics: tuple[str, ...] = ("start",)
    once: bool = False

    def prepare(self) -> None:
        """Nothing to have."""

    def contestants(self) -> tuple[str, ...]:
        """Give Tencrypt alone."""
        return ("tencrypt",)

    def run(self, _contestant: str, _seconds: float) -> dict[str, float]:
        """Start one pod beside another; seconds."""
        with Fabric(CLIENT, SERVER) as fabric:
            client, server = pair(fabric)
            ca, members = ProjectCA(fabric), [client.ipv4, server.ipv4]
            waiting, starting = (Proxy(pod, ca, members) for pod in (server, client))
            waiting.start_and_wait()
            ping = ["ping", "-c1", "-W1", server.ipv4]
            begin = perf_counter()
            process = starting.start()
            process.wait_until(
                "a ping",
                lambda: (
                    "ready" in starting.event_names()
                    and client.run(ping, accept=(0, 1, 2)).returncode == 0
                ),
                PATIENCE,
            )
            return {"start": perf_counter() - begin}
