"""What the CA has on record of one namespace, as one document: a grant is one write.

**The roster is a function of it.** Its version is raised in the very write by which a pod comes, goes or changes its
addresses, so that all servers sign the same. It is at least the Unix time in milliseconds, and more than the last:
where an old copy of the records comes back the clock is ahead of it, where the clock was set back the record is.
That a certificate ends later than before raises nothing: each renewal would send the whole list to every pod.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final

from ca.documents import JsonObject
from ca.lease import Lease
from ca.lists import FURTHEST, RosterEntry
from ca.messages import MessageError, check_addresses, read_count, read_text, read_texts
from policy.identity import MOST_ADDRESSES, check_namespace, check_pod_name, check_service_account

_FIELDS: Final = tuple(one.name for one in fields(Lease))

_SKEW: Final = 60
"""Seconds by which servers' clocks may differ before one takes up again what another found to be over."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """At most one lease a token; those ended within a day are among them.

    ``version`` is the roster's; on it are the leases that end at ``swept`` (Unix seconds) or later, and it includes the
    bundle and the revocations of these digests. ``joins`` says for
    each token of few uses how many are over, and when the token ends.
    """

    leases: tuple[Lease, ...] = ()
    version: int = 0
    swept: int = 0
    bundle: str = ""
    revoked: str = ""
    joins: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def entries(self) -> tuple[RosterEntry, ...]:
        """Return the leases as a roster lists them, sorted."""
        entries = (
            RosterEntry(lease.pod, lease.service_account, lease.addresses, lease.ends)
            for lease in self.leases
            if lease.ends >= self.swept
        )
        return tuple(sorted(entries, key=lambda one: (one.pod, [a.packed for a in one.addresses])))

    def is_due(self, wall: float) -> bool:
        """Say whether a pod is listed whose lease has ended."""
        over = self._sweep(wall)
        return any(self.swept <= lease.ends < over for lease in self.leases)

    def changed(
        self,
        wall: float,
        leases: Iterable[Lease] | None = None,
        joins: Mapping[str, tuple[int, int]] | None = None,
    ) -> "Namespace":
        """Return what is to be written at ``wall`` (Unix seconds): with these leases and joins, ended ones unlisted."""
        after = replace(
            self,
            leases=self.leases if leases is None else tuple(leases),
            joins=self.joins if joins is None else joins,
            swept=self._sweep(wall),
        )
        return after if _members(after) == _members(self) else after.raised(wall)

    def raised(self, wall: float, above: int = 0) -> "Namespace":
        """Return the same with a later version, which is more than ``above``, too.

        Versions that pods would refuse, of a day to come, count for nothing: a clock was wrong, or a thief wrote them.
        """
        now = int(wall * 1000)
        known = (one for one in (self.version, above) if not is_beyond(one, wall))
        return replace(self, version=max(now, 1 + max(known, default=0)))

    def _sweep(self, wall: float) -> int:
        # A certificate is valid in its last second: what ended before this one is over.
        this = math.ceil(wall)
        return self.swept if this < self.swept <= this + _SKEW else this


def is_beyond(version: int, wall: float) -> bool:
    """Say whether pods refuse a roster of this version at ``wall`` (Unix seconds)."""
    return version > (wall + FURTHEST) * 1000


def _members(namespace: Namespace) -> list[RosterEntry]:
    return [replace(entry, ends=0) for entry in namespace.entries()]


def to_json(namespace: Namespace) -> JsonObject:
    """Return the document's content."""
    leases = [
        {name: getattr(lease, name) for name in _FIELDS}
        | {"addresses": [str(address) for address in lease.addresses]}
        for lease in namespace.leases
    ]
    return {
        "leases": leases,
        "version": namespace.version,
        "swept": namespace.swept,
        "bundle": namespace.bundle,
        "revoked": namespace.revoked,
        "joins": {token: list(counted) for token, counted in namespace.joins.items()},
    }


def parse(content: JsonObject) -> Namespace:
    """Return what a document says, nothing for none; raises `MessageError` where it is damaged."""
    if not content:
        return Namespace()
    try:
        return _namespace(content)
    except KeyError as error:
        raise MessageError(f"{error} is missing") from None


def _namespace(content: JsonObject) -> Namespace:
    leases, joins = content["leases"], content["joins"]
    if not isinstance(leases, list) or not isinstance(joins, dict):
        raise MessageError("leases: a list, and joins: an object")
    return Namespace(
        tuple(map(_lease, leases)),
        read_count(content, "version"),
        read_count(content, "swept"),
        read_text(content, "bundle"),
        read_text(content, "revoked"),
        {str(token): _counted(counted) for token, counted in joins.items()},
    )


def _counted(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise MessageError("joins: a number and an end each")
    return read_count({"": value[0]}, ""), read_count({"": value[1]}, "")


def _lease(value: object) -> Lease:
    if not isinstance(value, dict):
        raise MessageError("leases: objects")
    return Lease(
        read_text(value, "token_id"),
        check_pod_name(read_text(value, "pod")),
        check_namespace(read_text(value, "namespace")),
        check_addresses(read_texts(value, "addresses", MOST_ADDRESSES)),
        read_text(value, "serial"),
        read_count(value, "ends"),
        read_text(value, "key"),
        read_text(value, "previous"),
        read_count(value, "renewals"),
        check_service_account(read_text(value, "service_account")),
        read_text(value, "root"),
        read_text(value, "bundle"),
    )
