"""A pod `a` for the net agent alone, on a real kernel; its peer `b` speaks in clear.

a 10.9.0.1 fd00:9::1  eth0 ========== eth0  10.9.0.2 fd00:9::2  b
  10.8.0.1            eth1 ========== eth1  10.8.0.2
"""

import contextlib
import ctypes
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

from proxy.netagent.plan import NetSettings

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
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for link in ("eth0", "eth1"):
            peer = ("peer", "name", link, "netns", self.b)
            ip("link", "add", link, "netns", self.a, "type", "veth", *peer)
            for name in (self.a, self.b):
                ip("-n", name, "link", "set", link, "addrgenmode", "none", "up")
        for name, last in ((self.a, 1), (self.b, 2)):
            ip("-n", name, "addr", "add", f"10.9.0.{last}/24", "dev", "eth0")
            ip("-n", name, "addr", "add", f"fd00:9::{last}/64", "dev", "eth0", "nodad")
            ip("-n", name, "addr", "add", f"10.8.0.{last}/24", "dev", "eth1")
        with inside(self.a):
            # Strict, as many distributions have it: the session's datagrams then arrive only
            # because the set-up made it loose.
            Path("/proc/sys/net/ipv4/conf/eth0/rp_filter").write_text("1", encoding="ascii")

    def remove(self) -> None:
        for name in (self.a, self.b):
            for link in ("eth0", "eth1", "tenc0"):
                run("ip", "-n", name, "link", "del", link, check=False)
            run("ip", "netns", "del", name, check=False)


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


def run(*command: str, check: bool = True) -> str:
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


def ip(*arguments: str) -> str:
    return run("ip", *arguments)


def state(name: str) -> dict[str, object]:
    """Return everything that a set-up could change in the namespace.

    Without what the kernel does by itself, and late, when a daemon attaches to tenc0 or leaves it:
    the carrier, and a multicast route.
    """
    with inside(name):
        links = json.loads(ip("-d", "-j", "link"))
        return {
            "rules": ip("rule"),
            "rules6": ip("-6", "rule"),
            "routes": _routes("-4"),
            "routes6": _routes("-6"),
            "nft": run("nft", "list", "ruleset"),
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
    lines = ip(family, "route", "show", "table", "all").splitlines()
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
        listed = json.loads(run("nft", "-j", "list", "counters", "table", "inet", "tencrypt"))
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


def table_126() -> list[str]:
    both = ip("route", "show", "table", "126") + ip("-6", "route", "show", "table", "126")
    return both.splitlines()
