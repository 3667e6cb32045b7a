"""Services with real kernels at both ends: they check every checksum, and keep the connections.

Two pods' tenc0 are joined by whole nodes over the simulated network, whose clock is no kernel's affair.
"""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from sim.world import MTU, Node, World
from support.endpoints import read, served
from support.namespaces import Fabric, Pod, family_of
from support.pki import Authority, Leaf
from typing_extensions import override

from proxy.drivers.tun import Tun, make_persistent

A, B, VIP = "10.0.0.1", "10.0.0.2", "10.0.0.200"
A6, B6, VIP6 = "fd00::1", "fd00::2", "fd00::200"
MEGABYTE = bytes(range(256)) * 4096
LARGEST = 65_535 + 10


@dataclass
class Machine:
    """A pod's kernel, and its proxy without sockets."""

    pod: Pod
    node: Node
    tun: Tun

    def deliver(self) -> bool:
        """Write what the node has for tenc0; say whether there was any."""
        frames = self.node.frames + self.node.replies
        for one in (self.node.frames, self.node.replies, self.node.received, self.node.told):
            one.clear()
        return bool([self.tun.write(memoryview(frame)) for frame in frames])


class Network(threading.Thread):
    """Moves packets between tenc0s and nodes until it is stopped."""

    def __init__(self, world: World, machines: list[Machine]) -> None:
        super().__init__()
        self.world, self.machines = world, machines
        self.stopped = threading.Event()

    @override
    def run(self) -> None:
        buffer = memoryview(bytearray(LARGEST))
        with selectors.DefaultSelector() as selector:
            for machine in self.machines:
                selector.register(machine.tun.fileno(), selectors.EVENT_READ, machine)
            while not self.stopped.is_set():
                for key, _ in selector.select(0.02):
                    while size := key.data.tun.read_into(buffer):
                        key.data.node.send_frame(bytes(buffer[:size]))
                self.world.run(0.001)
                while sum(machine.deliver() for machine in self.machines):
                    self.world.run(0.001)


def machine(world: World, authority: Authority, pod: Pod, addresses: tuple[str, str]) -> Machine:
    four, six = addresses

    def make_tun() -> Tun:
        make_persistent("tenc0", 0)
        made = Tun.open()
        made.offload(["tso", "uso"])
        return made

    tun = pod.call(make_tun)
    pod.ip(
        f"link set tenc0 mtu {MTU} up\n"
        f"addr add {four}/32 dev eth0\n"
        f"addr add {six}/128 dev eth0 nodad\n"
        f"route add 10.0.0.0/24 dev tenc0 src {four}\n"
        f"route add fd00::/64 dev tenc0 src {six}\n"
    )
    pod.run(["sysctl", "-qw", "net.ipv4.conf.tenc0.rp_filter=2", "net.ipv4.conf.all.rp_filter=0"])
    return Machine(pod, world.join(authority.issue(Leaf(pod=pod.label, addresses=addresses))), tun)


@pytest.fixture
def network(fabric: Fabric) -> Iterator[Network]:
    world, authority = World(1), Authority()
    machines = [
        machine(world, authority, fabric["nginx1"], (A, A6)),
        machine(world, authority, fabric["nginx2"], (B, B6)),
    ]
    made = Network(world, machines)
    made.start()
    try:
        yield made
    finally:
        made.stopped.set()
        made.join()
        for one in machines:
            one.tun.close()


def serve(network: Network, vip: str, pod: str, port: int = 80, target: int = 8080) -> None:
    """Have a pod serve a Service, as the first machine knows it."""
    network.machines[0].node.translation.replace(read(*served(vip, port, [pod], target)))


@dataclass(frozen=True)
class Place:
    """Who serves: which machine, at which address, behind which virtual one, and whom it sees."""

    server: int
    vip: str
    own: str
    seen: str


places = pytest.mark.parametrize(
    "place",
    [
        pytest.param(Place(1, VIP, B, A), id="another pod, IPv4"),
        pytest.param(Place(1, VIP6, B6, A6), id="another pod, IPv6"),
        pytest.param(Place(0, VIP, A, VIP), id="itself, IPv4"),
        pytest.param(Place(0, VIP6, A6, VIP6), id="itself, IPv6"),
    ],
)


@contextmanager
def connection(network: Network, place: Place) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect from the first machine to a Service; the client's socket, and the server's."""
    client_pod, server_pod = network.machines[0].pod, network.machines[place.server].pod
    family = family_of(place.own)
    with ExitStack() as stack:
        listener = stack.enter_context(server_pod.socket(family, socket.SOCK_STREAM))
        listener.settimeout(20)
        listener.bind((place.own, 8080))
        listener.listen()
        client = stack.enter_context(client_pod.socket(family, socket.SOCK_STREAM))
        client.settimeout(20)
        client.connect((place.vip, 80))
        accepted = stack.enter_context(listener.accept()[0])
        accepted.settimeout(20)
        yield client, accepted


def ask_in_vain(pod: Pod, vip: str, kind: socket.SocketKind) -> None:
    """Ask a Service; raises what the kernel says of it."""
    with pod.socket(family_of(vip), kind) as client:
        client.settimeout(20)
        client.connect((vip, 80))
        client.send(b"question")
        client.recv(100)


def pass_on(source: socket.socket, sink: socket.socket, data: bytes) -> bytes:
    """Send all of it, and return what arrives."""
    sender = threading.Thread(target=source.sendall, args=(data,))
    sender.start()
    arrived = bytearray()
    while len(arrived) < len(data) and (part := sink.recv(1 << 20)):
        arrived += part
    sender.join()
    return bytes(arrived)


@places
def test_connection_to_a_service_carries_a_megabyte_both_ways(
    network: Network, place: Place
) -> None:
    serve(network, place.vip, place.own)
    with connection(network, place) as (client, accepted):
        assert client.getpeername()[0] == place.vip
        assert accepted.getpeername()[0] == place.seen
        assert pass_on(client, accepted, MEGABYTE) == MEGABYTE
        assert pass_on(accepted, client, MEGABYTE) == MEGABYTE


@places
@pytest.mark.parametrize("size", [10, 3 * MTU], ids=["small", "in fragments"])
def test_datagrams_to_a_service_are_answered(network: Network, place: Place, size: int) -> None:
    serve(network, place.vip, place.own)
    family = family_of(place.own)
    with (
        network.machines[place.server].pod.socket(family, socket.SOCK_DGRAM) as listener,
        network.machines[0].pod.socket(family, socket.SOCK_DGRAM) as client,
    ):
        listener.settimeout(20)
        client.settimeout(20)
        listener.bind((place.own, 8080))
        client.connect((place.vip, 80))
        client.send(MEGABYTE[:size])
        question, peer = listener.recvfrom(LARGEST)
        assert (question, peer[0]) == (MEGABYTE[:size], place.seen)
        listener.sendto(question[::-1], peer)
        assert client.recv(LARGEST) == MEGABYTE[:size][::-1]


@places
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_program_hears_at_once_that_a_service_s_pod_does_not_listen(
    network: Network, place: Place, kind: socket.SocketKind
) -> None:
    """By a reset, or by an ICMP error whose quote its kernel knows."""
    serve(network, place.vip, place.own)
    with pytest.raises(ConnectionRefusedError):
        ask_in_vain(network.machines[0].pod, place.vip, kind)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_program_hears_at_once_that_nobody_serves(
    network: Network, kind: socket.SocketKind
) -> None:
    serve(network, VIP, B, port=81)
    with pytest.raises(ConnectionRefusedError):
        ask_in_vain(network.machines[0].pod, VIP, kind)
