"""Memory that idle sessions take: many peers in one pod, each with a certificate and a session, call one Tencrypt.

The peers are the product's own sessions over real sockets, an address each, in this process; only the pod that
they call runs the command, and only it is measured, a moment after the last handshake.
"""

from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from ipaddress import ip_address
from time import time
from typing import Final

from support.authority import make_claims
from support.namespaces import Fabric, Pod
from support.processes import HarnessError
from support.rogue import Rogue
from support.tencrypt import ProjectCA, Proxy
from typing_extensions import override

from bench import machine
from bench.peers import CLIENT, SERVER, pair
from ca.drivers.file_documents import FileDocuments
from ca.drivers.tokens import make_token

WARM: Final = 50
"""So many come first: what is allocated once is then there."""
COUNTED: Final = 300
AT_ONCE: Final = 16
NETWORK: Final = "10.77.4.0/22"
FIRST: Final = ip_address("10.77.4.1")
TOKEN_SECONDS: Final = 3600


class QuickCA(ProjectCA):
    """The project's CA, whose tokens are made here: a command for each of hundreds takes minutes."""

    @override
    def token(self, pod: Pod, **_: object) -> str:
        """Make a join token for the pod's name and IPv4 address."""
        claims = make_claims(
            f"{int(ip_address(pod.ipv4)):016x}",
            pod=pod.label,
            addresses=(ip_address(pod.ipv4),),
            expires=int(time()) + TOKEN_SECONDS,
        )
        return make_token(FileDocuments(self.directory), claims)


@dataclass(frozen=True)
class Sessions:
    """Sessions with many pods."""

    name: str = "sessions"
    metrics: tuple[str, ...] = ("memory300", "session_kb")
    once: bool = True

    def prepare(self) -> None:
        """Nothing to have."""

    def contestants(self) -> tuple[str, ...]:
        """Give Tencrypt alone."""
        return ("tencrypt",)

    def run(self, _contestant: str, _seconds: float) -> dict[str, float]:
        """Make all sessions; megabytes with all, kilobytes for each."""
        with Fabric(CLIENT, SERVER) as fabric:
            client, server = pair(fabric)
            addresses = [FIRST + number for number in range(WARM + COUNTED)]
            client.ip("".join(f"addr add {address}/32 dev eth0\n" for address in addresses))
            server.ip(f"route add {NETWORK} dev eth0\n")
            ca = QuickCA(fabric)
            proxy = Proxy(
                server,
                ca,
                [server.ipv4, client.ipv4, NETWORK],
                settings={"addresses": [server.ipv4]},
            )
            agent = proxy.start()
            proxy.wait_for_event("ready")
            pids = (agent.pid, proxy.daemon_pid())
            pods = [_tenant(client, str(address)) for address in addresses]
            with ThreadPoolExecutor(AT_ONCE) as threads:
                peers = list(threads.map(lambda pod: Rogue(pod, ca), pods))
            try:
                for peer in peers[:WARM]:
                    peer.handshake(server)
                before = machine.resident_megabytes(pids)
                for peer in peers[WARM:]:
                    peer.handshake(server)
                after = machine.resident_megabytes(pids)
                held = len(proxy.status()["sessions"])
            finally:
                for peer in peers:
                    peer.__exit__()
            if held < len(peers):
                raise HarnessError(f"{held} sessions of {len(peers)} are held")
            return {"memory300": after, "session_kb": (after - before) * 1024 / COUNTED}


def _tenant(pod: Pod, address: str) -> Pod:
    """Give a pod of another name and address that lives where `pod` lives."""
    tenant = copy(pod)
    tenant.label = f"idle-{address.replace('.', '-')}"
    tenant.ipv4 = address
    return tenant
