"""Every offload may be missing, from the start or from one moment to the next: bytes arrive the same."""

import hashlib
import random
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import pytest
from support.capture import SESSION_PORT, Taps
from support.exchanges import FAMILIES, SERVER_PORT, Family, address
from support.namespaces import Fabric, Pod
from support.processes import wait_for
from support.project import Project
from support.servers import bound, bulk_transfer
from support.tencrypt import Proxy

OFFLOADS = ("tso", "uso", "gso", "gro")
SUBSETS = [("tso", *some) for count in range(4) for some in combinations(OFFLOADS[1:], count)]
"""With what each leaves to the other pod, these are all."""
UDP_SEGMENT, UDP_GRO = 103, 104
SEGMENT, SEGMENTS = 1000, 40
MEGABYTES = 8_000_000


@pytest.fixture
def project(fabric: Fabric) -> Project:
    made = Project(fabric)
    made.start()
    return made


def tcp(sender: Pod, receiver: Pod, family: Family = "ipv4", size: int = MEGABYTES) -> None:
    """Carry megabytes over one connection, and see that they are the same."""
    sent, arrived = bulk_transfer(
        sender, receiver, (address(receiver, family), SERVER_PORT), size, b"canary"
    )
    assert sent == arrived


def udp(sender: Pod, receiver: Pod, family: Family = "ipv4") -> None:
    """Let an application send super-packets of its own; each datagram arrives as it was."""
    payload = random.Random(1).randbytes(SEGMENT * SEGMENTS - 7)
    parts = {payload[at : at + SEGMENT] for at in range(0, len(payload), SEGMENT)}
    where = (address(receiver, family), SERVER_PORT)
    with (
        bound(receiver, where[0], socket.SOCK_DGRAM, where[1]) as server,
        bound(sender, address(sender, family), socket.SOCK_DGRAM, 0) as client,
    ):
        server.settimeout(5)
        client.sendmsg(
            [payload], [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", SEGMENT))], 0, where
        )
        arrived = {server.recv(65_535) for _ in parts}
    assert arrived == parts


@pytest.mark.parametrize("chosen", SUBSETS, ids="+".join)
def test_bytes_arrive_with_every_combination_of_offloads(
    fabric: Fabric, chosen: tuple[str, ...]
) -> None:
    """One pod has these, the other the rest: each combination is tried at both ends."""
    project = Project(fabric)
    one, two = fabric["nginx1"], fabric["nginx2"]
    others = tuple(name for name in OFFLOADS if name not in chosen)
    for pod, offloads in ((one, chosen), (two, others)):
        settings = {"offloads": list(offloads)}
        project.proxies[pod.label] = Proxy(pod, project.ca, project.members, settings=settings)
        project[pod.label].start_and_wait()
    for family in FAMILIES:
        for sender, receiver in ((one, two), (two, one)):
            tcp(sender, receiver, family, 1_000_000)
            udp(sender, receiver, family)
    used = project["nginx1"].status()["offloads"]
    assert used == {name: name in chosen for name in OFFLOADS}
    for name in ("nginx1", "nginx2"):
        assert not project[name].status()["drops"]


def largest_datagram(project: Project) -> int:
    """Carry megabytes and see how large the largest UDP datagram is that the sender hands to its interface."""
    one, two = project.fabric["nginx1"], project.fabric["nginx2"]
    taps = Taps.everywhere(project.fabric)
    tcp(one, two, size=1_000_000)
    captures = taps.stop()
    sizes = [
        len(datagram.payload)
        for datagram in captures[f"{one.label}:eth0"].datagrams(SESSION_PORT)
        if str(datagram.packet.source) == one.ipv4
    ]
    return max(sizes)


def test_super_packets_leave_by_one_send_where_the_kernel_cuts(project: Project) -> None:
    """Or this file would show that bytes arrive, and not that offloads are used."""
    assert largest_datagram(project) > 40_000


def test_without_gso_no_datagram_is_larger_than_the_path(fabric: Fabric) -> None:
    project = Project(fabric)
    for name in ("nginx1", "nginx2"):
        settings = {"offloads": ["tso", "uso", "gro"]}
        project.proxies[name] = Proxy(fabric[name], project.ca, project.members, settings=settings)
        project[name].start_and_wait()
    assert largest_datagram(project) <= 1472


SWITCHES = (
    "tenc0 tso off",
    "tenc0 gso off",
    "eth0 gro on",
    "eth0 tx-udp-segmentation off",
    "eth0 gso off",
    "eth0 tx off",
    "tenc0 tx off",
)


@pytest.fixture
def stream(project: Project) -> Iterator[None]:
    """A connection that carries megabytes for as long as the test lasts; what arrives is what was sent."""
    one, two = project.fabric["nginx1"], project.fabric["nginx2"]
    running = True
    block = random.Random(2).randbytes(1 << 16)

    def send() -> str:
        digest = hashlib.sha256()
        with one.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(20)
            connection.connect((two.ipv4, SERVER_PORT + 1))
            while running:
                connection.sendall(block)
                digest.update(block)
        return digest.hexdigest()

    def receive(listener: socket.socket) -> str:
        digest = hashlib.sha256()
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            while part := connection.recv(1 << 16):
                digest.update(part)
        return digest.hexdigest()

    with (
        bound(two, two.ipv4, socket.SOCK_STREAM, SERVER_PORT + 1) as listener,
        ThreadPoolExecutor(2) as threads,
    ):
        listener.listen(1)
        sent, arrived = threads.submit(send), threads.submit(receive, listener)
        try:
            yield
        finally:
            running = False
        assert sent.result() == arrived.result()


@pytest.mark.usefixtures("stream")
def test_offloads_are_switched_off_and_on_while_traffic_runs(project: Project) -> None:
    one, two = project.fabric["nginx1"], project.fabric["nginx2"]

    def carried() -> int:
        return sum(int(s["bytes_out"]) for s in project["nginx1"].status()["sessions"])

    for switch in SWITCHES:
        for state in (switch, switch.replace("off", "on") if "off" in switch else "eth0 gro off"):
            for pod in (one, two):
                pod.run(["ethtool", "-K", *state.split()])
            enough = carried() + 2_000_000
            wait_for(f"traffic after {state}", lambda: carried() > enough, timeout=30)  # noqa: B023 - called at once
    for name in ("nginx1", "nginx2"):
        (session,) = project[name].status()["sessions"]
        assert session["state"] == "confirmed"
