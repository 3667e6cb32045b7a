"""Whose is a name: the project's, another project's of the cluster, or the world's."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

from proxy.dns.answers import Answer


@unique
class Owner(StrEnum):
    """Whose name it is."""

    PROJECT = "project"
    OTHER = "other"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Fact:
    """An address that a name of this owner has, for ``ttl`` seconds."""

    address: bytes
    owner: Owner
    name: str
    ttl: int


# Kubernetes DNS specification 1.1.0: Services and their endpoints, and pods by address.
_KINDS: Final = ("svc", "pod")


class Zone:
    """The project's part of the cluster's domain."""

    def __init__(self, namespace: str, cluster_domain: str) -> None:
        """Know ``namespace``.svc and .pod in ``cluster_domain``."""
        self._own = tuple(f"{namespace}.{kind}.{cluster_domain}" for kind in _KINDS)
        self._cluster = cluster_domain

    def owner(self, name: str) -> Owner:
        """Return whose a name (lower case, without final dot, a dot inside a label escaped) is."""
        # One label "x.cluster" before "local" would read like two. No name of Kubernetes has such.
        if "\\" in name:
            return Owner.OUTSIDE
        if any(name == own or name.endswith(f".{own}") for own in self._own):
            return Owner.PROJECT
        if name == self._cluster or name.endswith(f".{self._cluster}"):
            return Owner.OTHER
        return Owner.OUTSIDE

    def facts(self, answer: Answer) -> Iterator[Fact]:
        """Yield what the addresses of an answer are.

        The project's, once any name on the way to them is: else a forged alias would lead a name of the zone out of it,
        and its traffic into the clear. Of other answers the record's own name counts, not the one asked for.
        """
        ours = next((name for name in answer.chain if self.owner(name) is Owner.PROJECT), None)
        for name, address, ttl in answer.addresses:
            if ours is not None:
                yield Fact(address, Owner.PROJECT, ours, ttl)
            else:
                yield Fact(address, self.owner(name), name, ttl)

    def name_of(self, answer: Answer) -> tuple[str, int] | None:
        """Return the project's name that an answer gives to the address asked for, with its seconds."""
        return next((one for one in answer.names if self.owner(one[0]) is Owner.PROJECT), None)
