"""The demo's promise: what anybody on the bridge reads without Tencrypt, nobody reads with it."""

from pathlib import Path

from support.capture import Capture, Taps
from support.exchanges import FAMILIES, Family, leaks, sealed_bytes
from support.namespaces import Fabric, Pod
from support.project import Project
from support.servers import start_nginx

REQUEST = b"canary-request-5e1f"
ANSWER = b"canary-answer-77aa"
PAGE = ANSWER * 50_000
POINTS = {"node:br0", "node:veth-nginx1", "node:veth-nginx2", "nginx1:eth0", "nginx2:eth0"}


def curl(client: Pod, server: Pod, family: Family) -> None:
    """Fetch the page, a secret in the request's head."""
    host = f"[{server.ipv6}]" if family == "ipv6" else server.ipv4
    head = ("-H", f"Authorization: Bearer {REQUEST.decode()}")
    got = client.run(["curl", "-sS", "--max-time", "20", *head, f"http://{host}/page"]).stdout
    assert got.encode() == PAGE


def watched(fabric: Fabric, family: Family) -> dict[str, Capture]:
    """Fetch the page while every point is listened at; what each has seen."""
    taps = Taps.everywhere(fabric)
    curl(fabric["nginx1"], fabric["nginx2"], family)
    captures = taps.stop()
    assert set(captures) == POINTS
    return captures


def test_a_curl_is_read_by_everybody_without_tencrypt_and_by_nobody_with_it(
    fabric: Fabric,
) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    start_nginx(two, ANSWER.decode())
    served: Path = two.directory / f"{two.label}.nginx" / "html" / "page"
    served.write_bytes(PAGE)

    for family in FAMILIES:
        for capture in watched(fabric, family).values():
            for canary in (REQUEST, ANSWER, b"HTTP/1.1"):
                assert capture.holding(canary), (family, capture.point, canary)

    Project(fabric).start()

    for family in FAMILIES:
        sealed = watched(fabric, family)
        assert not leaks(sealed, REQUEST, ANSWER, b"HTTP/1.1", b"nginx")
        for capture in sealed.values():
            assert sealed_bytes(capture, two, one) >= len(PAGE), capture.point
            assert sealed_bytes(capture, one, two) >= len(REQUEST), capture.point


def test_who_is_no_member_is_left_alone(fabric: Fabric) -> None:
    start_nginx(fabric["nginx2"], ANSWER.decode())
    Project(fabric).start("nginx2")
    for host in (fabric["nginx2"].ipv4, f"[{fabric['nginx2'].ipv6}]"):
        got = fabric.node.run(["curl", "-sS", "--max-time", "20", f"http://{host}/"]).stdout
        assert ANSWER.decode() in got
