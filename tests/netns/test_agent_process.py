"""The net agent as a process: its privileges, signals, and what a daemon that was taken over gets."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agent import PRELUDE, Agent, at_root
from support.netagent import (
    SETTINGS,
    UID,
    Pair,
    inside,
    run,
    state,
)
from support.processes import wait_for

from proxy.netagent.drivers import apply
from proxy.netagent.plan import plan

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


@pytest.mark.parametrize("direction", ["up", "down"])
def test_read_only_proc_sys_and_net_admin_alone_suffice(pair: Pair, direction: str) -> None:
    before = state(pair.a)
    mount = "mount -o bind,ro /proc/sys /proc/sys && exec "
    command = ["unshare", "-m", "sh", "-c", mount + '"$@"', "sh", sys.executable, "-c"]
    with inside(pair.a):
        output = run(*at_root(*command, PRELUDE + CONFINED, direction))
    assert output.splitlines() == ["Read-only file system", "True"]
    confined = state(pair.a)
    with inside(pair.a):
        if direction == "up":
            apply.set_up(plan(SETTINGS))
    assert state(pair.a) == (before if direction == "down" else confined)


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


NETWORK_SOCKETS = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6", "packet")


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
                at_root(*command, "-c", PRELUDE + script),
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
    assert run(*at_root(sys.executable, "-c", PRELUDE + script)) == said


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
        at_root(sys.executable, "-c", PRELUDE + script, path),
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
