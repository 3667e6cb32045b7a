"""A file of Services and who serves them, as ``kubectl get services,endpointslices -o json`` writes it.

Of a v1 Service: its virtual addresses, ports and session affinity. Of a discovery.k8s.io/v1 EndpointSlice: addresses,
their conditions, and the numbers of the ports that the Service names. Keys that say nothing about these are not read.
"""

import json
import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from proxy.flow.services import ServicePort, Services
from proxy.packet.rewrite import End
from proxy.packet.upper import SCTP, TCP, UDP

LARGEST_FILE: Final = 4 << 20
MOST_SERVICES: Final = 10_000
MOST_ENDPOINTS: Final = 1_000
"""Characters of a file, Services in it, and endpoints of one port."""

_PROTOCOLS: Final = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_AFFINITY: Final = 10_800.0
"""Seconds: what the API server fills in for ``timeoutSeconds``."""

_Object = dict[str, object]
_PortName = tuple[str, int]
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class ServicesError(Exception):
    """A mistake in an endpoints file; its text is one line: where, what, and what is accepted."""


def parse_services(text_untrusted: str, file_name: str, namespace: str) -> Services:
    """Return the Services of a project's ``namespace``; others are not heeded. Raises `ServicesError` alone."""
    if len(text_untrusted) > LARGEST_FILE:
        raise ServicesError(f"{file_name}: more than {LARGEST_FILE >> 20} MB")
    try:
        content: object = json.loads(text_untrusted)
    except RecursionError:
        raise ServicesError(f"{file_name}: nested too deep to be endpoints") from None
    except ValueError as error:
        raise ServicesError(f"{file_name}: not JSON: {error}") from None
    try:
        return _Reading(namespace).read(content)
    except _Mistake as mistake:
        raise ServicesError(f"{file_name}: {mistake}") from None


class _Mistake(Exception):  # noqa: N818 - becomes a ServicesError where the file's name is known
    """Where in the file, and what is accepted there."""


class _Reading:
    """Reads Services first, for slices may stand before them."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._services = Services()
        self._ports: dict[tuple[str, int], dict[_PortName, ServicePort]] = {}

    def read(self, content: object) -> Services:
        items = list(_list(_object(content, "the file"), "items", ""))
        kinds: dict[str, list[tuple[_Object, str]]] = {"Service": [], "EndpointSlice": []}
        for item, where in items:
            kept = kinds.get(_text(item, "kind", where))
            if kept is not None and self._is_ours(item, where):
                kept.append((item, where))
        if len(kinds["Service"]) > MOST_SERVICES:
            raise _Mistake(f"items: more than {MOST_SERVICES} Services")
        for item, where in kinds["Service"]:
            self._service(item, where)
        for item, where in kinds["EndpointSlice"]:
            self._slice(item, where)
        return self._services

    def _is_ours(self, item: _Object, where: str) -> bool:
        metadata = _table(item, "metadata", where)
        return _text(metadata, "namespace", f"{where}.metadata") == self._namespace

    def _service(self, item: _Object, where: str) -> None:
        name = _text(_table(item, "metadata", where), "name", f"{where}.metadata")
        if not _NAME.fullmatch(name):
            raise _Mistake(f"{where}.metadata.name: lower-case letters, digits and '-', 63 at most")
        spec, where = _table(item, "spec", where), f"{where}.spec"
        addresses = _cluster_addresses(spec, where)
        if not addresses:
            return
        affinity = _affinity(spec, where)
        for port, place in _list(spec, "ports", where):
            protocol = _protocol(port, place)
            number = _port(port, place)
            port_name = _text(port, "name", place, "")
            for address in addresses:
                served = ServicePort(f"{self._namespace}/{name}", affinity)
                try:
                    self._services.add(address, served.name, protocol, number, served)
                except ValueError as error:
                    raise _Mistake(f"{where}: {error}") from None
                family = self._ports.setdefault((name, len(address)), {})
                if family.setdefault((port_name, protocol), served) is not served:
                    raise _Mistake(f"{place}.name: another port of the Service has it")

    def _slice(self, item: _Object, where: str) -> None:
        kind = _text(item, "addressType", where)
        labels = _table(_table(item, "metadata", where), "labels", f"{where}.metadata", {})
        name = _text(labels, "kubernetes.io/service-name", f"{where}.metadata.labels", "")
        size = {"IPv4": 4, "IPv6": 16}.get(kind)
        if size is None:
            return
        family = self._ports.get((name, size), {})
        numbers: list[tuple[ServicePort, int]] = []
        for port, place in _list(item, "ports", where):
            served = family.get((_text(port, "name", place, ""), _protocol(port, place)))
            if served is not None and port.get("port") is not None:
                numbers.append((served, _port(port, place)))
        for endpoint, place in _list(item, "endpoints", where):
            self._endpoint(endpoint, place, size, numbers)

    def _endpoint(
        self, endpoint: _Object, where: str, size: int, numbers: list[tuple[ServicePort, int]]
    ) -> None:
        conditions = _table(endpoint, "conditions", where, {})
        place = f"{where}.conditions"
        # What is not said: see the API's reference of EndpointConditions.
        ready = _flag(conditions, "ready", place, unsaid=True)
        serving = _flag(conditions, "serving", place, unsaid=ready)
        terminating = _flag(conditions, "terminating", place, unsaid=False)
        packed = _addresses(endpoint, "addresses", where)
        if any(len(address) != size for address in packed):
            raise _Mistake(f"{where}.addresses: of the slice's addressType")
        for served, number in numbers:
            for address in packed:
                end = End(address, number)
                if end not in served.all and len(served.all) >= MOST_ENDPOINTS:
                    raise _Mistake(f"{where}: more than {MOST_ENDPOINTS} endpoints of one port")
                served.add(
                    end, ready=ready and not terminating, ending=(serving or ready) and terminating
                )


def _cluster_addresses(spec: _Object, where: str) -> list[bytes]:
    """Return a Service's virtual addresses; none of a headless one, or one that is a name for another."""
    single = _text(spec, "clusterIP", where, "")
    if single in {"", "None"} and spec.get("clusterIPs") is None:
        return []
    if spec.get("clusterIPs") is None:
        return [_address(single, f"{where}.clusterIP")]
    if spec["clusterIPs"] == ["None"]:
        return []
    return _addresses(spec, "clusterIPs", where)


def _affinity(spec: _Object, where: str) -> float | None:
    kind = _text(spec, "sessionAffinity", where, "None")
    if kind == "None":
        return None
    if kind != "ClientIP":
        raise _Mistake(f"{where}.sessionAffinity: None or ClientIP")
    place = f"{where}.sessionAffinityConfig"
    client = _table(_table(spec, "sessionAffinityConfig", where, {}), "clientIP", place, {})
    seconds = client.get("timeoutSeconds")
    if seconds is None:
        return _AFFINITY
    if type(seconds) is not int or not 1 <= seconds <= 86_400:
        raise _Mistake(f"{place}.clientIP.timeoutSeconds: seconds from 1 to 86400")
    return float(seconds)


def _protocol(port: _Object, where: str) -> int:
    protocol = _PROTOCOLS.get(_text(port, "protocol", where, "TCP"))
    if protocol is None:
        raise _Mistake(f"{where}.protocol: {', '.join(_PROTOCOLS)}")
    return protocol


def _port(port: _Object, where: str) -> int:
    number = port.get("port")
    if type(number) is not int or not 1 <= number <= 0xFFFF:
        raise _Mistake(f"{where}.port: a port from 1 to 65535")
    return number


def _object(value: object, where: str) -> _Object:
    if not isinstance(value, dict):
        raise _Mistake(f"{where}: an object")
    return value


def _table(parent: _Object, key: str, where: str, unsaid: _Object | None = None) -> _Object:
    value = parent.get(key)
    if value is None and unsaid is not None:
        return unsaid
    return _object(value, f"{where}.{key}")


def _list(parent: _Object, key: str, where: str) -> Iterator[tuple[_Object, str]]:
    """Yield the objects of a list, which may be left out but at the file's top, each with its place."""
    place = f"{where}.{key}" if where else key
    value = parent.get(key)
    if value is None and where:
        return
    if not isinstance(value, list):
        raise _Mistake(f"{place}: a list")
    for number, item in enumerate(value):
        yield _object(item, f"{place}[{number}]"), f"{place}[{number}]"


def _text(parent: _Object, key: str, where: str, unsaid: str | None = None) -> str:
    value = parent.get(key)
    if value is None and unsaid is not None:
        return unsaid
    if not isinstance(value, str):
        raise _Mistake(f"{where}.{key}: a text")
    return value


def _flag(parent: _Object, key: str, where: str, *, unsaid: bool) -> bool:
    value = parent.get(key)
    if value is None:
        return unsaid
    if not isinstance(value, bool):
        raise _Mistake(f"{where}.{key}: true or false")
    return value


def _addresses(parent: _Object, key: str, where: str) -> list[bytes]:
    value = parent.get(key)
    if not isinstance(value, list):
        raise _Mistake(f"{where}.{key}: a list of addresses")
    return [_address(one, f"{where}.{key}[{number}]") for number, one in enumerate(value)]


def _address(value: object, where: str) -> bytes:
    try:
        address = ip_address(value if isinstance(value, str) and "%" not in value else "")
    except ValueError:
        raise _Mistake(f"{where}: an IPv4 or IPv6 address") from None
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        raise _Mistake(f"{where}: a unicast address that others reach")
    return address.packed
