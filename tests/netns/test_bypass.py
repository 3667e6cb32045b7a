"""Other projects' names, where `dns_bypass` lets them: in clear for their time, and never who is a member."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.capture import Taps
from support.cluster import Cluster, name_of, resolve
from support.exchanges import leaks
from support.namespaces import Fabric, Pod
from support.processes import wait_for
from support.servers import tcp_echo

CANARY = b"canary-of-bypass-90e4"
NAME = "db.other.svc.cluster.local"
PORT = 7001


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A pod of the project, and one whose address another project's name has."""
    with Fabric("nginx1", "other") as fabric, ExitStack() as stack:
        other = fabric["other"]
        stack.enter_context(tcp_echo(other, other.ipv4, PORT))
        made = Cluster(fabric, {"dns_bypass": True, "roster": "on"})
        made.records = [one for one in made.records if name_of(other) not in one]
        made.serve_again(f"host-record={NAME},{other.ipv4}")
        made.project.start("nginx1")
        yield made


def connect(pod: Pod, address: str) -> socket.socket:
    """Connect to the echo; raises OSError soon."""
    program = pod.socket(socket.AF_INET, socket.SOCK_STREAM)
    program.settimeout(5)
    try:
        program.connect((address, PORT))
    except OSError:
        program.close()
        raise
    return program


def talks(program: socket.socket) -> bool:
    program.send(CANARY)
    return program.recv(100) == CANARY


def refused(pod: Pod, address: str) -> bool:
    try:
        connect(pod, address).close()
    except OSError:
        return True
    return False


def test_another_projects_name_is_clear_for_its_time_and_a_connection_outlives_it(
    cluster: Cluster,
) -> None:
    one, other = cluster.fabric.pods.values()
    assert refused(one, other.ipv4)
    assert resolve(one, NAME)
    taps = Taps.everywhere(cluster.fabric)
    with connect(one, other.ipv4) as program:
        assert talks(program)
        assert leaks(taps.stop(), CANARY)
        wait_for("the name's time to end", lambda: refused(one, other.ipv4), 15)
        assert talks(program)


def test_who_becomes_a_member_loses_its_bypass_and_who_is_none_any_more_is_refused(
    cluster: Cluster,
) -> None:
    one, other = cluster.fabric.pods.values()
    project = cluster.project

    def member() -> bool:
        found = project["nginx1"].status()["project"]
        return other.ipv4 in found["members"] and found["kernel_settled"]

    assert resolve(one, NAME)
    connect(one, other.ipv4).close()
    project.start("other")
    wait_for("the roster", member)
    taps = Taps.everywhere(cluster.fabric)
    assert resolve(one, NAME), "the name is as it was, and takes nothing away"
    with connect(one, other.ipv4) as program:
        assert talks(program)
    assert not leaks(taps.stop(), CANARY)
    # The pod goes, and its address with it: another project may have it now.
    cluster.serve_again()
    assert project["other"].stop() == 0
    wait_for("its end", lambda: not member())
    assert refused(one, other.ipv4)
