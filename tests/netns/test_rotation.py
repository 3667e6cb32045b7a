"""The roots of a running project are replaced, twice and back, and a pod is withdrawn; connections do not notice."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.namespaces import Fabric, Pod
from support.processes import wait_for
from support.programs import pgbench, start_postgres
from support.project import Project
from support.servers import tcp_echo, udp_echo
from support.talk import talking
from support.tencrypt import Json

CONNECTIONS = 100
PORT = 9000
SOON = 5.0
"""Seconds within which a pod that hears the CA, or any other pod, cuts off who is withdrawn."""


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric("client", "server", "bad") as made:
        yield made


def sessions_with(project: Project, pod: str, peer: Pod) -> list[Json]:
    found: list[Json] = project[pod].status()["sessions"]
    return [one for one in found if one["peer"]["name"] == peer.label]


def is_heard(one: Pod, two: Pod, port: int = 7010) -> bool:
    """Ask an echo server once."""
    with udp_echo(two, two.ipv4, port), one.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.connect((two.ipv4, port))
        program.settimeout(1)
        try:
            program.send(b"are you there")
            return program.recv(100) == b"are you there"
        except OSError:
            return False


def test_roots_are_replaced_twice_and_back_and_no_connection_notices(fabric: Fabric) -> None:
    client, server = fabric["client"], fabric["server"]
    project = Project(fabric, ca_options=("--ttl", "2m"))
    project.start()
    ca = project.ca
    start_postgres(server)
    with ExitStack() as stack:
        stack.enter_context(tcp_echo(server, server.ipv4, PORT))
        talk = stack.enter_context(talking(client, server.ipv4, PORT, CONNECTIONS))
        for _ in range(2):
            former = next(one for one in ca.roots()["roots"] if one["state"] == "active")
            ca.rotate("prepare")
            assert ca.rotate("activate", "--wait", "1m") == 0
            talk.another_round()
            assert ca.rotate("revoke", "--root", former["fingerprint"], "--wait", "2m") == 0
            assert pgbench(client, server.ipv4, 25) == 100
            talk.another_round()
        ca.rotate("prepare")
        ca.rotate("activate", "--wait", "1m")
        ca.rotate("rollback", "--wait", "1m")
        talk.another_round()
        assert ca.rotate("rollback", "--wait", "2m") == 0
        talk.another_round()
    (root,) = ca.roots()["roots"]
    assert root["pods"] == ["shop/bad", "shop/client", "shop/server"]
    # A server that starts anew issues under the root of now, and pods renew.
    assert ca.process.stop() == 0
    ca.serve("--ttl", "2m")
    before = project["client"].status()["certificate"]["serial"]
    wait_for("a renewal", lambda: project["client"].status()["certificate"]["serial"] != before, 90)


def test_a_withdrawn_pod_is_cut_off_within_seconds_and_comes_back_by_no_door(
    fabric: Fabric,
) -> None:
    server, bad = fabric["server"], fabric["bad"]
    project = Project(fabric)
    project.start()
    for pod in (fabric["client"], server):
        assert is_heard(bad, pod)
    began = time.monotonic()  # noqa: TID251 - how long it takes is what is promised
    project.ca.revoke("--pod", "shop/bad", "--reason", "a test")
    for name in ("client", "server"):
        wait_for(f"{name} to cut it off", lambda n=name: not sessions_with(project, n, bad), SOON)  # type: ignore[misc]  # binds
    assert time.monotonic() - began < SOON  # noqa: TID251 - as above
    assert not is_heard(bad, server)
    # Started anew, with its token, it is given nothing; and its peers call it in vain.
    project["bad"].process.stop()  # type: ignore[union-attr]  # it was started
    process = project["bad"].start()
    wait_for("its end", lambda: not process.running(), 60)
    assert not is_heard(server, bad)
    project.ca.revoke("--pod", "shop/bad", "--lift")
    project["bad"].start_and_wait()
    wait_for("it to be heard again", lambda: is_heard(bad, server), 20)


def test_a_pod_that_cannot_hear_the_ca_cuts_off_who_is_withdrawn_by_what_peers_say(
    fabric: Fabric,
) -> None:
    server, bad = fabric["server"], fabric["bad"]
    project = Project(fabric)
    project.start()
    assert is_heard(bad, server)
    assert is_heard(fabric["client"], server)
    ca_host = project.ca.address.removeprefix("https://").rpartition(":")[0]
    # The server's way to the CA is cut: what it hears, it hears from the client.
    server.run(["nft", "add", "table", "inet", "cut"])
    chain = "{ type filter hook output priority -300; }"
    server.run(["nft", "add", "chain", "inet", "cut", "out", chain])
    server.run(["nft", "add", "rule", "inet", "cut", "out", "ip", "daddr", ca_host, "drop"])
    project.ca.revoke("--pod", "shop/bad", "--reason", "a test")
    wait_for("it to be cut off", lambda: not sessions_with(project, "server", bad), SOON)
    assert not is_heard(bad, server)
