"""Services' virtual addresses as a node has them: nftables translates to a pod behind, as kube-proxy does.

A pod's packets to a virtual address reach the node by the default route; the answer passes the bridge, where
connection tracking finds it too (br_netfilter) and gives it the virtual address back.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from support.capture import SESSION_PORT
from support.namespaces import BRIDGE, Fabric

VIP: Final = "10.96.0.80"
VIP6: Final = "fd77:7465:6e63:96::80"

_TABLE: Final = "services"


class Node:
    """The node's table of Services."""

    def __init__(self, fabric: Fabric) -> None:
        """Let the node forward, and translate nothing yet."""
        self._fabric = fabric
        self._services: dict[str, tuple[Sequence[str], dict[tuple[str, int], int]]] = {}
        fabric.node.run(
            [
                "sysctl",
                "-qw",
                "net.ipv4.ip_forward=1",
                "net.ipv6.conf.all.forwarding=1",
                f"net.ipv4.conf.{BRIDGE}.send_redirects=0",
                "net.bridge.bridge-nf-call-iptables=1",
                "net.bridge.bridge-nf-call-ip6tables=1",
            ]
        )

    def serve(
        self, vip: str, pods: Sequence[str], ports: Mapping[tuple[str, int], int] | None = None
    ) -> None:
        """Have pods serve a virtual address, by (protocol, port) and the pods' port, and by the session port."""
        for pod in self._fabric.pods.values():
            # Without it a bridge gives nothing back to whom it came from: kubelets set it too.
            self._fabric.node.run(["bridge", "link", "set", "dev", pod.node_port, "hairpin", "on"])
        self._services[vip] = pods, {**(ports or {}), ("udp", SESSION_PORT): SESSION_PORT}
        self._fabric.node.run(["nft", "-f", "-"], stdin=self._text())

    def _text(self) -> str:
        lines = [f"table inet {_TABLE} {{}}", f"delete table inet {_TABLE}"]
        rules = [
            _rule(vip, protocol, port, pods, target)
            for vip, (pods, ports) in self._services.items()
            for (protocol, port), target in ports.items()
        ]
        pods = dict.fromkeys(pod for found, _ in self._services.values() for pod in found)
        hairpins = [_hairpin(pod) for pod in pods]
        chains = [
            "chain arriving { type nat hook prerouting priority dstnat;",
            *rules,
            "}",
            "chain leaving { type nat hook postrouting priority srcnat;",
            *hairpins,
            "}",
        ]
        return "\n".join([*lines, f"table inet {_TABLE} {{", *chains, "}", ""])


def _hairpin(pod: str) -> str:
    """Have a pod that is led to itself see the node as its caller, as kube-proxy does."""
    family = "ip6" if ":" in pod else "ip"
    return f"ct status dnat {family} saddr {pod} {family} daddr {pod} masquerade"


def _rule(vip: str, protocol: str, port: int, pods: Sequence[str], target: int) -> str:
    family = "ip6" if ":" in vip else "ip"
    ends = ", ".join(f"{number} : {pod} . {target}" for number, pod in enumerate(pods))
    choice = f"numgen random mod {len(pods)} map {{ {ends} }}"
    return f"{family} daddr {vip} {protocol} dport {port} dnat {family} addr . port to {choice}"
