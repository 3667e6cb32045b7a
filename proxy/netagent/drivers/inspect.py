"""Finds the pod's interface and addresses where the configuration leaves them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.netagent.drivers.netlink import Link, LocalAddress, Netlink
from proxy.netagent.errors import NetAgentError
from proxy.netagent.plan import TUNNEL, Address


@dataclass(frozen=True, slots=True)
class InterfaceInfo:
    """An interface with its global unicast addresses, in the kernel's order."""

    name: str
    index: int
    mtu: int
    addresses: tuple[Address, ...]


def find_interface(addresses: Sequence[Address], name: str | None) -> InterfaceInfo:
    """Find the pod's interface in the present network namespace.

    By `name`; else the one that holds all of `addresses`; else the default route's; else the
    only one that is up and not loopback. Raises NetAgentError, which lists the candidates.
    """
    with Netlink() as netlink:
        links = [link for link in netlink.links() if link.name != TUNNEL]
        present = netlink.addresses()
        default = netlink.default_interface()
    held = {link.index: _usable(link, present) for link in links}
    link = _choose(links, held, default, addresses, name)
    if link is None:
        listing = ", ".join(
            f"{link.name} ({', '.join(map(str, held[link.index])) or 'no address'})"
            for link in links
            if link.is_up and not link.is_loopback
        )
        raise NetAgentError(f"{_sought(addresses, name)}: there are {listing or 'none that is up'}")
    missing = [str(address) for address in addresses if address not in held[link.index]]
    if missing:
        raise NetAgentError(f"interface {link.name} does not hold {', '.join(missing)}")
    return InterfaceInfo(link.name, link.index, link.mtu, held[link.index])


def _usable(link: Link, present: list[LocalAddress]) -> tuple[Address, ...]:
    return tuple(
        local.address
        for local in present
        if local.index == link.index and local.is_global and not local.address.is_loopback
    )


def _choose(
    links: list[Link],
    held: dict[int, tuple[Address, ...]],
    default: int | None,
    addresses: Sequence[Address],
    name: str | None,
) -> Link | None:
    if name is not None:
        matching = [link for link in links if link.name == name]
    elif addresses:
        matching = [link for link in links if set(addresses) <= set(held[link.index])]
    elif default is not None:
        matching = [link for link in links if link.index == default]
    else:
        matching = [link for link in links if link.is_up and not link.is_loopback]
    return matching[0] if len(matching) == 1 else None


def _sought(addresses: Sequence[Address], name: str | None) -> str:
    if name is not None:
        return f"no interface {name}"
    if addresses:
        return f"no interface holds {', '.join(map(str, addresses))}"
    return "which interface is the pod's? Name it"
