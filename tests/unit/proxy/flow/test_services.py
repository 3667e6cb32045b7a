"""An endpoints file: what kubectl writes is understood, mistakes are named by place, and the right pods are chosen."""

import json
from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.endpoints import endpoint, endpoint_slice, read, served, service, text_of

from proxy.flow import endpoints_file
from proxy.flow.endpoints_file import MOST_ENDPOINTS, ServicesError, parse_services
from proxy.flow.services import ServicePort, Services
from proxy.packet.rewrite import End
from proxy.packet.upper import SCTP, TCP, UDP

VIP, VIP6 = "172.30.0.9", "fd00:1::9"
WEB = {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web"}


def packed(text: str) -> bytes:
    return ip_address(text).packed


def end(address: str, port: int) -> End:
    return End(packed(address), port)


def port_of(services: Services, vip: str = VIP, protocol: int = TCP, port: int = 80) -> ServicePort:
    found = services.find(packed(vip), protocol, port)
    assert found is not None
    return found


def test_named_target_port_is_the_number_that_the_slice_gives() -> None:
    services = read(
        service("web", [VIP], [WEB, {"name": "metrics", "port": 9000}]),
        endpoint_slice(
            "web",
            [endpoint("10.0.0.2")],
            [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9100}],
        ),
        endpoint_slice("web", [endpoint("10.0.0.3")], [{"name": "http", "port": 8081}], number=2),
    )
    assert port_of(services).all == {end("10.0.0.2", 8080), end("10.0.0.3", 8081)}
    assert port_of(services, port=9000).all == {end("10.0.0.2", 9100)}
    assert services.names == {packed(VIP): "shop/web"}


@pytest.mark.parametrize(("protocol", "number"), [("TCP", TCP), ("UDP", UDP), ("SCTP", SCTP)])
def test_one_port_may_be_served_by_several_protocols(protocol: str, number: int) -> None:
    services = read(*served(VIP, 53, ["10.0.0.2"], 5353, protocols=(protocol,)))
    assert port_of(services, protocol=number, port=53).all == {end("10.0.0.2", 5353)}
    others = {TCP, UDP, SCTP} - {number}
    assert not any(services.find(packed(VIP), other, 53) for other in others)


def test_each_family_has_its_own_endpoints() -> None:
    ports = [{"name": "http", "port": 8080}]
    services = read(
        endpoint_slice("web", [endpoint("fd00::2")], ports, "IPv6", 2),
        endpoint_slice("web", [endpoint("10.0.0.2")], ports),
        service("web", [VIP, VIP6], [WEB]),
    )
    assert port_of(services).all == {end("10.0.0.2", 8080)}
    assert port_of(services, VIP6).all == {end("fd00::2", 8080)}


def test_headless_external_and_foreign_services_are_not_heeded() -> None:
    foreign = service("web", ["172.30.0.10"], [WEB])
    foreign["metadata"]["namespace"] = "other"
    external = service("out", [""], [WEB], type="ExternalName", clusterIPs=None)
    pod = {"kind": "Pod", "metadata": {"name": "x"}}
    services = read(service("db", ["None"], [WEB]), foreign, external, pod)
    assert services.names == {}


@pytest.mark.parametrize(
    ("endpoints", "chosen"),
    [
        ([endpoint("10.0.0.2"), endpoint("10.0.0.3", ready=False)], {"10.0.0.2"}),
        (
            [
                endpoint("10.0.0.2"),
                endpoint("10.0.0.3", ready=False, serving=True, terminating=True),
            ],
            {"10.0.0.2"},
        ),
        (
            [
                endpoint("10.0.0.2", ready=False),
                endpoint("10.0.0.3", ready=False, serving=True, terminating=True),
            ],
            {"10.0.0.3"},
        ),
        ([endpoint("10.0.0.2"), endpoint("10.0.0.3", terminating=True)], {"10.0.0.2"}),
        ([endpoint("10.0.0.2", ready=False, terminating=True)], set()),
        ([{"addresses": ["10.0.0.2"]}], {"10.0.0.2"}),
        ([{"addresses": ["10.0.0.2"], "conditions": {"terminating": True}}], {"10.0.0.2"}),
    ],
    ids=[
        "ready",
        "not the ending",
        "ending where no other",
        "ready to the end",
        "nobody",
        "unsaid",
        "unsaid, ending",
    ],
)
def test_new_flows_go_to_the_ready_else_to_those_that_serve_while_they_end(
    endpoints: list[dict[str, Any]], chosen: set[str]
) -> None:
    port = port_of(read(*served(VIP, 80, endpoints)))
    found = {port.choose(bytes((number,))) for number in range(50)}
    expected: set[End | None] = {end(one, 80) for one in chosen}
    assert found == (expected or {None})


def test_endpoint_of_two_slices_is_ready_where_one_says_so() -> None:
    ports = [{"name": "http", "port": 80}]
    services = read(
        service("web", [VIP], [WEB]),
        endpoint_slice("web", [endpoint("10.0.0.2", ready=False)], ports),
        endpoint_slice("web", [endpoint("10.0.0.2")], ports, number=2),
    )
    assert port_of(services).choose(b"") == end("10.0.0.2", 80)


def test_flows_are_spread_and_few_move_when_an_endpoint_goes() -> None:
    pods = [f"10.0.0.{number}" for number in range(2, 7)]
    before = port_of(read(*served(VIP, 80, pods)))
    after = port_of(read(*served(VIP, 80, pods[1:])))
    flows = [number.to_bytes(2, "big") for number in range(2000)]
    spread = Counter(before.choose(flow) for flow in flows)
    assert min(spread.values()) > 300
    moved = [flow for flow in flows if before.choose(flow) != after.choose(flow)]
    assert len(moved) == spread[end(pods[0], 80)]


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, None),
        ({"sessionAffinity": "ClientIP"}, 10_800.0),
        (
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            },
            60.0,
        ),
    ],
    ids=["none", "default", "said"],
)
def test_affinity_is_read(spec: dict[str, Any], seconds: float | None) -> None:
    assert port_of(read(*served(VIP, 80, ["10.0.0.2"], **spec))).affinity == seconds


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("items", {}, "items: a list"),
        ("items 0", "web", "items[0]: an object"),
        ("items 0 kind", None, "items[0].kind: a text"),
        ("items 0 metadata", [], "items[0].metadata: an object"),
        ("items 0 metadata name", "We b\n", "items[0].metadata.name: lower-case letters, digits and '-', 63 at most"),
        ("items 0 spec clusterIPs", "None", "items[0].spec.clusterIPs: a list of addresses"),
        ("items 0 spec clusterIPs", ["10.0.0.300"], "items[0].spec.clusterIPs[0]: an IPv4 or IPv6 address"),
        ("items 0 spec clusterIPs", ["127.0.0.1"], "items[0].spec.clusterIPs[0]: a unicast address that others reach"),
        ("items 0 spec ports 0 port", 0, "items[0].spec.ports[0].port: a port from 1 to 65535"),
        ("items 0 spec ports 0 port", True, "items[0].spec.ports[0].port: a port from 1 to 65535"),
        ("items 0 spec ports 0 protocol", "tcp", "items[0].spec.ports[0].protocol: TCP, UDP, SCTP"),
        ("items 0 spec sessionAffinity", "Cookie", "items[0].spec.sessionAffinity: None or ClientIP"),
        ("items 1 ports 0 port", 65_536, "items[1].ports[0].port: a port from 1 to 65535"),
        ("items 1 endpoints 0 conditions ready", "yes", "items[1].endpoints[0].conditions.ready: true or false"),
        ("items 1 endpoints 0 addresses", ["fd00::2"], "items[1].endpoints[0].addresses: of the slice's addressType"),
    ],
    ids=str,
)  # fmt: skip
def test_mistake_is_one_line_that_says_where_and_what_is_accepted(
    path: str, value: object, message: str
) -> None:
    content: Any = json.loads(text_of(*served(VIP, 80, ["10.0.0.2"], protocols=("TCP",))))
    *way, last = [int(word) if word.isdigit() else word for word in path.split()]
    parent = content
    for word in way:
        parent = parent[word]
    parent[last] = value
    with pytest.raises(ServicesError) as caught:
        parse_services(json.dumps(content), "endpoints.json", "shop")
    assert str(caught.value) == f"endpoints.json: {message}"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [*served(VIP, 80, []), *served(VIP, 81, [], name="db")],
            "items[2].spec: 172.30.0.9 is also that of shop/web",
        ),
        (
            [service("web", [VIP], [WEB, WEB | {"name": "again"}])],
            "items[0].spec: port 80 is there twice",
        ),
        (
            [service("web", [VIP], [WEB, WEB | {"port": 81}])],
            "items[0].spec.ports[1].name: another port of the Service has it",
        ),
    ],
    ids=["address", "port", "name"],
)
def test_contradiction_is_refused(items: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(
        ServicesError, match=f"^endpoints.json: {message.replace('[', chr(92) + '[')}$"
    ):
        read(*items)


def test_bounds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"10.0.{number >> 8}.{number & 255}" for number in range(MOST_ENDPOINTS + 1)]
    assert len(port_of(read(*served(VIP, 80, many[:-1]))).all) == MOST_ENDPOINTS
    with pytest.raises(ServicesError, match="more than 1000 endpoints of one port"):
        read(*served(VIP, 80, many))
    with pytest.raises(ServicesError, match="more than 4 MB"):
        parse_services(" " * ((4 << 20) + 1), "endpoints.json", "shop")
    monkeypatch.setattr(endpoints_file, "MOST_SERVICES", 1)
    with pytest.raises(ServicesError, match="items: more than 1 Services"):
        read(service("a", [VIP], [WEB]), service("b", ["172.30.0.10"], [WEB]))


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "[]", "{}", '{"items": null}', "1e999", "NaN"]
)
def test_what_is_no_list_of_kubernetes_is_refused(text: str) -> None:
    with pytest.raises(ServicesError) as caught:
        parse_services(text, "endpoints.json", "shop")
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(data=st.data(), value=json_values)
def test_whatever_stands_at_any_place_is_read_or_refused(
    data: st.DataObject, value: object
) -> None:
    content: Any = json.loads(text_of(*served(VIP, 80, ["10.0.0.2"])))
    parent = content
    while True:
        key = data.draw(
            st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent)))
        )
        if not isinstance(parent[key], dict | list) or not parent[key] or data.draw(st.booleans()):
            break
        parent = parent[key]
    parent[key] = value
    try:
        parse_services(json.dumps(content), "endpoints.json", "shop")
    except ServicesError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
