"""Which addresses are the project's: facts from several sources, and one judgement for packets, people and the kernel.

The order of `judge` is decision 0009's. Nothing that a forged DNS answer can say takes protection away from an
address inside the cluster's ranges.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum, unique
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

from proxy.flow.clearance import Clearance, Network

Address: TypeAlias = IPv4Address | IPv6Address

MOST_FACTS: Final = 4096
"""Addresses that one source may name."""

LEAST_LIFE: Final = 30.0
MOST_LIFE: Final = 3600.0
OUTSIDE_LIFE: Final = 24 * 3600.0
"""Seconds that an answer for the project's zone counts: inside the ranges its own time between the first two."""

_MOST_CACHED: Final = 8192


@unique
class Kind(StrEnum):
    """What an address is to this pod."""

    OWN = "own"
    MEMBER = "member"
    EXTERNAL = "external"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an address is, and the fact that decided: its source, and what it says."""

    kind: Kind
    source: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Told:
    """What DNS said of an address, and until when (monotonic seconds) it counts."""

    name: str
    ends: float


class Membership:
    """Facts about addresses (packed, 4 or 16 bytes); ``changed`` is called after each change of any judgement."""

    def __init__(  # noqa: PLR0913 - what the settings say
        self,
        *,
        own: Iterable[Address],
        members: Iterable[Network],
        ranges: Iterable[Network],
        clear: Iterable[Clearance] = (),
        resolvers: Iterable[Address] = (),
        permissive: bool = False,
    ) -> None:
        """Begin with what the settings say.

        ``permissive``: who has no certificate is reached in clear. So who ever held a session stays a member, and
        inside the ranges a name of the project makes none: it may be that of a pod without a certificate.
        """
        self._own = frozenset(address.packed for address in own)
        self._members = tuple(members)
        self._ranges = tuple(ranges)
        self._clear = tuple(one for one in clear if one.protocol is None)
        self._resolvers = frozenset(address.packed for address in resolvers)
        self._permissive = permissive
        self._sessions: dict[bytes, str] = {}
        self._roster: dict[bytes, str] = {}
        self._services: dict[bytes, str] = {}
        self._zone: dict[bytes, _Told] = {}
        self._bypass: dict[bytes, _Told] = {}
        self._judged: dict[bytes, Verdict] = {}
        self.changed: list[Callable[[], None]] = []

    # What is asked.

    def judge(self, address: bytes) -> Verdict:
        """Return what an address is, by the first fact that applies."""
        verdict = self._judged.get(address)
        if verdict is None:
            if len(self._judged) >= _MOST_CACHED:
                self._judged.clear()
            verdict = self._judged[address] = self._judge(address)
        return verdict

    def __contains__(self, address: bytes) -> bool:
        """Say whether an address is a member."""
        return self.judge(address).kind is Kind.MEMBER

    def in_settings(self, address: bytes) -> bool:
        """Say whether an address lies in the settings' members or ranges: where the net agent lets others look."""
        return _among(ip_address(address), (*self._members, *self._ranges)) is not None

    def in_ranges(self, address: bytes) -> bool:
        """Say whether an address lies in the cluster's ranges."""
        return _among(ip_address(address), self._ranges) is not None

    def found(self) -> set[bytes]:
        """Return the members that are known by something else than the settings."""
        known = {*self._sessions, *self._roster, *self._services, *self._zone}
        return {address for address in known if address in self}

    def name_of(self, address: bytes) -> str:
        """Return what anything calls an address, member or not; empty where nothing does."""
        told = self._zone.get(address) or self._bypass.get(address)
        if told is not None:
            return told.name
        return self._roster.get(address) or self._services.get(address) or ""

    def bypassed(self) -> dict[bytes, float]:
        """Return the addresses that DNS lets pass in clear, and until when."""
        judged = ((address, told.ends) for address, told in self._bypass.items())
        return {one: ends for one, ends in judged if self.judge(one).source == "bypass"}

    def next_end(self) -> float | None:
        """Return when `expire` has something to do."""
        ends = [told.ends for table in (self._zone, self._bypass) for told in table.values()]
        return min(ends, default=None)

    # What is told.

    def session(self, addresses: Iterable[bytes], pod: str) -> None:
        """Note that a pod's certificate named these addresses in a handshake."""
        fresh = {a: pod for a in addresses if self._sessions.get(a) != pod}
        if fresh and len(self._sessions) + len(fresh) <= MOST_FACTS:
            self._sessions |= fresh
            self._tell(fresh)

    def session_over(self, addresses: Iterable[bytes]) -> None:
        """Note that no session with these is left."""
        if self._permissive:
            return
        gone = [address for address in addresses if self._sessions.pop(address, None) is not None]
        if gone:
            self._tell(gone)

    def roster(self, entries: dict[bytes, str]) -> None:
        """Take the addresses of the signed roster, with their pods' names, in the place of the former."""
        if entries != self._roster:
            self._roster = dict(entries)
            self._tell_all()

    def services(self, entries: dict[bytes, str]) -> None:
        """Take the virtual addresses of the project's Services, in the place of the former."""
        if entries != self._services:
            self._services = dict(entries)
            self._tell_all()

    def zone(self, address: bytes, name: str, ttl: float, now: float) -> bool:
        """Note that a record of the project's zone names an address; False: there is no room for the fact."""
        inside = self.in_ranges(address)
        life = min(max(ttl, LEAST_LIFE), MOST_LIFE) if inside else OUTSIDE_LIFE
        before = self._zone.get(address)
        if before is None and len(self._zone) >= MOST_FACTS and not self._make_room(inside=inside):
            return False
        ends = now + life if before is None else max(before.ends, now + life)
        self._zone[address] = _Told(name, ends)
        if before is None or before.name != name:
            self._tell((address,))
        return True

    def bypass(self, address: bytes, name: str, ttl: float, now: float) -> bool:
        """Note that another project's name has this address; say whether it may pass in clear."""
        if self.judge(address).kind is not Kind.UNKNOWN and address not in self._bypass:
            return self.judge(address).kind is Kind.EXTERNAL
        if address not in self._bypass and len(self._bypass) >= MOST_FACTS:
            return False
        life = min(max(ttl, 1.0), MOST_LIFE)
        before = self._bypass.get(address)
        if before is not None and before.ends > now + life / 2:
            return True
        self._bypass[address] = _Told(name, now + life)
        self._tell((address,))
        return self.judge(address).kind is Kind.EXTERNAL

    def expire(self, now: float) -> None:
        """Forget what DNS said and is over."""
        gone = []
        for table in (self._zone, self._bypass):
            over = [address for address, told in table.items() if told.ends <= now]
            for address in over:
                del table[address]
            gone += over
        if gone:
            self._tell(gone)

    # The rest is our own.

    def _judge(self, address: bytes) -> Verdict:
        if address in self._own:
            return Verdict(Kind.OWN, "own")
        parsed = ip_address(address)
        if address in self._resolvers:
            return Verdict(Kind.EXTERNAL, "resolver")
        clear = _among(parsed, [one.network for one in self._clear])
        if clear is not None:
            return Verdict(Kind.EXTERNAL, "exception", f"{clear} any")
        return self._member(address, parsed) or self._stranger(address, parsed)

    def _member(self, address: bytes, parsed: Address) -> Verdict | None:
        static = _among(parsed, self._members)
        if static is not None:
            return Verdict(Kind.MEMBER, "static", str(static))
        for source, table in (
            ("session", self._sessions),
            ("roster", self._roster),
            ("service", self._services),
        ):
            if address in table:
                return Verdict(Kind.MEMBER, source, table[address])
        if address in self._zone and not (self._permissive and self.in_ranges(address)):
            return Verdict(Kind.MEMBER, "zone", self._zone[address].name)
        return None

    def _stranger(self, address: bytes, parsed: Address) -> Verdict:
        if address in self._bypass:
            return Verdict(Kind.EXTERNAL, "bypass", self._bypass[address].name)
        inside = _among(parsed, self._ranges)
        if inside is None:
            return Verdict(Kind.EXTERNAL, "outside")
        return Verdict(Kind.UNKNOWN, "range", str(inside))

    def _make_room(self, *, inside: bool) -> bool:
        """Forget the zone's fact that ends first and lies inside the ranges: there it is looked up anew."""
        if not inside:
            return False
        first = min(
            (address for address in self._zone if self.in_ranges(address)),
            key=lambda address: self._zone[address].ends,
            default=None,
        )
        if first is None:
            return False
        del self._zone[first]
        self._judged.pop(first, None)
        return True

    def _tell(self, addresses: Iterable[bytes]) -> None:
        for address in addresses:
            self._judged.pop(address, None)
        for tell in self.changed:
            tell()

    def _tell_all(self) -> None:
        self._judged.clear()
        self._tell(())


def _among(address: Address, networks: Iterable[Network]) -> Network | None:
    return next(
        (one for one in networks if address.version == one.version and address in one), None
    )
