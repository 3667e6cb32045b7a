"""Who may talk to whom: rules by identity, protocol and port, as a file says them.

    [[rule]]
    to = "db"                      # a service account of the project, or a whole SPIFFE id
    from = ["web", "batch"]        # or ["*"]: all of the project
    protocol = "tcp"               # tcp, udp, sctp, icmp, or a number; any if left out
    ports = [5432, "8000-8100"]    # of the destination; any if left out

A destination (identity, protocol, port) that no rule names is open to all of the project. Of one that some name, only
the sources that one of these names may open anything.
"""

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from policy.identity import (
    IdentityError,
    PodIdentity,
    check_namespace,
    check_service_account,
    check_trust_domain,
    parse_pod_uri,
)

MOST_RULES: Final = 1000
MOST_SOURCES: Final = 1000
LARGEST_FILE: Final = 256 * 1024

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
_PROTOCOLS: Final = {"tcp": (TCP,), "udp": (UDP,), "sctp": (SCTP,), "icmp": (ICMP, ICMPV6)}
_WITH_PORTS: Final = frozenset({TCP, UDP, SCTP})
_KEYS: Final = ("to", "from", "protocol", "ports")
_PORTS: Final = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")

Ports = tuple[int, int]


class RulesError(Exception):
    """A mistake in a file of rules; its text is one line: where, what, and what is accepted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; ``sources`` None: all of the project; ``protocols`` and ``ports`` None: any."""

    line: int | None
    to: PodIdentity
    sources: frozenset[PodIdentity] | None
    protocols: tuple[int, ...] | None
    ports: tuple[Ports, ...] | None

    def selects(self, destination: PodIdentity, protocol: int, port: int | None) -> bool:
        """Say whether the rule is about this destination."""
        if self.to != destination or (
            self.protocols is not None and protocol not in self.protocols
        ):
            return False
        if self.ports is None:
            return True
        return port is not None and any(low <= port <= high for low, high in self.ports)

    def names(self, source: PodIdentity) -> bool:
        """Say whether the rule lets this source in."""
        return self.sources is None or source in self.sources


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something may be opened, and the rule that decided; None: no rule is about it."""

    allowed: bool
    rule: Rule | None = None


class Rules:
    """The rules of a file, in its order."""

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        """Take them; without any, all is allowed."""
        self._by_destination: dict[PodIdentity, list[Rule]] = {}
        for rule in rules:
            self._by_destination.setdefault(rule.to, []).append(rule)
        self.count = len(rules)

    def decide(
        self, source: PodIdentity, destination: PodIdentity, protocol: int, port: int | None
    ) -> Decision:
        """Say whether ``source`` may open a flow to a destination; ``port`` None where there are none."""
        selecting = [
            rule
            for rule in self._by_destination.get(destination, ())
            if rule.selects(destination, protocol, port)
        ]
        allowing = next((rule for rule in selecting if rule.names(source)), None)
        if allowing is not None:
            return Decision(allowed=True, rule=allowing)
        return Decision(allowed=not selecting, rule=selecting[0] if selecting else None)


def parse_rules(text_untrusted: str, file_name: str, trust_domain: str, namespace: str) -> Rules:
    """Return the rules of a file, short names being of this trust domain and namespace; raises `RulesError` alone."""
    check_trust_domain(trust_domain)
    check_namespace(namespace)
    if len(text_untrusted) > LARGEST_FILE:
        raise RulesError(f"{file_name}: more than {LARGEST_FILE} characters")
    try:
        table = tomllib.loads(text_untrusted)
    except RecursionError:
        raise RulesError(f"{file_name}: nested too deep to be rules") from None
    except ValueError as error:
        raise RulesError(f"{file_name}: not TOML: {_shown(str(error))}") from None
    listed = table.pop("rule", [])
    if table:
        raise RulesError(f"{file_name}: {_shown(next(iter(table)))} is not known: only [[rule]]")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise RulesError(f"{file_name}: rule: a list of tables, each begun by [[rule]]")
    if len(listed) > MOST_RULES:
        raise RulesError(f"{file_name}: {len(listed)} rules: {MOST_RULES} at most")
    places = _Places(text_untrusted, file_name, len(listed))
    names = _Names(trust_domain, namespace)
    return Rules(
        tuple(_rule(fields, number, places, names) for number, fields in enumerate(listed))
    )


class _Places:
    """Where each rule was written; without lines where they are not written as [[rule]]."""

    def __init__(self, text: str, file_name: str, count: int) -> None:
        self._file_name = file_name
        self._lines = text.splitlines()
        heads = [
            n for n, line in enumerate(self._lines) if re.match(r"\s*\[\[\s*rule\s*\]\]", line)
        ]
        self._heads = heads if len(heads) == count else None

    def line(self, number: int, key: str | None = None) -> int | None:
        if self._heads is None:
            return None
        begin = self._heads[number]
        if key is None:
            return begin + 1
        following = self._heads[number + 1 :]
        end = following[0] if following else len(self._lines)
        for at in range(begin + 1, end):
            if re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", self._lines[at]):
                return at + 1
        return begin + 1

    def error(self, number: int, key: str, value: object, reason: str) -> RulesError:
        line = self.line(number, key)
        place = f"{self._file_name}:{line}:" if line else f"{self._file_name}: rule {number + 1}:"
        return RulesError(f"{place} {_shown(key)} = {_shown(_written(value))}: {reason}")

    def missing(self, number: int, key: str) -> RulesError:
        line = self.line(number)
        place = f"{self._file_name}:{line}:" if line else f"{self._file_name}: rule {number + 1}:"
        return RulesError(f"{place} the rule has no {key}")


class _Names:
    """Reads short names and SPIFFE ids."""

    def __init__(self, trust_domain: str, namespace: str) -> None:
        self._trust_domain, self._namespace = trust_domain, namespace

    def read(self, value: object) -> PodIdentity:
        if not isinstance(value, str):
            raise IdentityError("a service account's name, or a pod's SPIFFE id")
        if value.startswith("spiffe://"):
            identity = parse_pod_uri(value)
            if (identity.trust_domain, identity.namespace) != (self._trust_domain, self._namespace):
                raise IdentityError(
                    f"of this project: spiffe://{self._trust_domain}/ns/{self._namespace}/sa/..."
                )
            return identity
        return PodIdentity(self._trust_domain, self._namespace, check_service_account(value))


def _rule(fields: dict[str, object], number: int, places: _Places, names: _Names) -> Rule:
    for key, value in fields.items():
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else ", ".join(_KEYS)
            raise places.error(number, key, value, f"not a key of a rule: {hint}")
    for key in ("to", "from"):
        if key not in fields:
            raise places.missing(number, key)
    current = "to"
    try:
        to = names.read(fields["to"])
        current = "from"
        sources = _sources(fields["from"], names)
        current = "protocol"
        protocols = _protocols(fields.get("protocol"))
        current = "ports"
        ports = _ports(fields.get("ports"), protocols)
    except ValueError as error:
        raise places.error(number, current, fields.get(current), str(error)) from None
    return Rule(places.line(number), to, sources, protocols, ports)


def _sources(value: object, names: _Names) -> frozenset[PodIdentity] | None:
    if not isinstance(value, list) or len(value) > MOST_SOURCES:
        raise ValueError('a list of names, or ["*"] for all of the project')
    if value == ["*"]:
        return None
    return frozenset(names.read(item) for item in value)


def _protocols(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) and value in _PROTOCOLS:
        return _PROTOCOLS[value]
    if type(value) is int and 0 <= value <= 255:
        return (value,)
    raise ValueError(f"{', '.join(_PROTOCOLS)}, or a number from 0 to 255")


def _ports(value: object, protocols: tuple[int, ...] | None) -> tuple[Ports, ...] | None:
    if value is None:
        return None
    if not (protocols and _WITH_PORTS.issuperset(protocols)):
        raise ValueError('needs protocol = "tcp", "udp" or "sctp"')
    if not isinstance(value, list) or not 1 <= len(value) <= 100:
        raise ValueError('a list of ports and ranges, as [80, "8000-8100"]')
    return tuple(_port_range(item) for item in value)


def _port_range(value: object) -> Ports:
    if type(value) is int:
        low = high = value
    else:
        match = _PORTS.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError('a list of ports and ranges, as [80, "8000-8100"]')
        low, high = int(match[1]), int(match[2])
    if not 1 <= low <= high <= 0xFFFF:
        raise ValueError("a port from 1 to 65535, in ranges the lower first")
    return low, high


def _written(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return "..."


def _shown(text: str) -> str:
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else text[:77] + "..."
