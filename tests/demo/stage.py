"""Who is on the stage: a node with Services and a DNS server, the project's pods, and three who are not of it."""

import re
from ipaddress import ip_address
from typing import Final

from support.capture import Taps
from support.cluster import IN_CLUSTER, ZONE
from support.dns_server import DNS_PORT, dnsmasq_command
from support.namespaces import BRIDGE, BRIDGE_IPV4, Fabric, Pod
from support.processes import HarnessError, wait_for
from support.project import Project
from support.resolving import resolv_conf, resolving
from support.servers import start_nginx
from support.tencrypt import TENCRYPT, Proxy, Setting
from support.virtual import Node

PODS: Final = ("nginx1", "nginx2", "router", "spy")
"""Two of the project; an ingress router and a stranger, on the same bridge."""

VIRTUAL: Final = {"nginx1": "10.96.0.11", "nginx2": "10.96.0.12"}
OUTSIDE, OUTSIDE_NAME = "203.0.113.80", "www.example.com"
HTTP: Final = 80


class Stage:
    """Everything that the story needs before it begins."""

    def __init__(self, fabric: Fabric, secret: str) -> None:
        """Start the servers, and make the project's CA."""
        self.fabric, self.secret = fabric, secret
        self.one, self.two, self.router, self.spy = (fabric[name] for name in PODS)
        self.node = Node(fabric)
        for name, virtual in VIRTUAL.items():
            self.node.serve(virtual, [fabric[name].ipv4], {("tcp", HTTP): HTTP})
            start_nginx(fabric[name], secret)
        fabric.node.ip(f"addr add {OUTSIDE}/32 dev lo\n")
        start_nginx(fabric.node, "page of the outside world", [OUTSIDE])
        self._resolv_conf = resolv_conf(fabric.directory)
        self._serve_names()
        self.project = Project(fabric, {**IN_CLUSTER, "roster": "on"})

    def protect(self, pod: Pod, **settings: Setting) -> Proxy:
        """Run Tencrypt in a pod, anew where it runs; returns once it is ready."""
        former = self.project.proxies.get(pod.label)
        if former is not None and former.stop() != 0:
            raise HarnessError(f"{pod.label}: the orderly stop failed")
        own = {**self.project.settings, **settings}
        proxy = Proxy(pod, self.project.ca, (), settings=own)
        self.project.proxies[pod.label] = proxy
        proxy.start_and_wait()
        wait_for("the roster", lambda: _has_roster(proxy))
        return proxy

    def curl(self, client: Pod, host: str, *options: str, seconds: int = 10) -> str:
        """Ask for a page by a name as programs know it; empty where nothing answers."""
        words = ["curl", "-sS", "-I", "--max-time", str(seconds), *options, f"http://{host}/"]
        done = self.fabric.node.run(resolving(client, self._resolv_conf, words), accept=range(100))
        return done.stdout

    def captured(self) -> Taps:
        """Begin to listen on the bridge."""
        return Taps((self.fabric.node, BRIDGE))

    def ask(self, proxy: Proxy, *words: str) -> str:
        """Run one of Tencrypt's own commands for a pod; what it prints."""
        where = ("--socket", proxy.admin_socket)
        done = self.fabric.node.run([TENCRYPT, *words, *where], accept=range(10))
        return re.sub(r"\s+$", "", done.stdout + done.stderr)

    def lie(self) -> None:
        """Have the spy serve false names at the resolver's address."""
        self.spy.ip(f"addr add {BRIDGE_IPV4}/32 dev lo\n")
        lies = [
            f"host-record=nginx2.{ZONE},{self.spy.ipv4}",
            f"host-record={OUTSIDE_NAME},{self.two.ipv4}",
        ]
        command = dnsmasq_command(
            BRIDGE_IPV4, DNS_PORT, lies, self.fabric[self.spy.label].directory
        )
        serving = self.spy.start(command)
        self.spy.wait_for_listener(serving, DNS_PORT)
        start_nginx(self.spy, "you have been had")

    def _serve_names(self) -> None:
        records = [f"host-record={name}.{ZONE},{virtual}" for name, virtual in VIRTUAL.items()]
        for name, virtual in VIRTUAL.items():
            records.append(f"ptr-record={ip_address(virtual).reverse_pointer},{name}.{ZONE}")
        records.append(f"host-record={OUTSIDE_NAME},{OUTSIDE}")
        directory = self.fabric.directory
        command = dnsmasq_command(BRIDGE_IPV4, DNS_PORT, records, directory)
        serving = self.fabric.node.start(command)
        self.fabric.node.wait_for_listener(serving, DNS_PORT)


def _has_roster(proxy: Proxy) -> bool:
    roster = proxy.status()["project"]["roster"]
    return bool(roster and roster["entries"])
