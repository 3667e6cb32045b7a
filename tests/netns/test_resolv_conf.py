"""`tencrypt run --resolv-conf`: programs find the DNS proxy by the file, which comes back as it was."""

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.cluster import ZONE, Cluster, name_of
from support.namespaces import Fabric
from support.processes import run, wait_for
from support.resolving import resolv_conf, resolving
from support.servers import start_nginx
from support.tencrypt import TENCRYPT, Proxy

CANARY = "canary-of-resolv-conf-44d1"


class Place:
    """nginx1, whose programs have a resolv.conf of their own, and its proxy; nginx2 has a web server."""

    def __init__(self, fabric: Fabric) -> None:
        self.one, self.two = fabric["nginx1"], fabric["nginx2"]
        self.cluster = Cluster(fabric, {"resolvers": None})
        self.file = resolv_conf(fabric.directory)
        self.before = self.file.read_bytes(), self.file.stat().st_ino
        start_nginx(self.two, CANARY)
        project = self.cluster.project
        self.proxy = Proxy(self.one, project.ca, (), settings=project.settings)
        other = {**project.settings, "resolvers": ["10.77.0.1"]}
        self.other = Proxy(self.two, project.ca, (), settings=other)
        self.other.start_and_wait()

    def command(self, *more: str) -> Sequence[str]:
        words: list[str | Path] = [TENCRYPT, "run", "--resolv-conf", *more]
        words += ["--config", self.proxy.configuration]
        return resolving(self.one, self.file, words)

    def reaches(self, name: str) -> bool:
        words = ["curl", "-sS", "--max-time", "8", f"http://{name}/"]
        return CANARY in run(resolving(self.one, self.file, words), accept=range(100)).stdout

    @property
    def now(self) -> tuple[bytes, int]:
        return self.file.read_bytes(), self.file.stat().st_ino


@pytest.fixture
def place(fabric: Fabric) -> Place:
    return Place(fabric)


def test_programs_find_the_proxy_by_the_file_which_is_put_back_at_the_end(place: Place) -> None:
    place.proxy.start_and_wait(place.command())
    wait_for("the file", lambda: b"nameserver 127.0.0.1" in place.now[0])
    assert place.now[1] == place.before[1], "the same file, for it may be bound into a container"
    assert f"search {ZONE}".encode() in place.now[0]
    assert place.reaches("nginx2")
    members = place.proxy.status()["project"]["members"]
    assert members[place.two.ipv4] in {"zone", "session"}
    assert place.proxy.status()["project"]["dns_queries"] > 0
    assert place.proxy.stop() == 0
    assert place.now == place.before


def test_after_a_kill_names_are_not_found_until_it_runs_again_or_net_down(place: Place) -> None:
    place.proxy.start_and_wait(place.command())
    wait_for("the file", lambda: place.now != place.before)
    assert place.proxy.kill_daemon() == 1
    assert place.now == place.before, "the agent outlived its daemon"
    place.proxy.start_and_wait(place.command())
    wait_for("the file", lambda: place.now != place.before)
    kill(place.proxy)
    assert place.now != place.before
    assert not place.reaches("nginx2")
    place.proxy.start_and_wait(place.command())
    assert place.reaches(name_of(place.two))
    kill(place.proxy)
    run(resolving(place.one, place.file, [TENCRYPT, "net", "down"]))
    assert place.now == place.before


def kill(proxy: Proxy) -> None:
    """Kill agent and daemon."""
    assert proxy.process is not None
    daemon = proxy.daemon_pid()
    os.kill(proxy.process.pid, signal.SIGKILL)
    proxy.process.wait()
    wait_for("the daemon's end", lambda: not Path(f"/proc/{daemon}").exists())


def test_what_cannot_be_is_one_line(place: Place) -> None:
    read_only = 'mount --bind -o ro "$0" "$0" 2>/dev/null; mount -o remount,ro,bind /etc/resolv.conf; exec "$@"'
    words: list[str | Path] = [TENCRYPT, "run", "--resolv-conf"]
    words += ["--config", place.proxy.configuration]
    command = resolving(place.one, place.file, ["sh", "-c", read_only, place.file, *words])
    done = run(command, accept=(4,))
    assert done.stderr == (
        "tencrypt: /etc/resolv.conf cannot be written: leave out --resolv-conf, and queries are "
        "redirected by the kernel\n"
    )
    with place.one.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 53))
        done = run(resolving(place.one, place.file, words), accept=(4,))
    assert done.stderr == (
        "tencrypt: --resolv-conf: cannot listen on 127.0.0.1 port 53: Address already in use\n"
    )
    assert place.now == place.before
    text = place.proxy.configuration.read_text(encoding="utf-8")
    place.proxy.configuration.write_text(f'{text}resolvers = ["10.77.0.1"]\n', encoding="utf-8")
    done = run(resolving(place.one, place.file, words), accept=(2,))
    assert done.stderr == (
        "tencrypt: resolvers: leave it out with --resolv-conf: /etc/resolv.conf names them\n"
    )
