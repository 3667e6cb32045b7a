"""Services between running pods: virtual addresses that the node translates, and nothing of it in clear."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.capture import SESSION_PORT, Capture, Taps
from support.cluster import IN_CLUSTER, RANGES, ZONE, Cluster
from support.dns_server import DNS_PORT
from support.endpoints import endpoint, served, text_of
from support.exchanges import leaks, plain_kinds
from support.namespaces import Fabric, Pod, family_of
from support.processes import run, wait_for
from support.project import Project
from support.tencrypt import TENCRYPT, Json
from support.virtual import VIP, VIP6, Node

CANARY = b"canary-of-services-5e1d"
PORT, TARGET = 80, 8080
PORTS = {("tcp", PORT): TARGET, ("udp", PORT): TARGET}


@pytest.fixture
def trio() -> Iterator[Fabric]:
    """A client's pod, and two that may serve."""
    with Fabric("nginx1", "nginx2", "nginx3") as made:
        yield made


class Server:
    """Listens in a pod, and says on each connection whose it is."""

    def __init__(self, pod: Pod, address: str, port: int = TARGET) -> None:
        self.socket = pod.socket(family_of(address), socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.settimeout(15)
        self.socket.bind((address, port))
        self.socket.listen()

    def __enter__(self) -> socket.socket:
        return self.socket

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def call(pod: Pod, vip: str, listener: socket.socket) -> bytes:
    """Connect, say the canary, and return what the server heard."""
    with pod.socket(family_of(vip), socket.SOCK_STREAM) as client:
        client.settimeout(15)
        client.connect((vip, PORT))
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(15)
            client.send(CANARY)
            heard = accepted.recv(100)
            accepted.send(CANARY)
            assert client.recv(100) == CANARY
            assert client.getpeername()[0] == vip
            return heard


def only_sessions(captures: dict[str, Capture]) -> bool:
    """Say whether nobody saw the canary, nor anything but sessions.

    Connection tracking gives the datagrams of a session that began by way of a virtual address another source port,
    because what answers them would look as what answers the virtual address.
    """
    datagrams = [d for one in captures.values() for d in one.all_datagrams]
    others = {kind for one in captures.values() for kind in plain_kinds(one)}
    seen = any(one.holding(CANARY) for one in captures.values())
    ports = [{one.source_port, one.destination_port} for one in datagrams]
    return not seen and "TCP" not in others and all({SESSION_PORT, DNS_PORT} & one for one in ports)


def services(project: Project, pod_name: str) -> Json:
    found: Json = project[pod_name].status()["project"]["services"]
    return found


def with_endpoints(fabric: Fabric, path: Path, *items: Json) -> Project:
    """Return a project whose first pod alone knows Services and endpoints, from a file."""
    path.write_text(text_of(*items), encoding="utf-8")
    project = Project(fabric, {**IN_CLUSTER, "roster": "on", "dns": "off"})
    project.start(*list(fabric.pods)[1:])
    project.settings = {**project.settings, "endpoints_file": str(path)}
    project.start(next(iter(fabric.pods)))
    return project


def explain(project: Project, vip: str, port: int) -> str:
    """What `tencrypt explain` says of a Service in nginx1."""
    where = ("--socket", project["nginx1"].admin_socket)
    return run([TENCRYPT, "explain", vip, str(port), *where]).stdout


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_a_service_with_known_endpoints_is_reached_sealed_and_by_the_pods_own_address(
    fabric: Fabric, vip: str
) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    own = two.ipv6 if ":" in vip else two.ipv4
    project = with_endpoints(
        fabric, fabric.directory / "endpoints.json", *served(vip, PORT, [own], TARGET)
    )
    assert services(project, "nginx1")["count"] == 1
    told = explain(project, vip, PORT)
    end = f"[{own}]:{TARGET}" if ":" in own else f"{own}:{TARGET}"
    assert told.startswith(f"{vip}  encrypted")
    assert f"ENDPOINTS  {end}" in told
    assert "ENDPOINTS  none: refused" in explain(project, vip, PORT + 1)
    taps = Taps.everywhere(fabric)
    with Server(two, own) as listener:
        assert call(one, vip, listener) == CANARY
    captures = taps.stop()
    assert not leaks(captures, CANARY)
    assert not any(vip in kind for capture in captures.values() for kind in capture.said())


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_with_dns_alone_who_answers_the_virtual_address_serves_it(fabric: Fabric, vip: str) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    own = two.ipv6 if ":" in vip else two.ipv4
    cluster = Cluster(fabric)
    cluster.serve_again(f"host-record=web.{ZONE},{vip}")
    Node(fabric).serve(vip, [own], PORTS)
    # Before: the node does translate, and the bridge sees it.
    taps = Taps.everywhere(fabric)
    with Server(two, own) as listener:
        assert call(one, vip, listener) == CANARY
    assert leaks(taps.stop(), CANARY)
    cluster.project.settings = {**cluster.project.settings, "target_ports": {str(PORT): TARGET}}
    cluster.project.start()
    taps = Taps.everywhere(fabric)
    with Server(two, own) as listener:
        assert call(one, vip, listener) == CANARY
    assert only_sessions(taps.stop())
    assert "service_met" in cluster.project["nginx1"].event_names()


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_with_dns_alone_a_pod_that_the_network_leads_to_itself_serves_itself(
    fabric: Fabric, vip: str
) -> None:
    one = fabric["nginx1"]
    own = one.ipv6 if ":" in vip else one.ipv4
    cluster = Cluster(fabric)
    cluster.serve_again(f"host-record=web.{ZONE},{vip}")
    Node(fabric).serve(vip, [own], PORTS)
    cluster.project.settings = {**cluster.project.settings, "target_ports": {str(PORT): TARGET}}
    cluster.project.start("nginx1")
    taps = Taps.everywhere(fabric)
    with Server(one, own, PORT) as listener:
        for _ in range(2):
            assert call(one, vip, listener) == CANARY
    assert only_sessions(taps.stop())


def test_a_virtual_address_that_nobody_answers_is_refused_and_never_clear(fabric: Fabric) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    cluster = Cluster(fabric)
    cluster.serve_again(f"host-record=web.{ZONE},{VIP}")
    Node(fabric).serve(VIP, [two.ipv4], PORTS)
    cluster.project.start("nginx1")
    taps = Taps.everywhere(fabric)
    with one.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(15)
        assert client.connect_ex((VIP, PORT)) == errno.ECONNREFUSED
    assert only_sessions(taps.stop())


def test_connections_through_a_service_live_on_over_a_restart_and_changed_endpoints(
    trio: Fabric,
) -> None:
    one, two, three = trio.pods.values()
    path = trio.directory / "endpoints.json"
    both = served(VIP, PORT, [two.ipv4, three.ipv4], TARGET)
    project = with_endpoints(trio, path, *both)
    open_ones: list[tuple[socket.socket, socket.socket]] = []
    with Server(two, two.ipv4) as at_two, Server(three, three.ipv4) as at_three:
        for listener in (at_two, at_three):
            listener.settimeout(0.2)
        counts = {at_two: 0, at_three: 0}
        while not all(count >= 2 for count in counts.values()):
            open_ones.append(connect(one, counts))
        pids = project["nginx1"].kill_daemon()
        assert pids != 0
        project["nginx1"].start_and_wait()
        for client, accepted in open_ones:  # the servers speak first, to a proxy that begins
            accepted.send(CANARY)
            assert client.recv(100) == CANARY
        # One ends: it keeps what it has, and takes nothing new.
        ending = endpoint(two.ipv4, ready=False, serving=True, terminating=True)
        path.write_text(text_of(*served(VIP, PORT, [ending, three.ipv4], TARGET)), encoding="utf-8")
        wait_for("the file", lambda: project["nginx1"].event_names().count("services") == 2)
        for client, accepted in open_ones:
            client.send(CANARY)
            assert accepted.recv(100) == CANARY
        before = dict(counts)
        open_ones += [connect(one, counts) for _ in range(8)]
        assert counts == {at_two: before[at_two], at_three: before[at_three] + 8}
    for pair in open_ones:
        for end in pair:
            end.close()


def connect(pod: Pod, counts: dict[socket.socket, int]) -> tuple[socket.socket, socket.socket]:
    """Connect to the Service; both ends, whoever of the listeners has it."""
    client = pod.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(15)
    client.connect((VIP, PORT))
    while True:
        for listener in counts:
            try:
                accepted, _ = listener.accept()
            except TimeoutError:
                continue
            counts[listener] += 1
            accepted.settimeout(15)
            return client, accepted


def test_a_wrong_endpoints_file_keeps_the_last_valid_one_and_says_so(fabric: Fabric) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    path = fabric.directory / "endpoints.json"
    project = with_endpoints(fabric, path, *served(VIP, PORT, [two.ipv4], TARGET))
    path.write_text('{"items": 7}', encoding="utf-8")
    wait_for("the error", lambda: services(project, "nginx1")["error"] is not None)
    assert services(project, "nginx1") == {
        "file": str(path),
        "count": 1,
        "addresses": 1,
        "error": f"{path}: items: a list",
    }
    with Server(two, two.ipv4) as listener:
        assert call(one, VIP, listener) == CANARY


def test_permissive_seals_a_service_once_all_that_serve_it_have_certificates(trio: Fabric) -> None:
    one, two, three = trio.pods.values()
    path = trio.directory / "endpoints.json"
    path.write_text(text_of(*served(VIP, PORT, [two.ipv4, three.ipv4], TARGET)), encoding="utf-8")
    Node(trio).serve(VIP, [two.ipv4, three.ipv4], PORTS)
    settings = {**IN_CLUSTER, "roster": "on", "dns": "off", "encryption": "permissive"}
    project = Project(trio, {**settings, "endpoints_file": str(path)})
    project.start("nginx1", "nginx2")

    def member(pod_name: str, address: str) -> bool:
        found = project[pod_name].status()["project"]
        return address in found["members"] and found["kernel_settled"]

    wait_for("the roster", lambda: member("nginx1", two.ipv4))

    taps = Taps.everywhere(trio)
    begun = both_serve(one, two, three)
    assert leaks(taps.stop(), CANARY)
    # A pod that gets Tencrypt begins anew, and its connections with it; the other's go on.
    for pair in [pair for pair in begun if pair[1].getsockname()[0] == three.ipv4]:
        begun.remove(pair)
        for end in pair:
            end.close()
    project.start("nginx3")
    wait_for("the Service", lambda: member("nginx1", VIP))
    taps = Taps.everywhere(trio)
    later = both_serve(one, two, three)
    assert only_sessions(taps.stop())
    # What began in clear goes on, by the same way.
    for client, accepted in (*begun, *later):
        accepted.send(CANARY)
        client.send(CANARY)
        assert client.recv(100) == accepted.recv(100) == CANARY
        client.close()
        accepted.close()


def both_serve(client: Pod, *servers: Pod) -> list[tuple[socket.socket, socket.socket]]:
    """Connect to the Service until each server has a connection, and say the canary; the connections."""
    found = []
    with ExitStack() as stack:
        counts = {stack.enter_context(Server(one, one.ipv4)): 0 for one in servers}
        for listener in counts:
            listener.settimeout(0.2)
        while not all(counts.values()):
            found.append(connect(client, counts))
    for caller, accepted in found:
        caller.send(CANARY)
        assert accepted.recv(100) == CANARY
    return found


def test_ranges_hold_the_virtual_addresses() -> None:
    assert {"10.96.0.0/12", "fd77:7465:6e63::/48"} < set(RANGES)
