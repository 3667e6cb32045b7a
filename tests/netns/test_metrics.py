"""Metrics and health of running proxies, asked by curl as a pod's own programs ask."""

import contextlib
import socket

from prometheus_client.parser import text_string_to_metric_families
from support.exchanges import FAMILIES, address, udp
from support.kernel_state import kernel_state
from support.namespaces import Fabric, Namespace
from support.project import Project
from support.tencrypt import Proxy

PORT = 15090
NOT_LISTENING, CONNECTION_REFUSED, TIMED_OUT = "000", 7, 28


def ask(pod: Namespace, path: str, host: str = "127.0.0.1", port: int = PORT) -> tuple[str, str]:
    """Return status and body; status 000 where nobody answered."""
    command = ["curl", "-sS", "--max-time", "5", "-w", "\n%{http_code}"]
    url = f"http://{host}:{port}{path}"
    done = pod.run([*command, url], accept=(0, CONNECTION_REFUSED, TIMED_OUT))
    body, _, status = done.stdout.rpartition("\n")
    return status, body


def scrape(pod: Namespace) -> dict[str, float]:
    """Return the samples by name and the values of their labels, as `tencrypt_sessions confirmed`."""
    status, body = ask(pod, "/metrics")
    assert status == "200"
    return {
        " ".join((s.name, *(value for _, value in sorted(s.labels.items())))): s.value
        for family in text_string_to_metric_families(body)
        for s in family.samples
    }


def test_counters_move_with_pings_and_name_what_flows(fabric: Fabric) -> None:
    project = Project(fabric)
    project.start()
    one, two = fabric["nginx1"], fabric["nginx2"]
    before = scrape(one)
    assert before["tencrypt_ready"] == 1
    assert before["tencrypt_packets_total out encrypted"] == 0
    assert before["tencrypt_sessions confirmed"] == 0

    one.run(["ping", "-n", "-i", "0.05", "-c", "20", "-s", "1000", two.ipv4])
    after = {pod.label: scrape(pod) for pod in (one, two)}
    for values in after.values():
        for direction in ("in", "out"):
            assert values[f"tencrypt_packets_total {direction} encrypted"] >= 20
            assert values[f"tencrypt_packet_bytes_total {direction} encrypted"] >= 20 * 1028
        assert values["tencrypt_sessions confirmed"] == 1
    assert after["nginx1"]["tencrypt_handshakes_total opened initiator"] == 1
    assert after["nginx2"]["tencrypt_handshakes_total opened responder"] == 1

    status = project["nginx1"].status()
    expiry = after["nginx1"]["tencrypt_certificate_expiry_timestamp_seconds"]
    assert expiry == status["certificate"]["not_after"]
    assert after["nginx1"]["process_cpu_seconds_total"] > 0
    assert after["nginx1"]["process_resident_memory_bytes"] > 1 << 20

    # The session's counters outlive it.
    assert project["nginx2"].stop() == 0
    project["nginx1"].wait_for_event("session_closed")
    ended = scrape(one)
    assert ended["tencrypt_sessions confirmed"] == 0
    name = "tencrypt_packets_total out encrypted"
    assert ended[name] >= after["nginx1"][name]


def test_nobody_outside_the_pod_reaches_it(fabric: Fabric) -> None:
    Project(fabric).start()
    one, two = fabric["nginx1"], fabric["nginx2"]
    for family in FAMILIES:
        udp(one, two, family, b"hello")
        host = address(one, family)
        url = f"[{host}]" if family == "ipv6" else host
        assert ask(one, "/healthz") == ("200", "ok\n"), "it is there"
        for other in (two, fabric.node, one):
            assert ask(other, "/healthz", url) == (NOT_LISTENING, "")


def test_it_is_alive_but_not_ready_while_the_ca_does_not_answer(fabric: Fabric) -> None:
    project = Project(fabric)
    one = fabric["nginx1"]
    settings = {"ca_address": "https://10.77.0.1:9", "metrics_listen": f"[::1]:{PORT}"}
    proxy = Proxy(one, project.ca, project.members, settings=settings)
    proxy.start()
    proxy.wait_for_event("ca_unreachable")
    reason = "no certificate yet: the certificate authority has not answered\n"
    assert ask(one, "/readyz", "[::1]") == ("503", reason)
    assert ask(one, "/healthz", "[::1]") == ("200", "ok\n")
    assert "tencrypt_ready 0.0" in ask(one, "/metrics", "[::1]")[1]
    assert ask(one, "/healthz") == (NOT_LISTENING, ""), "not where it was not told to listen"
    assert proxy.stop() == 0


def test_it_is_not_ready_while_tenc0_is_down(fabric: Fabric) -> None:
    Project(fabric).start("nginx1")
    one = fabric["nginx1"]
    assert ask(one, "/readyz") == ("200", "ok\n")
    one.ip("link set tenc0 down\n")
    assert ask(one, "/readyz") == ("503", "the tunnel tenc0 is down\n")
    assert scrape(one)["tencrypt_ready"] == 0


def test_off_listens_nowhere(fabric: Fabric) -> None:
    project = Project(fabric)
    one = fabric["nginx1"]
    proxy = Proxy(one, project.ca, project.members, settings={"metrics_listen": "off"})
    proxy.start_and_wait()
    assert one.run(["ss", "--no-header", "--listening", "--tcp", "--numeric"]).stdout == ""


def test_a_port_in_use_is_one_line_and_exit_code_4_and_leaves_nothing(fabric: Fabric) -> None:
    project = Project(fabric)
    one = fabric["nginx1"]
    before = kernel_state(one)
    with one.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", PORT))
        other.listen()
        proxy = Proxy(one, project.ca, project.members)
        process = proxy.start()
        assert process.finish() == 4
    (line,) = proxy.events()
    del line["time"]
    assert line == {
        "level": "error",
        "event": "cannot_listen",
        "metrics_listen": f"127.0.0.1:{PORT}",
        "message": "Address already in use",
    }
    assert process.stderr.count("\n") == 1
    assert kernel_state(one) == before
    proxy.start_and_wait()


def test_programs_that_hold_connections_starve_neither_pings_nor_probes(fabric: Fabric) -> None:
    project = Project(fabric)
    project.start()
    one, two = fabric["nginx1"], fabric["nginx2"]
    udp(one, two, "ipv4", b"before")
    ping = one.start(["ping", "-n", "-i", "0.05", "-c", "60", "-q", two.ipv4])
    held = [one.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(40)]
    try:
        for number, each in enumerate(held):
            each.settimeout(20)
            each.connect(("127.0.0.1", PORT))
            with contextlib.suppress(ConnectionError):
                each.sendall(b"GET /metrics HTTP/1.1\r\nX: " if number % 2 else b"")
        assert ask(one, "/readyz") == ("200", "ok\n")
        assert ping.finish(30) == 0
        assert " 0% packet loss" in ping.stdout
        assert all(map(has_ended, held)), "by the next in their place, or by the time they have"
    finally:
        for each in held:
            each.close()


def has_ended(opened: socket.socket) -> bool:
    """Wait for the other end's close; TimeoutError where it does not come."""
    try:
        return opened.recv(1) == b""
    except ConnectionError:
        return True
