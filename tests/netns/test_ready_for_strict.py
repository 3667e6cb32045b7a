"""From nothing to strict without a failed request, by what `tencrypt check --ready-for strict` says."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.cluster import Cluster
from support.namespaces import Fabric, Pod
from support.processes import run, wait_for
from support.servers import tcp_echo
from support.tencrypt import TENCRYPT, Json, Proxy

PORT = 7001


@pytest.fixture
def pods() -> Iterator[Fabric]:
    with Fabric("nginx1", "nginx2", "probe") as made, ExitStack() as stack:
        for pod in made.pods.values():
            stack.enter_context(tcp_echo(pod, pod.ipv4, PORT))
        yield made


def answered(client: Pod, address: str) -> bool:
    with client.socket(socket.AF_INET, socket.SOCK_STREAM) as program:
        program.settimeout(5)
        try:
            program.connect((address, PORT))
            program.send(b"request")
            return program.recv(100) == b"request"
        except OSError:
            return False


def check(proxy: Proxy, *more: str) -> tuple[int, Json, str]:
    """Exit code, the answer for programs, and the screen."""
    strict = ("check", "--ready-for", "strict")
    words: list[str | Path] = [TENCRYPT, *strict, "--socket", proxy.admin_socket, *more]
    done = run(words, accept=(0, 6))
    answer: Json = json.loads(run([*words, "--json"], accept=(0, 6)).stdout)
    return done.returncode, answer, done.stdout


def restart(proxy: Proxy, pod: Pod, cluster: Cluster, **settings: str | list[str]) -> Proxy:
    assert proxy.stop() == 0
    made = Proxy(pod, cluster.project.ca, (), settings={**cluster.project.settings, **settings})
    made.start_and_wait()
    return made


def test_what_check_says_is_done_and_strict_then_breaks_no_request(pods: Fabric) -> None:
    one, two, probe = pods.pods.values()
    cluster = Cluster(pods, {"roster": "on", "encryption": "permissive"})
    project = cluster.project
    project.start("nginx1")
    first = project["nginx1"]
    wait_for(
        "the list",
        lambda: check(first)[1]["summary"] != "no signed list of the project's pods has come yet",
    )
    assert check(first)[0] == 0
    assert answered(one, two.ipv4)
    assert answered(probe, one.ipv4)
    code, answer, screen = check(first)
    assert code == 6
    assert "NOT READY: strict would refuse 2 flows" in screen
    found = {(flow["direction"], flow["address"]): flow for flow in answer["flows"]}
    assert set(found) == {("spoken", two.ipv4), ("heard", probe.ipv4)}
    assert found["spoken", two.ipv4]["name"] == "nginx2.shop.svc.cluster.local"
    assert found["spoken", two.ipv4]["what"].startswith("a pod: give it Tencrypt")
    listed = found["heard", probe.ipv4]["what"].partition("clear_in = ")[2]
    assert listed == f'["{probe.ipv4} tcp/{PORT}"]'

    # What it says is done: one pod gets Tencrypt, the other is listed.
    project.start("nginx2")
    first = restart(first, one, cluster, encryption="permissive", clear_in=json.loads(listed))
    wait_for("the list", lambda: two.ipv4 in first.status()["project"]["members"])
    wait_for("the kernel", lambda: bool(first.status()["project"]["kernel_settled"]))
    assert answered(one, two.ipv4)
    assert answered(probe, one.ipv4)
    assert check(first)[0] == 0, check(first)[2]

    first = restart(first, one, cluster, encryption="strict", clear_in=json.loads(listed))
    assert check(first)[1]["summary"] == "encryption is strict already"
    assert answered(one, two.ipv4)
    assert answered(two, one.ipv4)
    assert answered(probe, one.ipv4)
    assert not answered(one, probe.ipv4)


def test_check_is_about_recent_flows_where_it_is_asked_for(pods: Fabric) -> None:
    one, two, _ = pods.pods.values()
    cluster = Cluster(pods, {"roster": "on", "encryption": "permissive"})
    cluster.project.start("nginx1")
    proxy = cluster.project["nginx1"]
    wait_for("clear to be permitted", lambda: answered(one, two.ipv4))
    assert check(proxy, "--since", "1h")[0] == 6
    wait_for("it to be old", lambda: check(proxy, "--since", "1s")[0] == 0)
    done = run([TENCRYPT, "check", "--ready-for", "strict", "--since", "1d"], accept=(2,))
    assert "1d: a time as 30s, 10m or 2h" in done.stderr


def test_check_without_a_proxy_is_one_line(pods: Fabric) -> None:
    missing = pods.directory / "nobody.sock"
    done = run([TENCRYPT, "check", "--ready-for", "strict", "--socket", missing], accept=(1,))
    assert (
        done.stderr
        == f"tencrypt: check: no proxy answers at {missing}: No such file or directory\n"
    )
