"""Services' virtual addresses at the sender: which endpoint a flow goes to, and what its application sees instead.

A packet to a virtual address gets an endpoint's address and port before it is sealed, its answers the virtual ones
after the check of their source (``docs/decisions/0009``). A flow keeps its endpoint while it lives, whatever becomes of
the Service; what a table cannot say after a restart, the choice says again (`ServicePort.choose`).

Where no endpoints are known, who answers a call to the address is the endpoint of new flows for a while (`rendezvous`).
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.flow.flows import Changes, Flow, Flows, opening
from proxy.flow.services import ServicePort, Services
from proxy.packet.name import addresses, ends, flow_name, made_name
from proxy.packet.rewrite import DESTINATION, SOURCE, End, change
from proxy.packet.upper import UDP, WITH_PORTS, find_upper

PINNED: Final = 60.0
"""Seconds of new flows for the pod that answered a call to a virtual address."""

MOST_PINNED: Final = 1024
MOST_STUCK: Final = 16_384
"""Virtual addresses with such a pod, and endpoints remembered for the session affinity of our own addresses."""


class Translation:
    """Flows to virtual addresses; ``addresses`` are those whose packets `outgoing` must see."""

    def __init__(
        self,
        own: frozenset[bytes],
        meets: Callable[[bytes], bool] = lambda _: False,
        flows: Flows | None = None,
        prefers: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Begin without Services, for the packed addresses ``own``.

        ``meets`` says of an address that is no Service's here whether it may be a virtual one, so that any pod of the
        project may answer a call to it. ``prefers`` says of endpoints' addresses which take all new flows where any do.
        """
        self._own = own
        self._services = Services()
        self._flows = Flows() if flows is None else flows
        self._stuck: dict[bytes, tuple[End, float]] = {}
        self._pinned: dict[bytes, tuple[bytes, float]] = {}
        self._meets, self._prefers = meets, prefers
        self._now = 0.0  # when `outgoing` or `incoming` was last called
        self.addresses: set[bytes] = set()
        self.answering = self._flows.answering
        """Packed addresses whose packets `incoming` must see."""

    def replace(self, services: Services) -> None:
        """Choose among these from now on. Flows live on, but those of UDP whose endpoint is no more."""
        known = self._services
        self._services = services

        def is_stale(flow: Flow) -> bool:
            _, virtual, protocol = ends(flow.there)
            if protocol != UDP or not known.find(*_port(virtual, protocol)):
                return False
            return not services.serves(flow.target, *_port(virtual, protocol))

        self._flows.remove_if(is_stale)
        self.addresses.clear()
        self.addresses.update(services.names, self._pinned, self._flows.opened_to())

    def outgoing(self, packet: memoryview, now: float, *, unfinished: bool = False) -> bytes:
        """Translate a parsed packet to one of ``addresses``, in place; return where it goes now.

        That is an own address where the pod serves itself: then the packet is to be delivered as if it had arrived.
        It is the virtual address still where the pod must be called to find out who serves. ``unfinished``: the TCP or
        UDP checksum holds the sum of the pseudo-header alone. Raises `Dropped`: NO_ENDPOINT where nobody serves, and
        as `proxy.packet.rewrite.rewrite`.
        """
        self._now = now
        if not self._flows.translate(packet, now, unfinished=unfinished):
            flow = self._open(packet, now)
            if flow is None:
                return _destination(packet)
            self._flows.add(flow, now)
            self._flows.translate(packet, now, unfinished=unfinished)
        return _destination(packet)

    def incoming(self, packet: memoryview, now: float, *, unfinished: bool = False) -> None:
        """Give a parsed packet from one of ``answering`` the source that its application knows, if it answers a flow.

        Raises as `outgoing`, but not NO_ENDPOINT.
        """
        self._now = now
        self._flows.translate(packet, now, unfinished=unfinished)

    def back(self, packet: memoryview) -> None:
        """Do the same to what tells an application of a packet that was translated, in its endpoint's name."""
        if self.answering:
            self._flows.translate(packet, self._now)

    def restore(self, name: bytes, now: float, target: End | None = None) -> None:
        """Take up a flow that was open before we started: its endpoint's next packet may come before one of ours.

        It goes on to ``target``; where that is not known, to who would be chosen anew.
        """
        if self._flows.find(name, now) is not None:
            return
        target = target or self._choose(name, now)
        if target is not None and not self._is_taken(name, target, now):
            self._flows.add(self._make(name, target, b""), now)
            self.addresses.add(ends(name)[1].address)

    # Where no endpoints are known.

    def may_meet(self, address: bytes) -> bool:
        """Say whether any pod of the project may answer a call to a packed address."""
        return address not in self._services.names and self._meets(address)

    def rendezvous(self, virtual: bytes, pod: Iterable[bytes], now: float) -> None:
        """Send new flows to the pod, by its packed addresses, that answered a call to a virtual one; port for port."""
        same_family = sorted(address for address in pod if len(address) == len(virtual))
        if not same_family:
            return
        self._pinned.pop(virtual, None)
        if len(self._pinned) >= MOST_PINNED:
            del self._pinned[next(iter(self._pinned))]
        self._pinned[virtual] = same_family[0], now + PINNED
        self.addresses.add(virtual)

    def gone(self, pod: Collection[bytes]) -> None:
        """Send no more new flows to a pod that answers no longer: the next calls the virtual address again."""
        for virtual, (address, _) in list(self._pinned.items()):
            if address in pod:
                self._pinned[virtual] = address, 0.0

    # The rest is our own.

    def _open(self, packet: memoryview, now: float) -> Flow | None:
        """Return a new flow for a packet that is of none; None where its address stays for now."""
        upper = find_upper(packet)
        name = None if upper.is_later else flow_name(packet, upper)
        virtual = _destination(packet)
        served = virtual in self._services.names
        target = None if name is None else self._choose(name, now)
        if name is None or target is None:
            if served or (name is None and not upper.is_later and virtual in self._pinned):
                raise Dropped(Drop.NO_ENDPOINT)
            return None
        return self._make(name, target, opening(packet, upper))

    def _choose(self, name: bytes, now: float) -> End | None:
        source, virtual, protocol = ends(name)
        with_ports = protocol in WITH_PORTS
        if virtual.address not in self._services.names:
            pod, until = self._pinned.get(virtual.address, (b"", 0.0))
            end = End(pod, virtual.port)
            return end if now < until and not self._is_taken(name, end, now) else None
        if with_ports:
            port = self._services.find(virtual.address, protocol, virtual.port)
        else:
            port = self._services.first(virtual.address)
        if port is None:
            return None

        prefers = self._preference(port)

        def taken(end: End) -> bool:
            if prefers is not None and not prefers(end.address):
                return True
            return self._is_taken(name, end if with_ports else End(end.address, 0), now)

        if port.affinity is None:
            target = port.choose(name, taken)
        else:
            client = source.address + made_name(virtual, virtual, protocol)
            target = self._choose_again(client, port, taken, port.affinity, now)
        return target if target is None or with_ports else End(target.address, 0)

    def _preference(self, port: ServicePort) -> Callable[[bytes], bool] | None:
        prefers = self._prefers
        if prefers is None or not any(prefers(end.address) for end in port.candidates):
            return None
        return prefers

    def _choose_again(
        self,
        client: bytes,
        port: ServicePort,
        taken: Callable[[End], bool],
        affinity: float,
        now: float,
    ) -> End | None:
        """Return the endpoint that this client had last, or a new one, which it keeps for ``affinity`` seconds."""
        target, until = self._stuck.pop(client, (None, 0.0))
        if target is None or now >= until or target not in port.candidates or taken(target):
            target = port.choose(client, taken)
        if target is not None:
            if len(self._stuck) >= MOST_STUCK:
                del self._stuck[next(iter(self._stuck))]
            self._stuck[client] = target, now + affinity
        return target

    def _is_taken(self, name: bytes, end: End, now: float) -> bool:
        """Say whether answers of ``end`` would be those of another flow."""
        return self._flows.find(self._answers(name, end), now) is not None

    def _answers(self, name: bytes, end: End) -> bytes:
        source, virtual, protocol = ends(name)
        own = end.address in self._own
        return made_name(end, End(virtual.address, source.port) if own else source, protocol)

    def _make(self, name: bytes, end: End, first: bytes) -> Flow:
        source, virtual, _ = ends(name)
        there: Changes = (change(DESTINATION, virtual, end),)
        back: Changes = (change(SOURCE, end, virtual),)
        if end.address in self._own:
            # To itself by way of tenc0: each end of it sees the virtual address as the other.
            other = End(virtual.address, source.port)
            there += (change(SOURCE, source, other),)
            back += (change(DESTINATION, other, source),)
        return Flow(name, self._answers(name, end), there, back, first)


def _port(virtual: End, protocol: int) -> tuple[bytes, int, int]:
    return virtual.address, protocol, virtual.port


def _destination(packet: memoryview) -> bytes:
    both = addresses(packet)
    return both[len(both) // 2 :]
