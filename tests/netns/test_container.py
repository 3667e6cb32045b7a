"""A container's conditions: read-only root and /proc/sys, few capabilities, the pod's namespace."""

import os
from pathlib import Path

import pytest
from support.exchanges import FAMILIES, udp
from support.kernel_state import kernel_state
from support.namespaces import Fabric
from support.processes import run
from support.project import Project
from support.tencrypt import DAEMON_UID, TENCRYPT, Proxy

NET_ADMIN = 12
NETWORK_TABLES = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6", "packet")
# $0 stays writable: the volume for the proxy's socket.
READ_ONLY = """
set -e
mount --bind "$0" "$0"
mount -o bind,ro /proc/sys /proc/sys
mount -o remount,bind,ro /
exec "$@"
"""
# Beside NET_ADMIN, which does the set-up, what the agent needs to give the daemon another user.
ALLOWED = ("net_admin", "setuid", "setgid", "setpcap")


def contained(proxy: Proxy, capabilities: tuple[str, ...]) -> list[str]:
    """Give the command of `tencrypt run` in such a container; the namespace is entered before."""
    bounding = ",".join(("-all", *(f"+{name}" for name in capabilities)))
    return proxy.pod.argv(
        [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", READ_ONLY, proxy.admin_socket.parent),
            *("setpriv", "--bounding-set", bounding, "--inh-caps", "-all", "--no-new-privs"),
            *(TENCRYPT, "run", "--config", proxy.configuration),
        ]
    )


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def read_only(pid: int) -> set[str]:
    """Give the mount points that are read-only for a process (proc(5), mountinfo)."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text(encoding="ascii").splitlines()
    fields = [line.split() for line in lines]
    return {field[4] for field in fields if "ro" in field[5].split(",")}


def inet_sockets(pid: int) -> list[str]:
    """Give the inodes of a process's sockets that stand in a table of network sockets."""
    tables = [Path(f"/proc/{pid}/net/{name}") for name in NETWORK_TABLES]
    listed = " ".join(t.read_text(encoding="ascii") for t in tables if t.exists()).split()
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115
    inodes = [link.removeprefix("socket:[")[:-1] for link in links if link.startswith("socket:[")]
    assert inodes, "it has at least its channel to the daemon"
    return [inode for inode in inodes if inode in listed]


@pytest.fixture
def project(fabric: Fabric) -> Project:
    made = Project(fabric)
    made.start("nginx1")
    return made


def test_a_container_with_few_rights_runs_a_daemon_with_none(project: Project) -> None:
    one, two = project.fabric["nginx1"], project.fabric["nginx2"]
    before = kernel_state(two)
    proxy = Proxy(two, project.ca, project.members)
    proxy.start_and_wait(contained(proxy, ALLOWED))
    assert proxy.process is not None
    agent, daemon = proxy.process.pid, proxy.daemon_pid()

    for pid in (agent, daemon):
        assert {"/", "/proc/sys"} <= read_only(pid)
        assert status(pid)["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status(daemon)[name], 16) == 0
    assert status(daemon)["Uid"].split() == status(daemon)["Gid"].split() == [str(DAEMON_UID)] * 4
    assert status(daemon)["Groups"] == ""
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status(agent)[name], 16) == 1 << NET_ADMIN
    assert inet_sockets(agent) == []
    assert inet_sockets(daemon), "the same look finds the daemon's"

    for family in FAMILIES:
        udp(one, two, family, b"hello")
        udp(two, one, family, b"hello")
    (session,) = proxy.status()["sessions"]
    assert session["packets_in"] >= 4

    assert proxy.stop() == 0
    run([TENCRYPT, "net", "down", "--netns", two.path])
    assert kernel_state(two) == before


def test_with_net_admin_alone_it_says_what_else_it_needs_and_leaves_nothing(
    project: Project,
) -> None:
    two = project.fabric["nginx2"]
    before = kernel_state(two)
    proxy = Proxy(two, project.ca, project.members)
    process = proxy.start(contained(proxy, ("net_admin",)))
    assert process.finish() == 4
    needed = "needs CAP_SETUID, CAP_SETGID and CAP_SETPCAP"
    assert process.stderr == f"tencrypt: cannot become UID {DAEMON_UID}: {needed}\n"
    assert kernel_state(two) == before
