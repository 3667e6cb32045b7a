"""OpenVPN of Debian: point to point over UDP, TLS 1.3, AES-256-GCM, without DCO (this kernel has none)."""

from dataclasses import dataclass, field
from typing import Final

from support.cache import program
from support.namespaces import Fabric
from support.processes import run

from bench.peers import CLIENT, SERVER, Family, Link, outer, overlay, pair
from bench.peers.certificates import issue_pair

# tun-mtu keeps whole packets inside one datagram; fast-io saves a system call a packet (openvpn(8)).
COMMON: Final = """\
dev tun0
dev-type tun
proto {proto}
local {own}
remote {peer}
port 1194
ifconfig {inner} {inner_peer}
ca {ca}
cert {certificate}
key {key}
tls-version-min 1.3
data-ciphers AES-256-GCM
tun-mtu 1420
fast-io
"""


@dataclass(frozen=True)
class OpenVPN:
    """A TLS server and a TLS client, point to point."""

    name: str = "openvpn"
    lacks: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> str:
        """Ask Debian's program for its version."""
        return run([program("openvpn"), "--version"], accept=(0, 1)).stdout.split()[1]

    def start(self, fabric: Fabric, family: Family) -> Link:
        """Write both configurations and start both ends."""
        files = issue_pair(fabric)
        pods, processes = pair(fabric), {}
        for pod, other in zip(pods, reversed(pods), strict=True):
            role = {CLIENT: "tls-client", SERVER: "tls-server\ndh none"}[pod.label]
            inner, inner_peer = (overlay.INNER[end.label] for end in (pod, other))
            text = COMMON.format(
                proto={4: "udp4", 6: "udp6"}[family],
                own=outer(pod, family),
                peer=outer(other, family),
                inner=inner[4],
                inner_peer=inner_peer[4],
                **files[pod.label].words(),
            )
            text += f"ifconfig-ipv6 {inner[6]}/64 {inner_peer[6]}\n{role}\n"
            configuration = overlay.write(pod, "openvpn.conf", text)
            processes[pod.label] = pod.start(["openvpn", "--config", configuration])
        return overlay.linked(fabric, processes, family)
