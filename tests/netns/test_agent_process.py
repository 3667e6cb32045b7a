"""The net agent as a process: its privileges, signals, and how it and the daemon end each other."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.netagent import (
    ROOT,
    SETTINGS,
    UID,
    Pair,
    inside,
    run,
    state,
    table_126,
)
from support.processes import wait_for

from proxy.netagent.drivers import apply
from proxy.netagent.plan import plan

PRELUDE = f"""
import json, os, socket, sys, time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from proxy.netagent import agent
from proxy.netagent.drivers import apply, privileges
from proxy.netagent.plan import NetSettings, plan
SETTINGS = {SETTINGS!r}
"""

CONFINED = """
privileges.keep_only(frozenset({privileges.CAP_NET_ADMIN}))
try:
    Path("/proc/sys/net/ipv4/conf/eth0/rp_filter").write_text("2")
except OSError as error:
    print(error.strerror)
sets = privileges.capabilities()
print(sets["CapEff"] == sets["CapPrm"] == sets["CapBnd"] == 1 << 12)
apply.set_up(plan(SETTINGS))
if sys.argv[1] == "down":
    apply.tear_down()
"""

# What the daemon is to the agent; argv: how it ends.
DAEMON = """
def start_daemon(channel, tun, kept):
    how = sys.argv[1]
    if how.startswith("fail-"):
        return int(how.removeprefix("fail-"))
    if how != "impatient":
        channel.say(b"ready")
    print(os.getpid(), flush=True)
    while True:
        try:
            message, _ = channel.hear()
        except ConnectionResetError:
            message = b""
        if how == "stuck":
            time.sleep(60)
        if message in (b"stop", b""):
            print("ended", message, flush=True)
            return 0
if sys.argv[1] == "impatient":
    undo = apply.tear_down
    def tear_down():
        os.kill(os.getpid(), 15)
        undo()
    apply.tear_down = tear_down
agent.STOP_SECONDS = 0.5 if sys.argv[1] == "stuck" else 10
sys.exit(agent.run(SETTINGS, start_daemon, netns=sys.argv[2]))
"""


@pytest.mark.parametrize("direction", ["up", "down"])
def test_read_only_proc_sys_and_net_admin_alone_suffice(pair: Pair, direction: str) -> None:
    before = state(pair.a)
    mount = "mount -o bind,ro /proc/sys /proc/sys && exec "
    command = ["unshare", "-m", "sh", "-c", mount + '"$@"', "sh", sys.executable, "-c"]
    with inside(pair.a):
        output = run(*_at_root(*command, PRELUDE + CONFINED, direction))
    assert output.splitlines() == ["Read-only file system", "True"]
    confined = state(pair.a)
    with inside(pair.a):
        if direction == "up":
            apply.set_up(plan(SETTINGS))
    assert state(pair.a) == (before if direction == "down" else confined)


def _at_root(*command: str) -> tuple[str, ...]:
    return ("env", f"PYTHONPATH={ROOT}", *command)


class Agent:
    """A running agent with a daemon that does nothing."""

    def __init__(self, namespace: str, how: str) -> None:
        path = f"/run/netns/{namespace}"
        self.daemon_pid = 0
        self.process = subprocess.Popen(
            _at_root(sys.executable, "-c", PRELUDE + DAEMON, how, path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            extra_groups=[4],
            start_new_session=True,
        )

    def daemon(self) -> int:
        """Wait until the daemon runs and return its PID."""
        assert self.process.stdout is not None
        self.daemon_pid = int(self.process.stdout.readline())
        self.daemon_descriptor = os.pidfd_open(self.daemon_pid)
        return self.daemon_pid

    def daemon_ends(self) -> bool:
        """Wait for it although it is nobody's child here."""
        return bool(select.select([self.daemon_descriptor], [], [], 10)[0])

    def kill(self) -> None:
        """End what still runs."""
        if self.daemon_pid:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.daemon_descriptor, signal.SIGKILL)
            os.close(self.daemon_descriptor)
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str, str]:
        """Wait for the agent's end: exit code, what the daemon and what the agent said."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def agent(pair: Pair) -> Iterator[Callable[[str], Agent]]:
    running: list[Agent] = []

    def start(how: str) -> Agent:
        running.append(Agent(pair.a, how))
        return running[-1]

    yield start
    for each in running:
        each.kill()


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def test_the_daemon_has_no_privilege_and_the_agent_one_and_no_network_socket(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    running = agent("wait")
    daemon = status(running.daemon())
    assert daemon["Uid"].split() == daemon["Gid"].split() == [str(UID)] * 4
    assert daemon["Groups"] == ""
    assert daemon["NoNewPrivs"] == "1"
    assert Path(f"/proc/{running.daemon_pid}/environ").stat().st_uid == 0, "it could be traced"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(daemon[name], 16) == 0

    pid = running.process.pid
    # It forks first: the daemon may have spoken before.
    wait_for("the agent to keep one", lambda: status(pid)["NoNewPrivs"] == "1")
    kept = status(pid)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(kept[name], 16) == 1 << 12
    tables = [Path(f"/proc/{pid}/net/{name}") for name in NETWORK_SOCKETS]
    listed = " ".join(table.read_text(encoding="ascii") for table in tables if table.exists())
    held = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = [name.removeprefix("socket:[")[:-1] for name in held if name.startswith("socket:")]
    assert inodes
    assert not [inode for inode in inodes if inode in listed.split()]
    with inside(pair.a):
        assert Path(f"/proc/{pid}/ns/net").samefile("/proc/thread-self/ns/net")


STAYS = (
    ": traffic to and from members stays refused, until `tencrypt run` starts again or "
    "`tencrypt net down` lifts this\n"
)


def lift(pair: Pair) -> None:
    with inside(pair.a):
        apply.tear_down()


NETWORK_SOCKETS = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6", "packet")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_daemon_and_leaves_members_refused(
    pair: Pair, agent: Callable[[str], Agent], number: signal.Signals
) -> None:
    before = state(pair.a)
    running = agent("wait")
    running.daemon()
    protected = state(pair.a)
    assert protected != before
    # To the whole group, as a terminal does: the daemon must not meet it unprepared.
    os.killpg(running.process.pid, number)
    assert running.end() == (0, "ended b'stop'\n", f"tencrypt: stopped{STAYS}")
    assert state(pair.a) == protected
    lift(pair)
    assert state(pair.a) == before


def test_what_was_never_ready_is_undone_and_a_second_signal_does_not_cut_that_short(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    before = state(pair.a)
    running = agent("impatient")
    running.daemon()
    running.process.terminate()
    assert running.end() == (0, "ended b'stop'\n", "")
    assert state(pair.a) == before


def test_a_killed_daemon_leaves_members_refused_until_that_is_lifted(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    before = state(pair.a)
    running = agent("wait")
    pid = running.daemon()
    protected = state(pair.a)
    os.kill(pid, signal.SIGKILL)
    code, _, said = running.end()
    assert code == 1
    assert said.startswith("tencrypt: the daemon ended with signal 9 (Killed): traffic to and from")
    assert said.count("\n") == 1
    assert state(pair.a) == protected

    again = agent("wait")
    again.daemon()
    again.process.terminate()
    assert again.end()[0] == 0
    assert state(pair.a) == protected
    lift(pair)
    assert state(pair.a) == before


def test_a_killed_agent_ends_the_daemon_and_leaves_members_refused(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    running = agent("wait")
    running.daemon()
    running.process.kill()
    assert running.daemon_ends()
    assert running.end()[:2] == (-signal.SIGKILL, "ended b''\n")
    with inside(pair.a):
        assert len(table_126()) == 4
        assert "refused_arriving" in run("nft", "list", "ruleset")


@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_daemon_that_refuses_its_first_start_leaves_nothing_half_set_up(
    pair: Pair, agent: Callable[[str], Agent], code: int
) -> None:
    before = state(pair.a)
    assert agent(f"fail-{code}").end() == (code, "", "")
    assert state(pair.a) == before


def test_a_daemon_that_refuses_a_later_start_leaves_members_refused(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
    before = state(pair.a)
    code, _, said = agent("fail-3").end()
    assert (code, said.split(":")[1]) == (1, " the daemon ended with exit code 3")
    assert state(pair.a) == before


def test_a_daemon_that_does_not_end_does_not_hold_up_the_end(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    running = agent("stuck")
    pid = running.daemon()
    running.process.terminate()
    running.process.wait(20)
    os.kill(pid, signal.SIGKILL)
    code, _, said = running.end()
    assert (code, said) == (1, f"tencrypt: the daemon (PID {pid}) did not end in 0 s{STAYS}")
    with inside(pair.a):
        assert len(table_126()) == 4


def test_a_second_agent_is_refused_and_disturbs_nothing(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    first = agent("wait")
    first.daemon()
    before = state(pair.a)
    second = "tencrypt: tenc0 is in use: Tencrypt already runs in this network namespace\n"
    assert agent("wait").end() == (1, "", second)
    assert state(pair.a) == before
    first.process.terminate()
    assert first.end()[0] == 0


def test_without_privileges_the_agent_says_what_it_lacks(pair: Pair) -> None:
    path = f"/run/netns/{pair.a}"
    command = ("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", sys.executable)
    before = state(pair.a)
    for namespace, said in (
        (repr(path), f"cannot enter the network namespace {path}: needs CAP_SYS_ADMIN"),
        ("None", "cannot change nftables: needs CAP_NET_ADMIN in this network namespace"),
    ):
        script = f"sys.exit(agent.run(SETTINGS, lambda channel, tun: 0, netns={namespace}))"
        with inside(pair.a):
            done = subprocess.run(
                _at_root(*command, "-c", PRELUDE + script),
                check=False,
                capture_output=True,
                text=True,
            )
        assert (done.returncode, done.stderr) == (4, f"tencrypt: {said}\n")
    assert state(pair.a) == before


def test_privileges_that_cannot_be_given_up_whole_stop_the_daemon() -> None:
    script = """
privileges.keep_only(frozenset({privileges.CAP_NET_ADMIN}))
try:
    privileges.become_daemon(15443, 15443)
except privileges.MachineLacksError as error:
    print(error)
"""
    said = "cannot become UID 15443: needs CAP_SETUID, CAP_SETGID and CAP_SETPCAP\n"
    assert run(*_at_root(sys.executable, "-c", PRELUDE + script)) == said


def test_a_daemon_that_was_taken_over_gets_no_more_than_one_watcher_for_members(pair: Pair) -> None:
    script = """
from dataclasses import replace
from proxy.verify import orders
def ask(channel, message):
    channel.say(b"watch")
    word, watcher = channel.hear()
    if watcher is None:
        return word
    for one in [message] if isinstance(message, bytes) else message:
        watcher.send(one)
    try:
        return watcher.recv(9999)[:20]
    except ConnectionResetError:
        return b"reset"
def start_daemon(channel, tun, kept):
    channel.say(b"ready")
    member, stranger = IPv4Address("10.9.0.2"), IPv4Address("192.0.2.1")
    flow = orders.Flow(member, member, 80, 80)
    messages = (
        b"",
        b"{",
        orders.Look((stranger,)).encode(),
        orders.Look((member,), listen=(member,)).encode(),
        orders.Finish().encode(),
    )
    for message in messages:
        said = b"busy"
        while said == b"busy":
            said = ask(channel, message)
        print(said)
    watcher = None
    while watcher is None:
        channel.say(b"watch")
        _, watcher = channel.hear()
    watcher.send(orders.Look((member,)).encode())
    print(watcher.recv(9999)[:20])
    print({ask(channel, b"") for _ in range(200)})
    watcher.send(orders.Flows((flow,), bytes(32)).encode())
    print(watcher.recv(9999))
    for _ in range(10000):
        try:
            channel.say(b"nonsense" * 2)
        except BlockingIOError:
            pass
    return 0
sys.exit(agent.run(replace(SETTINGS, verify=True), start_daemon, netns=sys.argv[1]))
"""
    path = f"/run/netns/{pair.a}"
    done = subprocess.run(
        _at_root(sys.executable, "-c", PRELUDE + script, path),
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 0, done.stderr
    *refused, looking, flood, outside = done.stdout.splitlines()
    assert set(refused) <= {"b''", "b'reset'"}
    assert len(refused) == 5
    assert looking == """b'{"told": "looking", '"""
    assert flood == "{b'busy'}"
    assert outside == "b''"
    for reason in ("192.0.2.1 is no member", "10.9.0.2 is no address of this pod"):
        assert reason in done.stderr


def test_a_path_that_is_no_network_namespace_is_one_clear_line(
    agent: Callable[[str], Agent], pair: Pair
) -> None:
    pair.remove()
    code, _, said = agent("wait").end()
    assert (code, said) == (
        1,
        f"tencrypt: network namespace /run/netns/{pair.a}: No such file or directory\n",
    )
