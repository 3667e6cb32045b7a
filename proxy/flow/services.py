"""The project's Services: their virtual addresses, and who serves each of their ports."""

from collections.abc import Callable
from hashlib import blake2s
from ipaddress import ip_address

from proxy.packet.rewrite import End


class ServicePort:
    """One port of a Service at addresses of one family: who serves it."""

    __slots__ = ("_ending", "_ready", "affinity", "all", "name")

    def __init__(self, name: str, affinity: float | None) -> None:
        """Begin without endpoints; ``affinity`` says for how many seconds a client keeps its endpoint."""
        self.name, self.affinity = name, affinity
        self.all: set[End] = set()
        self._ready: set[End] = set()
        self._ending: set[End] = set()

    def add(self, end: End, *, ready: bool, ending: bool) -> None:
        """Add an endpoint, or what else is said of it; one that is neither is known, and chosen by nobody."""
        self.all.add(end)
        if ready:
            self._ready.add(end)
        elif ending:
            self._ending.add(end)

    @property
    def candidates(self) -> set[End]:
        """Who takes new flows: the ready; where there are none, those that still serve while they end."""
        return self._ready or self._ending

    def choose(self, flow: bytes, taken: Callable[[End], bool] = lambda _: False) -> End | None:
        """Return the endpoint of a new flow, None where nobody serves; not one that is ``taken``.

        The same flow finds the same one while that is there, after a restart too (rendezvous hashing: Thaler and
        Ravishankar 1998), and flows are spread evenly.
        """
        free = [end for end in self.candidates if not taken(end)]
        if len(free) < 2:
            return free[0] if free else None
        return max(free, key=lambda end: (_weight(flow, end), end))


class Services:
    """What an endpoints file says, asked by packed virtual address."""

    def __init__(self) -> None:
        """Begin without any."""
        self._ports: dict[tuple[bytes, int, int], ServicePort] = {}
        self._of: dict[bytes, list[ServicePort]] = {}
        self.names: dict[bytes, str] = {}
        """Virtual addresses, each with its Service's name: shop/web."""

    def find(self, address: bytes, protocol: int, port: int) -> ServicePort | None:
        """Return a virtual address's port; None where it has no such."""
        return self._ports.get((address, protocol, port))

    def first(self, address: bytes) -> ServicePort | None:
        """Return any port of a virtual address: who serves that answers an echo request."""
        ports = self._of.get(address)
        return ports[0] if ports else None

    def takers(self, address: bytes) -> set[bytes]:
        """Return the packed addresses of who takes new flows to any port of a virtual address."""
        return {end.address for port in self._of.get(address, ()) for end in port.candidates}

    def endpoints(self) -> dict[bytes, str]:
        """Return the packed addresses of all endpoints, each with the name of a Service that it serves."""
        return {
            end.address: self.names[virtual]
            for virtual, ports in self._of.items()
            for port in ports
            for end in port.all
        }

    def serves(self, end: End, address: bytes, protocol: int, port: int) -> bool:
        """Say whether ``end`` is, ready or not, an endpoint of a virtual address's port."""
        found = self.find(address, protocol, port)
        return found is not None and end in found.all

    def add(self, address: bytes, name: str, protocol: int, port: int, served: ServicePort) -> None:
        """Add a port; raises ValueError for one that is there, or an address of another Service."""
        if self.names.setdefault(address, name) != name:
            raise ValueError(f"{ip_address(address)} is also that of {self.names[address]}")
        if (address, protocol, port) in self._ports:
            raise ValueError(f"port {port} is there twice")
        self._ports[address, protocol, port] = served
        self._of.setdefault(address, []).append(served)


def _weight(flow: bytes, end: End) -> bytes:
    made = blake2s(flow + end.address + end.port.to_bytes(2, "big"), digest_size=8)
    return made.digest()
