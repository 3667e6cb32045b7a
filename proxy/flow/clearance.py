"""What may pass in clear inside the cluster's ranges: a list that the operator writes, with protocol and ports.

As text: ``10.0.0.9 tcp/8080``, ``10.1.0.0/24 udp/8000-8100``, ``fd00::9 icmp``, ``10.0.0.10 any``.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, TypeAlias

from typing_extensions import override

Network: TypeAlias = IPv4Network | IPv6Network

ACCEPTED: Final = (
    "ADDRESS[/PREFIX] tcp|udp|sctp/PORT[-PORT], ADDRESS tcp|udp|sctp|icmp, or ADDRESS any"
)

_ICMP: Final = {4: 1, 6: 58}
_WITH_PORTS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
_TEXT: Final = re.compile(
    r"(?P<network>[0-9A-Fa-f:./]{2,49}) (?P<protocol>any|icmp|tcp|udp|sctp)"
    r"(?:/(?P<low>[0-9]{1,5})(?:-(?P<high>[0-9]{1,5}))?)?"
)


@dataclass(frozen=True, slots=True)
class Clearance:
    """Addresses, an IP protocol (None: any), and ports of the side that listens (None: any)."""

    network: Network
    protocol: int | None
    ports: tuple[int, int] | None

    @override
    def __str__(self) -> str:
        """Write it as the settings do."""
        single = self.network.num_addresses == 1
        where = self.network.network_address if single else self.network
        names = {number: name for name, number in _WITH_PORTS.items()}
        what = "any" if self.protocol is None else names.get(self.protocol, "icmp")
        if self.ports is not None:
            low, high = self.ports
            what += f"/{low}" if low == high else f"/{low}-{high}"
        return f"{where} {what}"

    def covers(self, protocol: int, port: int | None) -> bool:
        """Say whether a packet of this protocol, to or from this port, is meant; the address is not asked."""
        if self.protocol not in {None, protocol}:
            return False
        return self.ports is None or (port is not None and self.ports[0] <= port <= self.ports[1])


def parse_clearance(text_untrusted: str) -> Clearance:
    """Return what the text says; raises ValueError, with a reason or with what is accepted."""
    match = _TEXT.fullmatch(text_untrusted)
    if match is None:
        raise ValueError(f"{text_untrusted!r}: {ACCEPTED}")
    network = ip_network(match["network"])
    name = match["protocol"]
    ports = _ports(match["low"], match["high"])
    if ports is not None and name not in _WITH_PORTS:
        raise ValueError(f"{text_untrusted!r}: {name} has no ports")
    protocol = _ICMP[network.version] if name == "icmp" else _WITH_PORTS.get(name)
    return Clearance(network, protocol, ports)


def _ports(low: str | None, high: str | None) -> tuple[int, int] | None:
    if low is None:
        return None
    ports = int(low), int(high or low)
    if not 1 <= ports[0] <= ports[1] <= 0xFFFF:
        raise ValueError(
            f"{low}{f'-{high}' if high else ''}: ports from 1 to 65535, the lower first"
        )
    return ports
