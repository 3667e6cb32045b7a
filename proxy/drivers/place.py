"""Where the daemon finds itself, as whoever started it with more privileges has found out."""

from dataclasses import dataclass

from policy.rules import Rules
from proxy.drivers.dns_proxy import DNS_PORT, Way, listen
from proxy.drivers.project_files import Files
from proxy.flow.membership import Address
from proxy.flow.services import Services
from proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """The pod's addresses (one a family), its resolvers, tenc0's MTU.

    ``kept`` are members that the kernel has held since before the start, ``ways`` listeners of the DNS proxy that took
    privileges to open.
    """

    addresses: tuple[Address, ...]
    resolvers: tuple[Address, ...]
    tunnel_mtu: int
    kept: tuple[Address, ...] = ()
    files: Files = Files(Rules(), Services())  # noqa: RUF009 - never changed in place
    ways: tuple[Way, ...] = ()

    @property
    def own(self) -> frozenset[bytes]:
        """The addresses, packed."""
        return frozenset(address.packed for address in self.addresses)


def open_ways(settings: Settings, place: Place) -> tuple[Way, ...]:
    """Open where programs' queries arrive, a port for each resolver, if that is not done. Raises OSError."""
    first = settings.project.dns_port
    if place.ways or first is None:
        return place.ways
    return tuple(
        listen("127.0.0.1" if one.version == 4 else "::1", first + number, (one, DNS_PORT))
        for number, one in enumerate(place.resolvers)
    )
