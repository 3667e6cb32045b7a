"""Whole nodes over an in-memory network: seeded loss, reordering and duplication, one injected clock."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network

from support.arrivals import deliver
from support.pki import START

from policy.rules import Rules
from proxy.credentials.credential import Credential
from proxy.credentials.roster import HeldRoster
from proxy.credentials.trust import Believed
from proxy.drops import Drops
from proxy.flow.membership import Membership
from proxy.flow.policy import Policy
from proxy.flow.target_ports import TargetPorts
from proxy.flow.translation import Translation
from proxy.inbound import Inbound
from proxy.lists.exchange import ListExchange
from proxy.outbound import Outbound
from proxy.packet.virtio import VNET_HEADER
from proxy.session.cookie import Endpoint
from proxy.session.events import Event, ListsHeard, SessionOpened
from proxy.session.pieces import datagrams
from proxy.session.profile import DEFAULT_PROFILE, TlsProfile
from proxy.session.table import SessionTable
from proxy.session.wire import RECORD_OVERHEAD

PORT = 15443
MTU = 1408
LARGEST = MTU + RECORD_OVERHEAD


@dataclass(frozen=True)
class Weather:
    """What the network does to datagrams; probabilities, and seconds of delay."""

    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.0002
    jitter: float = 0.0


class Node:
    """A pod: its sessions and data path as `proxy.daemon` puts them together, without devices."""

    def __init__(
        self,
        world: "World",
        credential: Credential,
        address: str,
        profile: TlsProfile = DEFAULT_PROFILE,
    ) -> None:
        """Join ``world`` with an outer address."""
        self.world, self.credential, self.address = world, credential, address
        self.profile = profile
        self.packed = ip_address(address).packed
        self.own = credential.own.address_texts()
        self.received: list[bytes] = []
        self.frames: list[bytes] = []  # the same behind their virtio headers
        self.told: list[
            bytes
        ] = []  # for the pod's own applications: refusals, and packets that it sent itself
        self.replies: list[bytes] = []  # the same behind their virtio headers
        self.events: list[Event] = []
        self.ports: dict[int, int] = {}
        """A Service's ports to the pod's, heeded from the next start on."""
        self.start()

    def start(self) -> None:
        """Start, or start again with empty tables as after kill -9."""
        self.drops: Drops = Drops()
        own = self.credential.own.addresses
        networks = [ip_network("10.0.0.0/24"), ip_network("fd00::/64")]
        members = Membership(own=(), members=networks, ranges=networks)
        self.table = SessionTable(
            self.credential,
            PORT,
            self.world.random.randbytes,
            self.drops,
            wall_offset=START.timestamp(),
            largest=LARGEST,
            profile=self.profile,
        )
        self.policy = Policy(self.credential.own.identity, Rules(), enforce=True)
        self.translation = Translation(own, lambda _: self.world.meets)
        ports = TargetPorts(self.ports) if self.ports else None
        self.outbound = Outbound(
            self.table,
            own,
            members,
            self.drops,
            policy=self.policy,
            translation=self.translation,
            target_ports=ports,
        )
        self.inbound = Inbound(
            self.table,
            own,
            self.drops,
            MTU,
            self.policy,
            translation=self.translation,
            target_ports=ports,
        )
        self.roster = HeldRoster()
        self.lists = ListExchange(self.table, self._take_list, self.drops)

    def take_list(self, envelope: bytes) -> None:
        """Let the CA, or whoever is in its place, give the pod a list; raises `Dropped`."""
        self._take_list(envelope)
        self.settle()

    def _take_list(self, envelope: bytes) -> None:
        own, wall = self.credential.own, self.world.now + START.timestamp()
        roster = self.roster.offer(envelope, lambda _: Believed(self.credential.roots), own, wall)
        if roster is not None:
            self.lists.adopted(envelope, roster.version, roster.issued, self.world.now)

    def send_packet(self, packet: bytes) -> None:
        """Let the pod's kernel hand a packet to tenc0."""
        self.send_frame(bytes(VNET_HEADER) + packet)

    def send_frame(self, frame: bytes) -> None:
        """Let it hand over a virtio header and packet."""
        view = memoryview(bytearray(frame))
        for sending in self.outbound.packets(view, self.world.now):
            self._transmit(*sending)
        self.settle()

    def receive(self, data: bytes, source: Endpoint, ecn: int = 0) -> None:
        """Take a datagram from the network."""
        for frame in deliver(self.inbound, data, source, self.world.now, ecn):
            self.received.append(frame[VNET_HEADER:])
            self.frames.append(frame)
        for session, packet in self.inbound.refusals:
            for sending in self.outbound.send_back(session, packet, self.world.now):
                self._transmit(*sending)
        self.inbound.refusals.clear()
        self.settle()

    def _take(self, event: Event) -> None:
        now = self.world.now
        for sending in self.outbound.heard(event, now):
            self._transmit(*sending)
        if isinstance(event, SessionOpened):
            self.lists.opened(event.session, now)
        elif isinstance(event, ListsHeard):
            self.lists.heard(event.session, event.body, now)

    def settle(self) -> None:
        """Send and tell what waits; then set the timer."""
        while event := self.table.next_event():
            self.events.append(event)
            self._take(event)
        self.replies += self.outbound.replies
        self.told += [frame[VNET_HEADER:] for frame in self.outbound.replies]
        self.outbound.replies.clear()
        for data, endpoint in self.table.datagrams_to_send():
            self.world.carry(data, self._outer(endpoint), endpoint)
        due = min(self._timers(), default=None)
        if due is not None:
            self.world.at(max(due, self.world.now), self._timer)

    def _timers(self) -> list[float]:
        return [due for one in (self.table, self.lists) if (due := one.next_timer()) is not None]

    def _timer(self) -> None:
        if min(self._timers(), default=self.world.now + 1) <= self.world.now:
            for one in (self.table, self.lists):
                due = one.next_timer()
                if due is not None and due <= self.world.now:
                    one.handle_timer(self.world.now)
            self.settle()

    def _transmit(self, data: memoryview | bytes, size: int, endpoint: Endpoint, ecn: int) -> None:
        for one in datagrams(data, size):
            self.world.carry(bytes(one), self._outer(endpoint), endpoint, ecn)

    def _outer(self, endpoint: Endpoint) -> str:
        """Return our address of the family of ``endpoint``, as the pod's sockets are bound."""
        six = ":" in endpoint[0]
        return next((own for own in self.own if (":" in own) == six), self.address)


class World:
    """The network and the clock."""

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        """Draw everything from ``seed``."""
        self.random = random.Random(seed)
        self.weather = weather or Weather()
        self.now = 100.0
        self.nodes: dict[str, Node] = {}
        self.carried: list[bytes] = []
        self.worn: list[int] = []
        """The ECN fields of all that was carried, as they left."""
        self.mark: Callable[[int], int] = lambda ecn: ecn
        """What the path makes of a datagram's ECN field."""
        self.nat: dict[Endpoint, Endpoint] = {}
        """By a pod's own outer address and port: what others see instead."""
        self.services: dict[str, list[str]] = {}
        """By a Service's address: the pods to which the network translates it, each source to one."""
        self.meets = False
        """Whether pods believe that whom they call may be a Service."""
        self._tracked: dict[tuple[str, str], str] = {}
        self.mtu: Callable[[str, str], int] = lambda _from, _to: 65_535
        """Bytes of UDP payload that the path between two addresses carries."""
        self.tamper: Callable[[bytes, str, str], list[bytes]] = lambda data, _from, _to: [data]
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def join(self, credential: Credential, profile: TlsProfile = DEFAULT_PROFILE) -> Node:
        """Add a node at its certificate's first IPv4 address."""
        addresses = credential.own.address_texts()
        node = Node(self, credential, addresses[0], profile)
        self.nodes.update(dict.fromkeys(addresses, node))
        return node

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do ``action`` at a time."""
        self._sequence += 1
        heapq.heappush(self._agenda, (when, self._sequence, action))

    def carry(self, data: bytes, source: str, endpoint: Endpoint, ecn: int = 0) -> None:
        """Take a datagram and deliver it later, twice, or never."""
        self.carried.append(data)
        self.worn.append(ecn)
        if len(data) > self.mtu(source, endpoint[0]):
            return
        for changed in self.tamper(data, source, endpoint[0]):
            copies = 1 + (self.random.random() < self.weather.duplication)
            for _ in range(copies):
                if self.random.random() >= self.weather.loss:
                    delay = self.weather.delay + self.random.random() * self.weather.jitter
                    deliver = partial(self._deliver, changed, source, endpoint, self.mark(ecn))
                    self.at(self.now + delay, deliver)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._agenda and self._agenda[0][0] <= end:
            self.now, _, action = heapq.heappop(self._agenda)
            action()
        self.now = end

    def _deliver(self, data: bytes, source: str, endpoint: Endpoint, ecn: int) -> None:
        came_from = self.nat.get((source, PORT), (source, PORT))
        back = {outer: inner for inner, outer in self.nat.items()}
        host, port = self._balance(source, *back.get(endpoint, endpoint))
        answers = [] if endpoint[0] in self.services else self._tracked.items()
        for (client, service), pod in answers:
            if (client, pod) == (host, source):
                came_from = service, PORT
        node = self.nodes.get(host)
        hidden = endpoint in self.nat  # behind its NAT nobody is reached by the inner address
        if node is not None and port == PORT and not hidden:
            node.receive(data, came_from, ecn)

    def _balance(self, source: str, host: str, port: int) -> Endpoint:
        """Return where a datagram goes: a Service's as connection tracking has it, which forgets pods that are gone."""
        pods = self.services.get(host)
        if not pods:
            return host, port
        if self._tracked.get((source, host)) not in pods:
            self._tracked[source, host] = self.random.choice(pods)
        return self._tracked[source, host], port


def udp_packet(source: str, destination: str, payload: bytes) -> bytes:
    """Return a whole IPv4 or IPv6 packet with UDP inside (checksums zero: no kernel looks at it)."""
    src, dst = ip_address(source), ip_address(destination)
    udp = (
        (1000).to_bytes(2, "big")
        + (2000).to_bytes(2, "big")
        + (8 + len(payload)).to_bytes(2, "big")
        + b"\0\0"
    )
    body = udp + payload
    if src.version == 4:
        total = (20 + len(body)).to_bytes(2, "big")
        return b"\x45\0" + total + bytes(4) + b"\x40\x11\0\0" + src.packed + dst.packed + body
    return (
        b"\x60\0\0\0" + len(body).to_bytes(2, "big") + b"\x11\x40" + src.packed + dst.packed + body
    )
