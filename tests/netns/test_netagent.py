"""The net agent on a real kernel: pod `a` is protected, peer `b` speaks in clear.

a 10.9.0.1 fd00:9::1  eth0 ========== eth0  10.9.0.2 fd00:9::2  b
  10.8.0.1            eth1 ========== eth1  10.8.0.2
"""

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.processes import wait_for

from proxy.drivers.tun import VNET_HEADER_SIZE, Tun
from proxy.netagent.drivers import apply
from proxy.netagent.drivers.inspect import find_interface
from proxy.netagent.errors import NetAgentError
from proxy.netagent.plan import NetSettings, plan

ROOT = Path(__file__).parents[2]
UID = 15443
PORT = 15443
PLAIN = 9999
SETTINGS = NetSettings(
    interface="eth0",
    interface_mtu=1500,
    addresses=(ip_address("10.9.0.1"), ip_address("fd00:9::1")),
    members=(ip_network("10.9.0.0/24"), ip_network("fd00:9::/64")),
    session_port=PORT,
    uid=UID,
    gid=UID,
)
OWN = {4: "10.9.0.1", 6: "fd00:9::1"}
PEER = {4: "10.9.0.2", 6: "fd00:9::2"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

_libc = ctypes.CDLL(None, use_errno=True)


class Pair:
    """Two network namespaces, each a name under /run/netns."""

    def __init__(self, prefix: str) -> None:
        self.a, self.b = f"{prefix}a", f"{prefix}b"

    def make(self) -> None:
        for name in (self.a, self.b):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        for link in ("eth0", "eth1"):
            peer = ("peer", "name", link, "netns", self.b)
            _ip("link", "add", link, "netns", self.a, "type", "veth", *peer)
            for name in (self.a, self.b):
                _ip("-n", name, "link", "set", link, "addrgenmode", "none", "up")
        for name, last in ((self.a, 1), (self.b, 2)):
            _ip("-n", name, "addr", "add", f"10.9.0.{last}/24", "dev", "eth0")
            _ip("-n", name, "addr", "add", f"fd00:9::{last}/64", "dev", "eth0", "nodad")
            _ip("-n", name, "addr", "add", f"10.8.0.{last}/24", "dev", "eth1")
        with inside(self.a):
            # Strict, as many distributions have it: the session's datagrams then arrive only
            # because the set-up made it loose.
            Path("/proc/sys/net/ipv4/conf/eth0/rp_filter").write_text("1", encoding="ascii")

    def remove(self) -> None:
        for name in (self.a, self.b):
            for link in ("eth0", "eth1", "tenc0"):
                _run("ip", "-n", name, "link", "del", link, check=False)
            _run("ip", "netns", "del", name, check=False)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """What is opened or started within is in the namespace `name`, and stays there."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{name}", "rb") as there:  # noqa: PTH123 - descriptors of namespaces, not files
        assert _libc.setns(there.fileno(), 0) == 0
        try:
            yield
        finally:
            assert _libc.setns(home.fileno(), 0) == 0


@contextlib.contextmanager
def user(uid: int) -> Iterator[None]:
    """Sockets opened within belong to `uid`."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair(f"tna{os.getpid()}")
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _run(*command: str, check: bool = True) -> str:
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def state(name: str) -> dict[str, object]:
    """Return everything that a set-up could change in the namespace.

    Without what the kernel does by itself, and late, when a daemon attaches to tenc0 or leaves it:
    the carrier, and a multicast route.
    """
    with inside(name):
        links = json.loads(_ip("-d", "-j", "link"))
        return {
            "rules": _ip("rule"),
            "rules6": _ip("-6", "rule"),
            "routes": _routes("-4"),
            "routes6": _routes("-6"),
            "nft": _run("nft", "list", "ruleset"),
            "links": {
                link["ifname"]: (link["mtu"], "UP" in link["flags"], link.get("ifalias"))
                for link in links
            },
            "rp_filter": {
                path.parent.name: path.read_text(encoding="ascii")
                for path in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter")
            },
        }


def _routes(family: str) -> list[str]:
    lines = _ip(family, "route", "show", "table", "all").splitlines()
    return sorted(
        line.replace(" linkdown", "").strip()
        for line in lines
        if not line.startswith("multicast ff00::/8 dev tenc0")
    )


def udp(name: str, version: int, port: int, *, uid: int = 0, device: str = "") -> socket.socket:
    """Open a bound socket in the namespace, as the user."""
    with inside(name), user(uid):
        opened = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
        if device:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        opened.bind(("", port))
        opened.settimeout(5)
        return opened


def refused_count(name: str, counter: str) -> int:
    with inside(name):
        listed = json.loads(_run("nft", "-j", "list", "counters", "table", "inet", "tencrypt"))
    found = [entry["counter"] for entry in listed["nftables"] if "counter" in entry]
    return next(int(entry["packets"]) for entry in found if entry["name"] == counter)


def holds_nothing(opened: socket.socket) -> bool:
    """To be asked after a later packet arrived by the same way."""
    opened.setblocking(False)  # noqa: FBT003 - the standard library's signature
    try:
        opened.recv(65535)
    except BlockingIOError:
        return True
    return False


def test_set_up_shows_in_the_usual_tools(pair: Pair) -> None:
    with inside(pair.a):
        assert apply.set_up(plan(SETTINGS)) is False
        rule = f"99:\tnot from all uidrange {UID}-{UID} lookup 126 proto 126"
        assert rule in _ip("rule").splitlines()
        assert rule in _ip("-6", "rule").splitlines()
        routes = [line.split(" linkdown")[0].strip() for line in _table_126()]
        assert routes == [
            "10.9.0.0/24 dev tenc0 proto 126 src 10.9.0.1 metric 10",
            "unreachable 10.9.0.0/24 proto 126 metric 1000",
            "fd00:9::/64 dev tenc0 proto 126 src fd00:9::1 metric 10",
            "unreachable fd00:9::/64 dev lo proto 126 metric 1000 pref medium",
        ]
        [tunnel] = json.loads(_ip("-d", "-j", "link", "show", "tenc0"))
        assert (tunnel["mtu"], "UP" in tunnel["flags"]) == (1408, True)
        assert tunnel["linkinfo"]["info_data"]["user"] == UID
        assert tunnel["linkinfo"]["info_data"]["persist"] is True
        assert "inet" not in _ip("addr", "show", "tenc0")
    assert state(pair.a)["rp_filter"] == {
        **dict.fromkeys(("all", "default", "lo", "eth1"), "0\n"),
        **dict.fromkeys(("eth0", "tenc0"), "2\n"),
    }


def _table_126() -> list[str]:
    both = _ip("route", "show", "table", "126") + _ip("-6", "route", "show", "table", "126")
    return both.splitlines()


def test_tear_down_leaves_everything_as_it_was_and_foreign_things_untouched(pair: Pair) -> None:
    with inside(pair.a):
        _ip("rule", "add", "pref", "99", "fwmark", "7", "lookup", "77")
        _ip("-6", "rule", "add", "pref", "99", "fwmark", "7", "lookup", "77")
        _ip("route", "add", "10.9.0.0/24", "dev", "eth0", "table", "77", "metric", "10")
        _run("nft", "add", "table", "inet", "other")
        _run("nft", "add", "chain", "inet", "other", "keep")
    before = state(pair.a)
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
        assert state(pair.a) != before
        apply.tear_down()
        assert state(pair.a) == before
        apply.tear_down()
    assert state(pair.a) == before


def test_a_later_set_up_converges_whatever_an_earlier_one_left(pair: Pair) -> None:
    other = replace(
        SETTINGS,
        addresses=SETTINGS.addresses[:1],
        members=(ip_network("10.9.0.2/32"), ip_network("10.77.0.0/16")),
        session_port=4433,
        uid=15444,
    )
    before = state(pair.a)
    with inside(pair.a):
        apply.set_up(plan(other))
        wanted = state(pair.a)
        assert apply.set_up(plan(other)) is True
        assert state(pair.a) == wanted
        apply.tear_down()
        apply.set_up(plan(SETTINGS))
        assert apply.set_up(plan(other)) is True
        assert state(pair.a) == wanted
        apply.set_up(plan(replace(other, interface="eth1")))
        apply.tear_down()
    assert state(pair.a) == before


@pytest.mark.parametrize("version", [4, 6])
def test_plaintext_from_a_member_is_refused_and_session_datagrams_arrive(
    pair: Pair, version: int
) -> None:
    peer = udp(pair.b, version, 0)
    with (
        udp(pair.a, version, PLAIN) as plain,
        udp(pair.a, version, PORT, uid=UID) as session,
        peer,
    ):
        peer.sendto(b"control", (OWN[version], PLAIN))
        assert plain.recv(100) == b"control"
        peer.sendto(bytes(4000), (OWN[version], PORT))
        assert session.recv(5000) == bytes(4000)

        with inside(pair.a):
            # Connection tracking reassembles fragments, and early.
            _run("nft", "add", "table", "inet", "mesh")
            hook = "{ type filter hook prerouting priority 0; }"
            _run("nft", "add", "chain", "inet", "mesh", "first", hook)
            _run("nft", "add", "rule", "inet", "mesh", "first", "ct", "state", "new", "counter")
            apply.set_up(plan(SETTINGS))
        with inside(pair.b):
            _ip("neigh", "flush", "dev", "eth0")
        peer.sendto(b"plain", (OWN[version], PLAIN))
        peer.sendto(bytes(4000), (OWN[version], PORT))
        peer.sendto(b"sealed", (OWN[version], PORT))
        assert session.recv(5000) == b"sealed"
        assert holds_nothing(plain)
        # One whole datagram and three fragments.
        assert refused_count(pair.a, "refused_arriving") == 4


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_daemons_session_datagrams_leave_to_a_member(pair: Pair, version: int) -> None:
    to = (PEER[version], PORT)
    with udp(pair.b, version, PORT) as peer:
        with udp(pair.a, version, PORT) as another:
            another.sendto(b"control", to)
            assert peer.recv(100) == b"control"

        with inside(pair.a):
            apply.set_up(plan(SETTINGS))
            _ip("neigh", "flush", "dev", "eth0")
        with udp(pair.a, version, PORT) as another:
            another.sendto(b"into the tunnel", to)
        # Refused at once: by the unreachable route for IPv4, by the filter for IPv6.
        with udp(pair.a, version, PORT, device="eth0") as another, pytest.raises(OSError):  # noqa: PT011 - either
            another.sendto(b"bound past the tunnel", to)
        with udp(pair.a, version, PLAIN, uid=UID) as another, pytest.raises(PermissionError):
            another.sendto(b"the daemon's user, another port", to)
        with inside(pair.a):
            _ip(f"-{version}", "rule", "del", "pref", "99")
        with udp(pair.a, version, PORT) as another, pytest.raises(PermissionError):
            another.sendto(b"with the filter alone", to)
        with udp(pair.a, version, PORT, uid=UID) as daemon:
            daemon.sendto(b"sealed", to)
        assert peer.recv(100) == b"sealed"
        assert refused_count(pair.a, "refused_leaving") >= 2


def test_set_up_waits_for_duplicate_address_detection(pair: Pair) -> None:
    fresh = ip_address("fd00:9::77")
    with inside(pair.a):
        _ip("addr", "add", f"{fresh}/64", "dev", "eth0")
        assert "tentative" in _ip("addr", "show", "to", str(fresh))
        apply.set_up(plan(replace(SETTINGS, addresses=(fresh,))))
        assert f"src {fresh}" in " ".join(_table_126())


@pytest.mark.parametrize("version", [4, 6])
def test_without_the_device_members_are_unreachable(pair: Pair, version: int) -> None:
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
        _ip("link", "del", "tenc0")
        _run("nft", "delete", "table", "inet", "tencrypt")
    with udp(pair.a, version, 0) as program, pytest.raises(OSError) as raised:  # noqa: PT011 - judged by its number
        program.sendto(b"x", (PEER[version], PLAIN))
    assert raised.value.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH}


def test_tcp_and_ping_get_no_answer_in_clear(pair: Pair) -> None:
    def answers() -> bool:
        with inside(pair.b):
            return _answers_ping() and _answers_tcp()

    with udp(pair.a, 4, 0), inside(pair.a), socket.create_server(("", PLAIN)):
        assert answers()
        apply.set_up(plan(SETTINGS))
        with inside(pair.b):
            assert not _answers_ping()
            assert not _answers_tcp()
        apply.tear_down()
        assert answers()


def _answers_ping() -> bool:
    command = ("ping", "-n", "-c", "1", "-W", "1", OWN[4])
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _answers_tcp() -> bool:
    try:
        with socket.create_connection((OWN[4], PLAIN), timeout=1):
            return True
    except TimeoutError:
        return False


def test_a_member_is_refused_on_every_other_interface(pair: Pair) -> None:
    with (
        udp(pair.a, 4, PLAIN) as plain,
        udp(pair.a, 4, PORT, uid=UID) as session,
        inside(pair.b),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind((PEER[4], 0))
        for port, server in ((PLAIN, plain), (PORT, session)):
            peer.sendto(b"control", ("10.8.0.1", port))
            assert server.recv(100) == b"control"
        with inside(pair.a):
            apply.set_up(plan(SETTINGS))
        with udp(pair.b, 4, 0) as stranger:
            for port, server in ((PLAIN, plain), (PORT, session)):
                peer.sendto(b"a member", ("10.8.0.1", port))
                stranger.sendto(b"no member", ("10.8.0.1", port))
                assert server.recv(100) == b"no member"


def test_a_pod_reaches_itself_although_its_address_is_a_member(pair: Pair) -> None:
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
    for version in (4, 6):
        with udp(pair.a, version, PLAIN) as server, udp(pair.a, version, 0) as client:
            client.sendto(b"hello", (OWN[version], PLAIN))
            assert server.recv(100) == b"hello"


@pytest.mark.parametrize("version", [4, 6])
def test_what_programs_send_is_read_whole_from_the_tunnel_and_answers_return(
    pair: Pair, version: int
) -> None:
    buffer = bytearray(2048)
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
        with user(0):
            tun = Tun.open()
        # Until its queue is active the kernel drops what is sent to a device just attached.
        wait_for("tenc0's queue", lambda: "noop" not in _ip("link", "show", "tenc0"))
    try:
        assert tun.read_into(memoryview(buffer)) == 0
        with udp(pair.a, version, 0) as program:
            program.sendto(b"question", (PEER[version], PLAIN))
            size = tun.read_into(memoryview(buffer))
            packet = bytearray(buffer[VNET_HEADER_SIZE:size])
            assert packet.endswith(b"question")
            assert packet[0] >> 4 == version
            start, length = (12, 4) if version == 4 else (8, 16)
            source = packet[start : start + length]
            assert source == ip_address(OWN[version]).packed
            # Swapping addresses and ports keeps every checksum, once the program's is finished.
            destination = packet[start + length : start + 2 * length]
            packet[start : start + 2 * length] = destination + source
            udp_at = 20 if version == 4 else 40
            ports = packet[udp_at : udp_at + 4]
            packet[udp_at : udp_at + 4] = ports[2:] + ports[:2]
            assert tun.write(memoryview(bytes(VNET_HEADER_SIZE) + packet))
            assert program.recvfrom(100)[:1] == (b"question",)
            assert not tun.write(memoryview(bytes(VNET_HEADER_SIZE) + b"\xff no packet"))
        with inside(pair.a):
            _ip("link", "set", "tenc0", "down")
        assert not tun.write(memoryview(bytes(VNET_HEADER_SIZE) + packet))
    finally:
        tun.close()
        tun.close()


def test_a_foreign_tenc0_is_refused_and_nothing_is_touched(pair: Pair) -> None:
    with inside(pair.a):
        _ip("link", "add", "tenc0", "type", "bridge")
        before = state(pair.a)
        with pytest.raises(NetAgentError, match="an interface tenc0 exists that is not"):
            apply.set_up(plan(SETTINGS))
        apply.tear_down()
    assert state(pair.a) == before


def test_a_foreign_routing_table_is_refused_and_nothing_is_touched(pair: Pair) -> None:
    with inside(pair.a):
        _ip("route", "add", "10.50.0.0/24", "dev", "eth0", "table", "126")
        before = state(pair.a)
        with pytest.raises(NetAgentError, match="table 126 holds routes that are not"):
            apply.set_up(plan(SETTINGS))
        apply.tear_down()
    assert state(pair.a) == before


def test_a_set_up_that_fails_half_way_is_undone(pair: Pair) -> None:
    with inside(pair.a):
        _ip("tuntap", "add", "dev", "tenc0", "mode", "tun", "user", str(UID))
        before = state(pair.a)
        tun = Tun.open()
        with pytest.raises(NetAgentError, match="tenc0 is in use"):
            apply.set_up(plan(SETTINGS))
        tun.close()
    assert state(pair.a) == before


def test_a_set_up_that_fails_keeps_the_interlock_of_an_earlier_run(pair: Pair) -> None:
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
        tun = Tun.open()
        before = state(pair.a)
        with pytest.raises(NetAgentError, match="tenc0 is in use"):
            apply.set_up(plan(SETTINGS))
        assert state(pair.a) == before
        tun.close()


def test_the_interface_is_found_by_name_address_or_default_route(pair: Pair) -> None:
    with inside(pair.a):
        assert find_interface((), "eth0").addresses == SETTINGS.addresses
        assert find_interface(SETTINGS.addresses, None).name == "eth0"
        assert find_interface((ip_address("10.8.0.1"),), None).name == "eth1"
        with pytest.raises(NetAgentError, match=r"Name it: there are eth0 \(10\.9\.0\.1, fd00:"):
            find_interface((), None)
        with pytest.raises(NetAgentError, match=r"no interface holds 10\.1\.1\.1: there are"):
            find_interface((ip_address("10.1.1.1"),), None)
        with pytest.raises(NetAgentError, match=r"interface eth1 does not hold 10\.9\.0\.1"):
            find_interface((ip_address("10.9.0.1"),), "eth1")
        _ip("route", "add", "default", "via", "10.8.0.2")
        assert find_interface((), None).name == "eth1"
        _ip("route", "del", "default")
        _ip("link", "set", "eth1", "down")
        apply.set_up(plan(SETTINGS))
        assert find_interface((), None).name == "eth0"


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
privileges.keep_only_net_admin()
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
def start_daemon(channel, tun):
    how = sys.argv[1]
    if how.startswith("fail-"):
        return int(how.removeprefix("fail-"))
    channel.send(b"ready")
    print(os.getpid(), flush=True)
    while True:
        try:
            message = channel.recv(64)
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
        output = _run(*_at_root(*command, PRELUDE + CONFINED, direction))
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
    kept = status(pid)
    assert kept["NoNewPrivs"] == "1"
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_daemon_and_undoes_everything(
    pair: Pair, agent: Callable[[str], Agent], number: signal.Signals
) -> None:
    before = state(pair.a)
    running = agent("wait")
    running.daemon()
    assert state(pair.a) != before
    # To the whole group, as a terminal does: the daemon must not meet it unprepared.
    os.killpg(running.process.pid, number)
    assert running.end() == (0, "ended b'stop'\n", "")
    assert state(pair.a) == before


def test_a_second_signal_does_not_cut_the_undoing_short(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    before = state(pair.a)
    running = agent("impatient")
    running.daemon()
    running.process.terminate()
    assert running.end() == (0, "ended b'stop'\n", "")
    assert state(pair.a) == before


def test_a_killed_daemon_leaves_members_refused_until_an_orderly_stop(
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
        assert len(_table_126()) == 4
        assert "refused_arriving" in _run("nft", "list", "ruleset")


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


def test_a_daemon_that_does_not_end_does_not_hold_up_the_undoing(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    before = state(pair.a)
    running = agent("stuck")
    pid = running.daemon()
    running.process.terminate()
    running.process.wait(20)
    os.kill(pid, signal.SIGKILL)
    code, _, said = running.end()
    assert (code, said) == (1, f"tencrypt: the daemon (PID {pid}) did not end in 0 s\n")
    assert state(pair.a) == before


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
privileges.keep_only_net_admin()
try:
    privileges.become_daemon(15443, 15443)
except privileges.MachineLacksError as error:
    print(error)
"""
    said = "cannot become UID 15443: needs CAP_SETUID, CAP_SETGID and CAP_SETPCAP\n"
    assert _run(*_at_root(sys.executable, "-c", PRELUDE + script)) == said


def test_a_path_that_is_no_network_namespace_is_one_clear_line(
    agent: Callable[[str], Agent], pair: Pair
) -> None:
    pair.remove()
    code, _, said = agent("wait").end()
    assert (code, said) == (
        1,
        f"tencrypt: network namespace /run/netns/{pair.a}: No such file or directory\n",
    )
