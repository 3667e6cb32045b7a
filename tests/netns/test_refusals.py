"""Peers that must be refused are, by running daemons, and each for its own reason."""

import socket
from collections.abc import Iterator

import pytest
from support.exchanges import FAMILIES, SERVER_PORT, Family, address, udp
from support.mutated import Edit, mutated_run
from support.namespaces import Fabric, Pod
from support.processes import wait_for
from support.project import Project
from support.servers import bound
from support.tencrypt import ProjectCA, Proxy

from proxy.drops import Drop

BRIEF = 6
TRUSTING: tuple[Edit, ...] = (
    ("proxy/credentials/judge.py", "    _check_project(peer, own)\n", ""),
    ("proxy/session/tls.py", "        if not ok:\n", "        if False:\n"),
    (
        "proxy/session/tls.py",
        "connection.get_verified_chain(as_cryptography=True)",
        "connection.get_peer_cert_chain(as_cryptography=True)",
    ),
)
"""Edits of a peer that believes everybody: then it is for the other end to refuse."""


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric("home", "other") as made:
        yield made


@pytest.fixture
def project(fabric: Fabric) -> Project:
    """The pod `home` is protected; how `other` is, the test says."""
    made = Project(fabric)
    made.start("home")
    return made


def call(caller: Pod, called: Pod) -> None:
    """Send one packet, which nobody is to receive."""
    with bound(caller, caller.ipv4, socket.SOCK_DGRAM, 0) as calling:
        calling.sendto(b"let me in", (called.ipv4, SERVER_PORT))


def wait_for_refusal(proxy: Proxy, reason: Drop) -> None:
    """Wait for the event and the count; and no session came of it."""

    def refused() -> bool:
        told = [e["reason"] for e in proxy.events() if e["event"] == "handshake_refused"]
        return str(reason) in told

    wait_for(f"{proxy.pod.label} to refuse: {reason}", refused)
    status = proxy.status()
    assert status["drops"][reason] >= 1
    assert status["sessions"] == []


def foreign(project: Project, kind: str) -> tuple[Proxy, Drop]:
    """Give the proxy of `other` with a certificate of another project, and the reason against it."""
    other = project.fabric["other"]
    if kind == "another namespace":
        token = project.ca.token(other, namespace="else")
        proxy = Proxy(
            other, project.ca, project.members, token=token, settings={"namespace": "else"}
        )
        return proxy, Drop.FOREIGN_PROJECT
    trust_domain = project.ca.trust_domain if kind == "another CA" else "other.example"
    ca = ProjectCA(project.fabric, trust_domain=trust_domain, port=8444)
    return Proxy(other, ca, project.members), Drop.UNTRUSTED


@pytest.mark.parametrize("kind", ["another namespace", "another CA", "another trust domain"])
def test_a_peer_of_another_project_is_refused(project: Project, kind: str) -> None:
    home, other = project.fabric["home"], project.fabric["other"]
    proxy, reason = foreign(project, kind)
    proxy.start_and_wait()

    call(home, other)
    wait_for_refusal(project["home"], reason)
    wait_for_refusal(proxy, Drop.PEER_REFUSED)

    # Now a liar calls us, and would take us for a friend.
    proxy.stop()
    proxy.start_and_wait(mutated_run(proxy, TRUSTING))
    before = project["home"].status()["drops"][reason]
    call(other, home)
    wait_for_refusal(proxy, Drop.PEER_REFUSED)
    assert project["home"].status()["drops"][reason] > before


def test_an_expired_certificate_ends_sessions_and_opens_none(project: Project) -> None:
    home, other = project.fabric["home"], project.fabric["other"]
    project.ca.process.stop()
    project.ca.serve("--ttl", f"{BRIEF}s")
    project.start("other")
    project.ca.process.stop()  # else it would be renewed
    udp(home, other, "ipv4", b"as long as it lasts")
    project["home"].wait_for_event("session_closed")

    call(home, other)
    wait_for("the call to find nobody", lambda: count(project["other"], Drop.CERTIFICATE_TIME) > 0)
    assert project["home"].status()["sessions"] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_foreign_inner_source_is_refused_by_the_sender_and_else_by_the_receiver(
    project: Project, family: Family
) -> None:
    home, other = project.fabric["home"], project.fabric["other"]
    proxy = Proxy(other, project.ca, project.members)
    stolen = "10.77.0.99" if family == "ipv4" else "fd77:7465:6e63::99"
    nodad = "nodad" if family == "ipv6" else ""
    other.ip(f"addr add {stolen} dev lo {nodad}\n")

    proxy.start_and_wait()
    speak(other, stolen, home, family)
    wait_for("the sender to refuse", lambda: count(proxy, Drop.FOREIGN_SOURCE) == 1)

    proxy.stop()
    edit = ("proxy/outbound.py", "if source not in self._own:", "if False:")
    proxy.start_and_wait(mutated_run(proxy, [edit]))
    with bound(home, address(home, family), socket.SOCK_DGRAM, SERVER_PORT) as server:
        speak(other, stolen, home, family)
        speak(other, address(other, family), home, family)
        # In order: the one that is allowed came, so the one before it did not.
        assert server.recvfrom(100)[1][0] == address(other, family)
    assert count(project["home"], Drop.FOREIGN_SOURCE) == 1


def speak(sender: Pod, source: str, receiver: Pod, family: Family) -> None:
    with bound(sender, source, socket.SOCK_DGRAM, 0) as speaking:
        speaking.sendto(b"from " + source.encode(), (address(receiver, family), SERVER_PORT))


def count(proxy: Proxy, reason: Drop) -> int:
    return int(proxy.status()["drops"].get(reason, 0))
