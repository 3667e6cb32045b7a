"""Which token holds which addresses: one lease a token, for as long as a certificate that it got is valid.

An ended lease holds nothing. It is kept for another day, for its pod may still come back with its last key.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ca.messages import Address, JoinClaims

RENEWABLE_SECONDS: Final = 24 * 3600
"""How long after its end a certificate can still be renewed: a pod sits out a CA that is away for so long."""


@dataclass(frozen=True, slots=True)
class Certified:
    """What was issued: serial, SHA-256 of the public key, fingerprint of its root, hexadecimal; end in Unix seconds."""

    serial: str
    key: str
    ends: int
    root: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """Addresses held by a token until ``ends`` (Unix seconds).

    ``serial`` and ``key`` are of its latest certificate, as in `Certified`; ``previous`` is the key by which
    that was asked for, empty where the token was used. ``renewals`` counts since then. ``root`` is the fingerprint of
    that which the latest certificate is under, ``bundle`` the hash of the bundle that the pod has acknowledged.
    """

    token_id: str
    pod: str
    namespace: str
    addresses: tuple[Address, ...]
    serial: str
    ends: int
    key: str = ""
    previous: str = ""
    renewals: int = 0
    service_account: str = ""
    root: str = ""
    bundle: str = ""


def live_leases(leases: Iterable[Lease], wall: float) -> tuple[Lease, ...]:
    """Return those that have not ended; a certificate is valid in its last second (RFC 5280 section 4.1.2.5)."""
    return tuple(lease for lease in leases if wall <= lease.ends)


def holder_of_addresses(
    leases: Iterable[Lease], claims: JoinClaims, wall: float
) -> tuple[Address, Lease] | None:
    """Return an address of the claims that another token holds, and the lease; None where all are free.

    A token never stands in its own way: a pod that starts again comes back with it.
    """
    for lease in live_leases(leases, wall):
        if lease.token_id != claims.id:
            for address in claims.addresses:
                if address in lease.addresses:
                    return address, lease
    return None


def lease_to(
    leases: Iterable[Lease],
    claims: JoinClaims,
    issued: Certified,
    wall: float,
    previous: str = "",
) -> tuple[Lease, ...]:
    """Return the leases still of use, with that of ``claims`` begun or renewed (by ``previous``) at the end."""
    others, ends, renewals, bundle = [], issued.ends, 0, ""
    for lease in leases:
        if lease.token_id == claims.id:
            # An earlier certificate may end later: the CA's --ttl can have become shorter.
            ends = max(ends, lease.ends)
            if previous:  # what was asked for twice is one renewal
                renewals = lease.renewals + (lease.key != issued.key)
                bundle = lease.bundle
        elif wall <= lease.ends + RENEWABLE_SECONDS:
            others.append(lease)
    mine = Lease(
        claims.id,
        claims.pod,
        claims.namespace,
        claims.addresses,
        issued.serial,
        ends,
        issued.key,
        previous,
        renewals,
        claims.service_account,
        issued.root,
        bundle,
    )
    return (*others, mine)
