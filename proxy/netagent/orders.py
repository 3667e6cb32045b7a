"""What the daemon may ask of the net agent: a closed list of verbs, whose every argument is checked here.

A line of words: a number by which it is answered, a verb, arguments.

    7 +member A...            refuse clear from and to these single addresses, and lead them to tenc0
    8 -member A...            no longer those that were added so
    9 +service A...           the same for Services, where encryption is permissive: what began in clear goes on so
    10 -service A...
    11 +bypass SECONDS A...    clear to these for so long, where the settings have `dns_bypass`
    12 -bypass A...
    13 fresh SECONDS          clear to the ranges for so long, where encryption is permissive
    14 audit                  which clear flows were counted

A daemon that was taken over can ask for nothing else: no prefix, table, interface, set or port can be named. In strict
mode it can only add protection, but for `dns_bypass`, which lies in the ranges, ends by the kernel's clock and never
touches a member. Where encryption is permissive, it can keep clear to the ranges open, and nothing beyond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from proxy.netagent.filter import MOST_ELEMENTS, NFT_TABLE
from proxy.netagent.plan import Route, single
from proxy.netagent.settings import is_special

if TYPE_CHECKING:
    from proxy.netagent.settings import Address, NetSettings

LONGEST_LINE: Final = 512
MOST_SECONDS: Final = 3600

ADD_MEMBER, DROP_MEMBER = "+member", "-member"
ADD_SERVICE, DROP_SERVICE = "+service", "-service"
ADD_BYPASS, DROP_BYPASS = "+bypass", "-bypass"
FRESH, AUDIT = "fresh", "audit"


class OrderError(Exception):
    """An order that is none, or not this pod's to give; nothing was done."""


@dataclass(frozen=True, slots=True)
class Order:
    """A verb with arguments that can be: addresses each once, seconds from 1 to 3,600."""

    number: int
    verb: str
    addresses: tuple[Address, ...] = ()
    seconds: int = 0


@dataclass(slots=True)
class Changes:
    """What one transaction does: lines for nft, and routes that come or go."""

    nft: list[str] = field(default_factory=list)
    add: list[Route] = field(default_factory=list)
    drop: list[Route] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Say whether there is anything to do."""
        return bool(self.nft or self.add or self.drop)


def parse_order(line_untrusted: bytes) -> Order:
    """Return what a line asks for; raises `OrderError`. Whether this pod may is for `Sets.carry`."""
    if len(line_untrusted) > LONGEST_LINE:
        raise OrderError("too long")
    try:
        words = line_untrusted.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise OrderError("not ASCII") from None
    number, verb, arguments = _number(words[0], (1 << 53) - 1), words[1:2], words[2:]
    match verb:
        case ["+member" | "-member" | "+service" | "-service" | "-bypass"] if arguments:
            return Order(number, verb[0], _addresses(arguments))
        case ["+bypass"] if len(arguments) > 1:
            return Order(
                number, verb[0], _addresses(arguments[1:]), _number(arguments[0], MOST_SECONDS)
            )
        case ["fresh"] if len(arguments) == 1:
            return Order(number, verb[0], (), _number(arguments[0], MOST_SECONDS))
        case ["audit"] if not arguments:
            return Order(number, verb[0])
        case _:
            raise OrderError("no such order")


def _number(word: str, most: int) -> int:
    if not (word.isdigit() and len(word) <= 16 and 1 <= int(word) <= most):
        raise OrderError(f"a number from 1 to {most}")
    return int(word)


def _addresses(words: list[str]) -> tuple[Address, ...]:
    found = []
    for word in words:
        try:
            found.append(ip_address(word))
        except ValueError:
            raise OrderError("no address") from None
    if len(set(found)) < len(found):
        raise OrderError("an address twice")
    return tuple(found)


class Sets:
    """What the agent has added by orders, and what each further order changes."""

    def __init__(self, settings: NetSettings, kept: Iterable[Address] = ()) -> None:
        """Begin as after `set_up`: ``kept`` are members that were added before it."""
        self._settings = settings
        self._sources = {one.version: one for one in reversed(settings.addresses)}
        self._members = set(kept)
        self._served: set[Address] = set()
        self._never = {*settings.addresses, *settings.resolvers}
        if settings.ca_address is not None:
            self._never.add(settings.ca_address)

    def carry(self, order: Order, changes: Changes) -> None:
        """Add to ``changes`` what an order comes to; raises `OrderError` where this pod may not."""
        for address in order.addresses:
            self._check(address)
        match order.verb:
            case "+member":
                self._add_members(order.addresses, changes)
            case "-member":
                self._drop_members(order.addresses, changes)
            case "+service":
                self._add_services(order.addresses, changes)
            case "-service":
                self._drop_services(order.addresses, changes)
            case "+bypass":
                self._check_bypass(order.addresses)
                changes.nft += _again("bypass", order.addresses, f" timeout {order.seconds}s")
                changes.add += [Route(single(one), None, throw=True) for one in order.addresses]
            case "-bypass":
                self._check_bypass(order.addresses)
                changes.nft += _gone("bypass", order.addresses)
                changes.drop += [Route(single(one), None, throw=True) for one in order.addresses]
            case "fresh":
                self._freshen(order.seconds, changes)
            case _:
                pass

    def _check(self, address: Address) -> None:
        network = single(address)
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise OrderError("an address with a scope")
        if address in self._never or is_special(network):
            raise OrderError("an address that can be no other pod's")
        for clear in (*self._settings.clear_in, *self._settings.clear_out):
            if clear.protocol is None and _lies_in(address, (clear.network,)):
                raise OrderError("an address that is listed in clear")

    def _check_bypass(self, addresses: Iterable[Address]) -> None:
        settings = self._settings
        if not settings.dns_bypass:
            raise OrderError("no dns_bypass here")
        for address in addresses:
            is_member = address in self._members or _lies_in(address, settings.members)
            if is_member or not _lies_in(address, settings.ranges):
                raise OrderError("a member, or outside the ranges")

    def _add_members(self, addresses: tuple[Address, ...], changes: Changes) -> None:
        if len(self._members.union(addresses)) > MOST_ELEMENTS:
            raise OrderError(f"more than {MOST_ELEMENTS} members")
        self._members.update(addresses)
        changes.nft += _elements("add", "members", addresses)
        if self._settings.dns_bypass:
            changes.nft += _gone("bypass", addresses)
            changes.drop += [Route(single(one), None, throw=True) for one in addresses]
        changes.add += [route for one in addresses for route in self._routes(one)]

    def _drop_members(self, addresses: tuple[Address, ...], changes: Changes) -> None:
        if not self._members.issuperset(addresses):
            raise OrderError("not added by order")
        self._members.difference_update(addresses)
        changes.nft += _elements("delete", "members", addresses)
        changes.drop += [route for one in addresses for route in self._routes(one)]

    def _add_services(self, addresses: tuple[Address, ...], changes: Changes) -> None:
        if self._settings.strict or self._settings.broken_glass:
            raise OrderError("encryption is not permissive, or the glass is broken")
        if not self._members.isdisjoint(addresses):
            raise OrderError("a member")
        if len(self._served.union(addresses)) > MOST_ELEMENTS:
            raise OrderError(f"more than {MOST_ELEMENTS} virtual addresses")
        self._served.update(addresses)
        changes.nft += _elements("add", "served", addresses)
        changes.add += [route for one in addresses for route in self._routes(one)]

    def _drop_services(self, addresses: tuple[Address, ...], changes: Changes) -> None:
        if not self._served.issuperset(addresses):
            raise OrderError("not added by order")
        self._served.difference_update(addresses)
        changes.nft += _elements("delete", "served", addresses)
        changes.drop += [route for one in addresses for route in self._routes(one)]

    def _routes(self, address: Address) -> Iterator[Route]:
        """Yield the routes of a member: where the table's own prefixes hold it already, they change nothing."""
        yield Route(single(address), None)
        if address.version in self._sources:
            yield Route(single(address), self._sources[address.version])

    def _freshen(self, seconds: int, changes: Changes) -> None:
        settings = self._settings
        if settings.strict or settings.broken_glass:
            raise OrderError("encryption is not permissive, or the glass is broken")
        for version in (4, 6):
            ranges = [str(one) for one in settings.ranges if one.version == version]
            if ranges:
                timed = ", ".join(f"{one} timeout {seconds}s" for one in ranges)
                name = f"inet {NFT_TABLE} fresh{version}"
                changes.nft += [f"flush set {name}", f"add element {name} {{ {timed} }}"]


def _lies_in(address: Address, networks: Iterable[object]) -> bool:
    return any(address in network for network in networks)  # type: ignore[operator]  # of either family


def _elements(verb: str, name: str, addresses: Iterable[Address], more: str = "") -> list[str]:
    """Return a line for each family."""
    lines = []
    for version, kind in ((4, IPv4Address), (6, IPv6Address)):
        listed = ", ".join(f"{one}{more}" for one in addresses if isinstance(one, kind))
        if listed:
            lines.append(f"{verb} element inet {NFT_TABLE} {name}{version} {{ {listed} }}")
    return lines


def _gone(name: str, addresses: Iterable[Address]) -> list[str]:
    """Remove elements, whether they are there or not: what is to be deleted must be."""
    some = tuple(addresses)
    return _elements("add", name, some) + _elements("delete", name, some)


def _again(name: str, addresses: Iterable[Address], more: str) -> list[str]:
    """Add elements whose time begins anew."""
    some = tuple(addresses)
    return _gone(name, some) + _elements("add", name, some, more)
