"""What the set-up depends on, checked once: from here on every value may stand in a rule."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from proxy.flow.clearance import Clearance

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# What the kernel allows is wider; what nft and a shell read without quoting is this.
_INTERFACE_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,15}")
_NOTE: Final = re.compile(r"[A-Za-z0-9 .,:;/_@#()=+-]{1,120}")

MOST_RESOLVERS: Final = 3
"""As resolv.conf(5) has it."""

# What the kernel delivers by rules of its own, or what stands for no pod.
_SPECIAL_V4: Final = tuple(
    IPv4Network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32")
)
_SPECIAL_V6: Final = tuple(
    IPv6Network(text) for text in ("::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8")
)


class PlanError(ValueError):
    """The settings cannot be carried out; the text is one line for the user."""


@dataclass(frozen=True, slots=True)
class NetSettings:
    """What the set-up depends on.

    `addresses` are the pod's own; `members` the prefixes that are talked to through the tunnel
    alone; `uid` and `gid` are the daemon's.
    """

    interface: str
    interface_mtu: int
    addresses: tuple[Address, ...]
    members: tuple[Network, ...]
    session_port: int
    uid: int
    gid: int
    verify: bool = False
    """Whether watchers may look at the interface."""
    ranges: tuple[Network, ...] = ()
    """Where pods and Services live; where encryption is strict, only what is listed is reached there in clear."""
    strict: bool = True
    clear_in: tuple[Clearance, ...] = ()
    clear_out: tuple[Clearance, ...] = ()
    resolvers: tuple[Address, ...] = ()
    dns_port: int | None = None
    """Where the DNS proxy listens for the first resolver, the next for the second; None without it."""
    dns_bypass: bool = False
    ca_address: Address | None = None
    ca_port: int = 0
    """Where the daemon speaks to the CA by itself: an address, or any (None) on that port; 0: nowhere inside."""
    broken_glass: bool = False
    """Permissive, and in clear to the ranges without a fresh roster."""

    @property
    def ca_inside(self) -> bool:
        """Whether the CA may lie in the ranges."""
        if not self.ca_port:
            return False
        return self.ca_address is None or any(
            self.ca_address in one for one in self.ranges if one.version == self.ca_address.version
        )


def check(settings: NetSettings) -> None:
    """Raise PlanError where a value cannot be, or must not stand in a rule."""
    if not _INTERFACE_NAME.fullmatch(settings.interface) or settings.interface in {".", ".."}:
        raise PlanError(f"interface {settings.interface!r}: 1 to 15 of A-Z a-z 0-9 . _ -")
    if settings.interface in {"tenc0", "lo"}:
        raise PlanError(f"interface {settings.interface}: the one that leads to the other pods")
    if not settings.addresses:
        raise PlanError(f"interface {settings.interface} has no address that the pod could use")
    if not 1 <= settings.session_port <= 0xFFFF:
        raise PlanError(f"session port {settings.session_port}: a port from 1 to 65535")
    for name, number in (("uid", settings.uid), ("gid", settings.gid)):
        # Forwarded packets and the kernel's own count as UID 0 in rules; -1 means "unchanged".
        if not 1 <= number < 0xFFFFFFFF:
            raise PlanError(
                f"daemon {name} {number}: from 1 to 4294967294, and used by nothing else"
            )
    _check_dns(settings)
    _check_addresses(settings)


def check_note(text: str) -> str:
    """Return a text that may stand in the filter as a comment. Raises PlanError."""
    if not _NOTE.fullmatch(text):
        raise PlanError(
            f"{text!r}: 1 to 120 of letters, digits, spaces and . , : ; / _ @ # ( ) = + -"
        )
    return text


def _check_dns(settings: NetSettings) -> None:
    if len(settings.resolvers) > MOST_RESOLVERS:
        raise PlanError(f"{len(settings.resolvers)} resolvers: {MOST_RESOLVERS} at most")
    last = (settings.dns_port or 1) + MOST_RESOLVERS - 1
    if not 1 <= (settings.dns_port or 1) <= last <= 0xFFFF:
        raise PlanError(
            f"DNS port {settings.dns_port}: a port from 1 to {0xFFFF + 1 - MOST_RESOLVERS}"
        )
    if not 0 <= settings.ca_port <= 0xFFFF:
        raise PlanError(f"CA port {settings.ca_port}: a port from 1 to 65535")


def _check_addresses(settings: NetSettings) -> None:
    networks = (*settings.members, *settings.ranges)
    for address in (
        *settings.addresses,
        *settings.resolvers,
        *(one.network_address for one in networks),
    ):
        # "fd00::1%..." may hold any text, and would stand in the filter's.
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise PlanError(f"address {str(address)!r}: an address without a scope")
    for name, listed in (("member", settings.members), ("cluster range", settings.ranges)):
        for network in listed:
            if is_special(network):
                raise PlanError(
                    f"{name} {network}: holds loopback, link-local, multicast or no addresses"
                )


def is_special(member: Network) -> bool:
    """Say whether a prefix holds addresses that can be no pod's."""
    if isinstance(member, IPv4Network):
        return any(member.overlaps(other) for other in _SPECIAL_V4)
    return any(member.overlaps(other) for other in _SPECIAL_V6)
