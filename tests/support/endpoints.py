"""What ``kubectl get services,endpointslices -o json`` writes: what Tencrypt reads, and some that it does not."""

import json
from collections.abc import Sequence
from typing import Any

from proxy.flow.endpoints_file import parse_services
from proxy.flow.services import Services

NAMESPACE = "shop"

Item = dict[str, Any]


def service(name: str, addresses: list[str], ports: list[Item], **spec: object) -> Item:
    """Return a v1 Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "resourceVersion": "4711"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ports": ports,
            "sessionAffinity": "None",
        }
        | spec,
        "status": {"loadBalancer": {}},
    }


def endpoint_slice(
    name: str, endpoints: list[Item], ports: list[Item], kind: str = "IPv4", number: int = 1
) -> Item:
    """Return an EndpointSlice of a Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": kind,
        "metadata": {
            "name": f"{name}-{number}",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": name},
        },
        "endpoints": endpoints,
        "ports": ports,
    }


def endpoint(
    address: str, *, ready: bool = True, serving: bool | None = None, terminating: bool = False
) -> Item:
    """Return one endpoint."""
    serving = ready if serving is None else serving
    conditions = {"ready": ready, "serving": serving, "terminating": terminating}
    return {"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod"}}


def text_of(*items: Item) -> str:
    """Return the file."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {}})


def read(*items: Item) -> Services:
    """Return what Tencrypt reads of it."""
    return parse_services(text_of(*items), "endpoints.json", NAMESPACE)


def served(
    vip: str,
    port: int,
    pods: Sequence[str | Item],
    target: int | None = None,
    *,
    protocols: Sequence[str] = ("TCP", "UDP", "SCTP"),
    name: str = "web",
    **spec: Any,
) -> list[Item]:
    """Return a Service of one port by several protocols, and the slice of its pods."""
    named = [{"name": one.lower(), "protocol": one} for one in protocols]
    endpoints = [endpoint(one) if isinstance(one, str) else one for one in pods]
    family = "IPv6" if ":" in vip else "IPv4"
    return [
        service(name, [vip], [one | {"port": port, "targetPort": "x"} for one in named], **spec),
        endpoint_slice(name, endpoints, [one | {"port": target or port} for one in named], family),
    ]
