"""Parsers of single values: what TOML gave, to what it means; ValueError, as a rule without a text.

An error without a text lets the key's own words say what is accepted; one with a text says more.
"""

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_interface,
    ip_network,
)
from itertools import pairwise
from typing import Final, TypeAlias

from typing_extensions import override

from ca.messages import parse_fingerprint, parse_token
from policy.settings_parse import number, path, text, texts
from proxy.flow.clearance import Clearance, parse_clearance

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a TCP socket listens."""

    address: Address
    port: int

    @override
    def __str__(self) -> str:
        """Write it as the settings do."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


_NEVER_MEMBERS: Final = {
    "this network": ("0.0.0.0/8", "::/128"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "reserved": ("240.0.0.0/4",),
    "IPv4 in IPv6": ("::ffff:0:0/96",),
}
_FORBIDDEN: Final = tuple(
    (ip_network(prefix), kind) for kind, prefixes in _NEVER_MEMBERS.items() for prefix in prefixes
)
_LOOPBACKS: Final = {4: ip_network("127.0.0.0/8"), 6: ip_network("::1")}
LONGEST_SOCKET_PATH: Final = 107
"""Bytes of ``sun_path`` without its closing zero (unix(7))."""


def interface(value: object) -> str:
    """Parse an interface's name: neither the loopback nor our own device."""
    name = text(value)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,15}", name) or name in {".", "..", "lo", "tenc0"}:
        raise ValueError
    return name


def _network(text: str) -> Network:
    if "%" in text:  # ipaddress would take a zone, which no route or certificate can hold
        raise ValueError(f"{text} names a zone; addresses here have none")
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_interface(text).network
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a prefix") from None
    raise ValueError(f"{text} has bits set beyond its prefix: {meant} has not")


def _project_network(text: str) -> Network:
    network = _network(text)
    if network.prefixlen == 0:
        raise ValueError(f"{text} is everything: list the project's own prefixes")
    for forbidden, kind in _FORBIDDEN:
        if network.version == forbidden.version and network.overlaps(forbidden):
            raise ValueError(f"{text} holds addresses that no pod can have ({kind}, {forbidden})")
    return network


def addresses(value: object) -> tuple[Address, ...]:
    """Parse a list of single addresses, each once."""
    networks = [_project_network(item) for item in texts(value)]
    if any(network.num_addresses != 1 for network in networks):
        raise ValueError
    _refuse_overlaps(networks)
    return tuple(network.network_address for network in networks)


def members(value: object) -> tuple[Network, ...]:
    """Parse a list of addresses and prefixes, none inside another."""
    networks = [_project_network(item) for item in texts(value)]
    if not networks:
        raise ValueError
    _refuse_overlaps(networks)
    return tuple(networks)


def _refuse_overlaps(networks: list[Network]) -> None:
    """Raise for a repetition; sorted, a prefix follows the first one that holds it."""
    ordered = sorted(
        networks, key=lambda net: (net.version, int(net.network_address), net.prefixlen)
    )
    for first, second in pairwise(ordered):
        if first == second:
            raise ValueError(f"{_plain(first)} is listed twice")
        if first.version == second.version and first.overlaps(second):
            raise ValueError(f"{_plain(second)} lies in {first}, which is listed too")


def _plain(network: Network) -> str:
    return str(network.network_address if network.num_addresses == 1 else network)


def host(ca_address: str) -> str:
    """Return the host of an ``https://host:port``; raises ValueError where it is not one."""
    match = re.fullmatch(
        r"https://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", ca_address
    )
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise ValueError
    if match[1] is not None:
        return str(IPv6Address(match[1]))
    labels = match[2].split(".")
    if labels[-1].isdigit():  # never a DNS name (RFC 1123 2.1), so it must be an address
        return str(IPv4Address(match[2]))
    label = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
    if len(match[2]) > 253 or not all(label.fullmatch(part) for part in labels):
        raise ValueError
    return match[2]


def clearances(value: object) -> tuple[Clearance, ...]:
    """Parse a list of what may pass in clear, each once."""
    parsed = tuple(parse_clearance(item) for item in texts(value))
    for one in parsed:
        _network(str(one.network))
        if one.network.prefixlen == 0:
            raise ValueError(f"{one} is everything: list addresses")
    if len(set(parsed)) < len(parsed):
        raise ValueError("one is listed twice")
    if len(parsed) > MOST_CLEARANCES:
        raise ValueError(f"{len(parsed)} entries: {MOST_CLEARANCES} at most")
    return parsed


def resolvers(value: object) -> tuple[Address, ...]:
    """Parse a list of one to three addresses, each once; loopback and link-local ones may be resolvers."""
    networks = [_network(item) for item in texts(value)]
    if not 1 <= len(networks) <= 3 or any(network.num_addresses != 1 for network in networks):
        raise ValueError
    _refuse_overlaps(networks)
    return tuple(network.network_address for network in networks)


def domain(value: object) -> str:
    """Parse a domain name; returns it in lower case without a dot at its end."""
    found = text(value).lower().removesuffix(".")
    label = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
    if not 1 <= len(found) <= 200 or not all(label.fullmatch(part) for part in found.split(".")):
        raise ValueError
    return found


def port_map(value: object) -> dict[int, int]:
    """Parse a table from ports to ports, no two to the same."""
    if not isinstance(value, dict):
        raise ValueError  # noqa: TRY004 - one of the user's mistakes
    port = number(1, 0xFFFF)
    if not all(isinstance(key, str) and re.fullmatch(r"[0-9]{1,5}", key) for key in value):
        raise ValueError
    parsed = {port(int(key)): port(to) for key, to in value.items()}
    if len(set(parsed.values())) < len(parsed) or len(parsed) < len(value):
        raise ValueError("two Services' ports lead to one: answers could not be told apart")
    return parsed


MOST_CLEARANCES: Final = 128
"""Entries of a list of what may pass in clear: each is a rule of the kernel."""

OFFLOADS: Final = ("tso", "uso", "gso", "gro")
"""What the kernel may put together or cut for us: TCP and UDP from tenc0, what we send, what we receive."""


def offloads(value: object) -> tuple[str, ...]:
    """Parse a list of offloads, each once; none at all is a choice too."""
    chosen = texts(value)
    for one in chosen:
        if one not in OFFLOADS:
            raise ValueError(f"{one!r} is none of {', '.join(OFFLOADS)}")
    if len(set(chosen)) < len(chosen):
        raise ValueError("one is listed twice")
    return tuple(chosen)


def fingerprint(value: object) -> str:
    """Parse a SHA-256 fingerprint; returns ``sha256:`` and lower-case digits."""
    found = text(value)
    try:
        return parse_fingerprint(found)
    except ValueError:
        raise ValueError from None


def token(value: object) -> str:
    """Parse a join token; returns its text, which is what the CA is sent."""
    found = text(value).strip()
    try:
        parse_token(found)
    except ValueError:  # its text might repeat parts of the token
        raise ValueError from None
    return found


def loopback(value: object) -> Listen | None:
    """Parse a loopback address with a port, or ``off``, which is None."""
    found = text(value)
    if found == "off":
        return None
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", found)
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise ValueError
    try:
        address = IPv4Address(match[2]) if match[2] else IPv6Address(match[1])
    except ValueError:
        raise ValueError from None
    if address not in _LOOPBACKS[address.version]:
        raise ValueError(f"{address} is not loopback: none but the pod's own programs may ask")
    return Listen(address, int(match[3]))


def socket_path(value: object) -> str:
    """Parse the path of a Unix socket."""
    found = path(value)
    if len(found.encode(errors="surrogateescape")) > LONGEST_SOCKET_PATH:
        raise ValueError
    return found
