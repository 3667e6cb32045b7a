"""A project in a cluster: ranges in the place of a member list, and a DNS server for the zone on the node."""

import socket
from collections.abc import Mapping, Sequence
from typing import Final

from support.dns_server import DNS_PORT, dnsmasq_command
from support.namespaces import BRIDGE_IPV4, BRIDGE_IPV6, Fabric, Pod
from support.processes import Process
from support.project import Project
from support.tencrypt import Setting

from proxy.dns import wire
from proxy.dns.answers import read_answer

ZONE: Final = "shop.svc.cluster.local"
RANGES: Final = ("10.77.0.0/16", "10.96.0.0/12", "fd77:7465:6e63::/48")
IN_CLUSTER: Final[dict[str, Setting]] = {
    "members": None,
    "cluster_ranges": RANGES,
    "resolvers": [BRIDGE_IPV4],
    "roster": "off",
}
"""What replaces the list of members in each pod's settings."""


def name_of(pod: Pod) -> str:
    """Give the name under which the zone knows a pod."""
    return f"{pod.label}.{ZONE}"


class Cluster:
    """The zone's server on the node, and a project whose pods know members by it alone."""

    def __init__(self, fabric: Fabric, settings: Mapping[str, Setting] | None = None) -> None:
        """Serve each pod's name; `settings` overrides keys of each pod's configuration."""
        self.fabric = fabric
        self.records = [
            f"host-record={name_of(pod)},{pod.ipv4},{pod.ipv6}" for pod in fabric.pods.values()
        ]
        self.server = self.serve()
        self.project = Project(fabric, {**IN_CLUSTER, **(settings or {})})

    def serve(self, *more: str) -> Process:
        """Start the server, with more records."""
        records = [*self.records, f"listen-address={BRIDGE_IPV6}", *more]
        command = dnsmasq_command(BRIDGE_IPV4, DNS_PORT, records, self.fabric.directory)
        process = self.fabric.node.start(command)
        self.fabric.node.wait_for_listener(process, DNS_PORT)
        return process

    def serve_again(self, *more: str) -> None:
        """Replace the server by one with other records beside the pods' names."""
        self.server.stop()
        self.server = self.serve(*more)


def resolve(pod: Pod, name: str, kind: int = wire.A, server: str = BRIDGE_IPV4) -> Sequence[bytes]:
    """Ask the resolver as a program of the pod does; packed addresses. TimeoutError without an answer."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with pod.socket(family, socket.SOCK_DGRAM) as program:
        program.settimeout(5)
        program.connect((server, DNS_PORT))
        query = wire.make_query(4711, name, kind)
        program.send(query)
        data = program.recv(65535)
    assert wire.matches(data, 4711, wire.parse_query(query).question)
    if wire.rcode(data) == wire.SERVFAIL:
        raise TimeoutError(f"server failure for {name}")
    return [address for _, address, _ in read_answer(data).addresses]
