"""An orderly stop, the status of a running proxy, and two proxies of one pod."""

import json
import re
from collections.abc import Iterator

import pytest
from support.capture import Taps
from support.exchanges import FAMILIES, udp
from support.kernel_state import kernel_state
from support.namespaces import Fabric
from support.processes import run
from support.project import Project
from support.tencrypt import SERVICE_ACCOUNT, TENCRYPT, TRUST_DOMAIN, Proxy

CANARY = b"canary at the end"
IDENTITY = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/{SERVICE_ACCOUNT}"


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with Fabric("nginx1", "nginx2") as fabric:
        made = Project(fabric)
        made.start()
        yield made


def test_status_tells_programs_who_is_at_the_other_end(project: Project) -> None:
    one, two = project.fabric["nginx1"], project.fabric["nginx2"]
    for family in FAMILIES:
        udp(one, two, family, bytes(1000))
    status = project["nginx1"].status()

    assert status["pod"] == {
        "name": "nginx1",
        "identity": IDENTITY,
        "addresses": [one.ipv4, one.ipv6],
    }
    assert 86_000 < status["certificate"]["remaining_seconds"] <= 86_400
    (session,) = status["sessions"]
    assert session["peer"] == {
        "name": "nginx2",
        "identity": IDENTITY,
        "addresses": [two.ipv4, two.ipv6],
    }
    assert session["peer_serial"] == project["nginx2"].status()["certificate"]["serial"]
    assert session["endpoint"] == f"{two.ipv4}:15443"
    assert (session["state"], session["role"]) == ("confirmed", "initiator")
    assert session["cipher"] == "TLS_AES_256_GCM_SHA384"
    assert session["group"] == "X25519MLKEM768"
    assert session["packets_in"] == session["packets_out"] == 2
    assert session["bytes_in"] == session["bytes_out"] == 1028 + 1048
    assert session["age_seconds"] >= 0


def test_status_tells_people_the_same(project: Project) -> None:
    udp(project.fabric["nginx1"], project.fabric["nginx2"], "ipv4", b"hello")
    socket = project["nginx1"].admin_socket
    first, second, *rows = run([TENCRYPT, "status", "--socket", socket]).stdout.splitlines()
    assert first.startswith(f"nginx1  {IDENTITY}  10.77.0.11 ")
    assert re.fullmatch(r"certificate [0-9a-f]+, 23h[0-9]{2}m left", second)
    heads, session = rows[rows.index("") + 1 :][:2]
    assert heads.split()[:3] == ["PEER", "IDENTITY", "ENDPOINT"]
    assert session.split()[:4] == ["nginx2", IDENTITY, "10.77.0.12:15443", "confirmed"]


def test_rekey_replaces_each_session_and_loses_nothing(project: Project) -> None:
    one, two = project.fabric["nginx1"], project.fabric["nginx2"]
    udp(one, two, "ipv4", b"before")
    socket = project["nginx1"].admin_socket
    (before,) = sealing(project["nginx1"])
    ping = one.start(["ping", "-n", "-i", "0.02", "-c", "100", "-q", two.ipv4])
    told = run([TENCRYPT, "rekey", "--socket", socket]).stdout.splitlines()
    assert told[0].split() == ["PEER", "IDENTITY", "BEFORE", "AFTER"]
    assert told[1].split() == ["nginx2", IDENTITY, str(before), str(before + 1)]
    assert sealing(project["nginx1"]) == sealing(project["nginx2"]) == [before + 1]
    assert ping.finish(30) == 0
    assert " 0% packet loss" in ping.stdout

    nobody = run([TENCRYPT, "rekey", "nobody", "--socket", socket], accept=(1,))
    assert nobody.stdout == "no session with nobody\n"


def test_rekey_that_fails_leaves_the_session_in_use(fabric: Fabric) -> None:
    project = Project(fabric)
    project.start()
    udp(fabric["nginx1"], fabric["nginx2"], "ipv4", CANARY)
    assert project["nginx2"].kill_daemon() == 1
    socket = project["nginx1"].admin_socket
    done = run([TENCRYPT, "rekey", "--json", "--socket", socket], accept=(1,))
    (session,) = json.loads(done.stdout)["sessions"]
    assert (session["peer"], session["after"]) == ("nginx2", None)
    assert sealing(project["nginx1"]) == [session["before"]]


def sealing(proxy: Proxy) -> list[int]:
    """Give the generations of the sessions that seal."""
    return [s["generation"] for s in proxy.status()["sessions"] if s["state"] == "confirmed"]


def test_status_where_no_proxy_runs_is_one_line(project: Project) -> None:
    path = project.fabric.directory / "nobody.sock"
    done = run([TENCRYPT, "status", "--socket", path], accept=(1,))
    said = f"tencrypt: status: no proxy answers at {path}: No such file or directory\n"
    assert (done.stdout, done.stderr) == ("", said)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"members": ["10.77.0.12"]},
        {"session_port": 4433},
        {"daemon_uid": 15444},
        {"addresses": ["10.77.0.11"]},
    ],
    ids=str,
)
def test_a_second_proxy_in_the_pod_is_refused_and_does_not_harm_the_first(
    project: Project, settings: dict[str, str | int | list[str]]
) -> None:
    one, two = project.fabric["nginx1"], project.fabric["nginx2"]
    udp(one, two, "ipv4", b"before")
    state, sessions = kernel_state(one), project["nginx1"].status()["sessions"]
    second = Proxy(one, project.ca, project.members, settings=settings)

    process = second.start()
    assert process.finish() == 1
    why = "tenc0 is in use: Tencrypt already runs in this network namespace"
    assert process.stderr == f"tencrypt: {why}\n"

    assert kernel_state(one) == state
    for family in FAMILIES:
        udp(one, two, family, b"after")
        udp(two, one, family, b"after")
    after = project["nginx1"].status()["sessions"]
    assert [s["generation"] for s in after] == [s["generation"] for s in sessions]


def test_an_orderly_stop_leaves_members_refused_and_net_down_leaves_no_trace(
    fabric: Fabric,
) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    project = Project(fabric)
    before = kernel_state(one), kernel_state(two)
    project.start()
    udp(one, two, "ipv4", CANARY)
    assert kernel_state(one) != before[0]

    assert [project[name].stop() for name in ("nginx1", "nginx2")] == [0, 0]
    assert project["nginx1"].event_names()[-1] == "stopped"
    assert not project["nginx1"].admin_socket.exists()
    one.run(["ping", "-c", "1", "-W", "1", two.ipv4], accept=(1, 2))
    for pod in (one, two):
        run([TENCRYPT, "net", "down", "--netns", pod.path])
    assert (kernel_state(one), kernel_state(two)) == before
    taps = Taps.everywhere(fabric)
    for family in FAMILIES:
        udp(one, two, family, CANARY)
    for capture in taps.stop().values():
        assert capture.holding(CANARY)


def test_the_peer_of_a_stopped_proxy_hears_of_it_and_finds_it_again(fabric: Fabric) -> None:
    project = Project(fabric)
    project.start()
    udp(fabric["nginx1"], fabric["nginx2"], "ipv4", CANARY)
    assert project["nginx2"].stop() == 0
    project["nginx1"].wait_for_event("session_closed")
    assert project["nginx1"].status()["sessions"] == []

    project["nginx2"].start_and_wait()
    udp(fabric["nginx1"], fabric["nginx2"], "ipv4", CANARY)
