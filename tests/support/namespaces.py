"""Pods as a container runtime makes them: network namespaces on a bridge, joined by veth pairs.

    node:  br0 10.77.0.1, fd77:7465:6e63::1    (a namespace of its own: the machine's is left alone)
            |-- veth-nginx1 ==== eth0 10.77.0.11, fd77:7465:6e63::11    pod nginx1
            `-- veth-nginx2 ==== eth0 10.77.0.12, fd77:7465:6e63::12    pod nginx2

Every name carries pid and start time of the process that made it, so runs may overlap, and what
a killed run left behind is known as such (`clean_stale`).
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from support.processes import HarnessError, Process, run, undisturbed, wait_for

T = TypeVar("T")

NETNS_DIRECTORY: Final = Path("/run/netns")
BRIDGE: Final = "br0"
IPV4_PATTERN: Final = "10.77.0.{}"
IPV6_PATTERN: Final = "fd77:7465:6e63::{}"
BRIDGE_IPV4: Final = IPV4_PATTERN.format(1)
BRIDGE_IPV6: Final = IPV6_PATTERN.format(1)
FIRST_POD_NUMBER: Final = 11
CLONE_NEWNET: Final = 0x40000000
STOP_SECONDS: Final = 10.0

_NAME = re.compile(r"(?P<fabric>tencrypt-pods-(?P<pid>\d+)-(?P<start>\d+)-\d+)(-[a-z0-9]+)?")
_POD_NAME = re.compile(r"[a-z0-9]{1,10}")
_serials = itertools.count()


class Namespace:
    """One network namespace, and ways to run things in it."""

    def __init__(self, name: str, label: str, directory: Path) -> None:
        """Make the namespace; `label` names it in logs, `directory` takes its programs' output."""
        self.name = name
        self.label = label
        self.path = NETNS_DIRECTORY / name
        self.processes: list[Process] = []
        self.directory = directory
        run(["ip", "netns", "add", name])

    def ip(self, commands: str) -> None:
        """Run a batch of `ip` commands, one a line, inside."""
        run(["ip", "-netns", self.name, "-batch", "-"], stdin=commands)

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """Give the command that runs `argv` inside (`ip netns exec` would remount /sys)."""
        return ["nsenter", f"--net={self.path}", "--", *(str(word) for word in argv)]

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str | None = None,
        timeout: float = 60.0,
        accept: Sequence[int] = (0,),
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside to its end; see `processes.run`."""
        return run(self.argv(argv), stdin=stdin, timeout=timeout, accept=accept)

    def start(self, argv: Sequence[str | Path]) -> Process:
        """Start a program inside; it is ended with the fabric at the latest."""
        return self.start_as_is(self.argv(argv), Path(argv[0]).name)

    def start_as_is(self, argv: Sequence[str | Path], name: str) -> Process:
        """Start a program that enters the namespace by itself; ended with the fabric too."""
        log = self.directory / f"{self.label}.{len(self.processes)}.{name}"
        with undisturbed():
            process = Process(argv, log)
            self.processes.append(process)
        return process

    def socket(
        self, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int = 0
    ) -> socket.socket:
        """Make a socket that lives inside, for the test's own process to use."""
        return self.call(lambda: socket.socket(family, kind, protocol))

    def call(self, make: Callable[[], T]) -> T:
        """Call `make` inside, in a thread of its own; what it returns lives on."""
        return _within(self.path, make)

    def wait_for_listener(self, process: Process, port: int) -> None:
        """Wait until something inside, which `process` should be, listens on a TCP port."""
        question = ["ss", "--no-header", "--listening", "--tcp", "--numeric", f"sport = :{port}"]
        process.wait_until(f"listening on port {port}", lambda: bool(self.run(question).stdout))


class Pod(Namespace):
    """A pod: eth0 with an IPv4 and an IPv6 address, the other end on the node's bridge."""

    def __init__(self, name: str, label: str, directory: Path, number: int) -> None:
        """Make the pod's namespace; `number` is the last part of both addresses."""
        super().__init__(name, label, directory)
        self.node_port = f"veth-{label}"
        self.ipv4 = IPV4_PATTERN.format(number)
        self.ipv6 = IPV6_PATTERN.format(number)


class Fabric:
    """A node with a bridge and pods on it; a context manager that leaves nothing behind."""

    def __init__(self, *pod_names: str) -> None:
        """Name the pods: lower-case letters and digits, 10 at most (an interface name's room)."""
        for pod_name in pod_names:
            if not _POD_NAME.fullmatch(pod_name) or pod_name == "node":
                raise HarnessError(
                    f"{pod_name!r} as a pod's name: 1 to 10 of a-z and 0-9, not `node`"
                )
        self.name = f"tencrypt-pods-{os.getpid()}-{_start_time(os.getpid())}-{next(_serials)}"
        self.directory = Path(tempfile.gettempdir()) / self.name
        self.pods: dict[str, Pod] = {}
        self._pod_names = pod_names

    def __enter__(self) -> Self:
        """Make everything; nothing is left if that fails or is interrupted."""
        try:
            self.directory.mkdir(mode=0o755)
            self.node = Namespace(f"{self.name}-node", "node", self.directory)
            self._make_bridge()
            for number, pod_name in enumerate(self._pod_names, FIRST_POD_NUMBER):
                self._make_pod(pod_name, number)
            self._wait_for_carrier()
        except BaseException:
            _dismantle(self.name)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End its programs and take all down; a failed test's report gets their last words."""
        processes = [p for place in (self.node, *self.pods.values()) for p in place.processes]
        if isinstance(error, Exception):
            for process in processes:
                error.add_note(process.describe())
        try:
            _end(processes)
        finally:
            _dismantle(self.name)

    def __getitem__(self, pod_name: str) -> Pod:
        """Give the pod of that name."""
        return self.pods[pod_name]

    def _make_bridge(self) -> None:
        self.node.ip(
            "link set lo up\n"
            f"link add {BRIDGE} type bridge forward_delay 0\n"
            f"addr add {BRIDGE_IPV4}/24 dev {BRIDGE}\n"
            f"addr add {BRIDGE_IPV6}/64 dev {BRIDGE} nodad\n"
            f"link set {BRIDGE} up\n"
        )

    def _make_pod(self, label: str, number: int) -> None:
        pod = Pod(f"{self.name}-{label}", label, self.directory, number)
        self.pods[label] = pod
        self.node.ip(
            f"link add {pod.node_port} mtu 1500"
            f" type veth peer name eth0 mtu 1500 netns {pod.name}\n"
            f"link set {pod.node_port} master {BRIDGE} up\n"
        )
        pod.ip(
            "link set lo up\n"
            "link set eth0 up\n"
            f"addr add {pod.ipv4}/24 dev eth0\n"
            f"addr add {pod.ipv6}/64 dev eth0 nodad\n"
            f"route add default via {BRIDGE_IPV4}\n"
            f"route add default via {BRIDGE_IPV6}\n"
        )

    def _wait_for_carrier(self) -> None:
        """Wait until the bridge forwards from every port: frames before that are lost."""

        def forwarding() -> bool:
            ports = self.node.run(["bridge", "link", "show"]).stdout
            return ports.count("state forwarding") == len(self.pods)

        wait_for("the bridge to forward", forwarding)


def clean_stale() -> list[str]:
    """Take down what runs that no longer live have left behind; the names of their fabrics.

    Kills processes that live in those namespaces, and no other.
    """
    temporary = Path(tempfile.gettempdir())
    stale = set()
    for place in (NETNS_DIRECTORY, temporary):
        for path in place.iterdir() if place.is_dir() else ():
            found = _NAME.fullmatch(path.name)
            if found and _start_time(int(found["pid"])) != found["start"]:
                stale.add(found["fabric"])
    for fabric in sorted(stale):
        _dismantle(fabric)
    return sorted(stale)


@undisturbed()
def _dismantle(fabric: str) -> None:
    """Remove all that carries a fabric's name: processes, then links, namespaces and files."""
    names = sorted(
        path.name
        for path in NETNS_DIRECTORY.glob(f"{fabric}-*")
        if (found := _NAME.fullmatch(path.name)) and found["fabric"] == fabric
    )
    for name in names:
        _kill_inhabitants(NETNS_DIRECTORY / name)
    if f"{fabric}-node" in names:
        # Links first: a deleted namespace gives its veth pairs free only a moment later.
        done = run(["ip", "-netns", f"{fabric}-node", "-o", "link", "show"], accept=(0, 1, 255))
        links = re.findall(r"^\d+: (veth-[a-z0-9]+|br0)[@:]", done.stdout, re.MULTILINE)
        run(
            ["ip", "-netns", f"{fabric}-node", "-force", "-batch", "-"],
            stdin="".join(f"link del {link}\n" for link in links),
            accept=(0, 1, 255),
        )
    for name in names:
        if run(["ip", "netns", "del", name], accept=(0, 1)).returncode and _exists(name):
            raise HarnessError(f"network namespace {name} cannot be removed")
    shutil.rmtree(Path(tempfile.gettempdir()) / fabric, ignore_errors=True)


def _exists(name: str) -> bool:
    """Tell whether a namespace is still there: two runs may clean up at the same time."""
    return (NETNS_DIRECTORY / name).exists()


def _end(processes: list[Process]) -> None:
    """Ask all to end, the latest first, then wait for each; who does not hear is killed."""
    for process in reversed(processes):
        process.signal(signal.SIGTERM)
    for process in reversed(processes):
        with contextlib.suppress(HarnessError):
            process.finish()


def _kill_inhabitants(namespace: Path) -> None:
    """Kill each process whose network namespace this is, by pidfd: never another's reused pid."""
    try:
        home = namespace.stat()
    except FileNotFoundError:
        return
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        if not _lives_in(entry, home):
            continue
        with contextlib.suppress(ProcessLookupError, OSError):
            handle = os.pidfd_open(int(entry.name))
            try:
                if _lives_in(entry, home):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], STOP_SECONDS)
            finally:
                os.close(handle)


def _lives_in(process: Path, home: os.stat_result) -> bool:
    try:
        place = (process / "ns/net").stat()
    except OSError:  # it ended meanwhile, or is a zombie
        return False
    return (place.st_dev, place.st_ino) == (home.st_dev, home.st_ino)


def _start_time(pid: int) -> str | None:
    """Start of a process in clock ticks since boot (proc(5), stat, field 22); None if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _within(namespace: Path, make: Callable[[], T]) -> T:
    """Call `make` in a namespace, in a thread that ends afterwards: the caller never moves."""

    def enter_and_make() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        with namespace.open("rb") as handle:
            if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                raise HarnessError(f"cannot enter {namespace}: {os.strerror(ctypes.get_errno())}")
        return make()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter_and_make).result()


def family_of(address: str) -> socket.AddressFamily:
    """Tell the family of a literal address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
