"""Which token holds which addresses: one lease a token, for as long as a certificate that it got is valid."""

from collections.abc import Iterable
from dataclasses import dataclass

from ca.messages import Address, JoinClaims


@dataclass(frozen=True, slots=True)
class Lease:
    """Addresses held by a token until ``ends`` (Unix seconds).

    ``serial`` is its latest certificate's, hexadecimal.
    """

    token_id: str
    pod: str
    namespace: str
    addresses: tuple[Address, ...]
    serial: str
    ends: int


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
    leases: Iterable[Lease], claims: JoinClaims, serial: str, ends: int, wall: float
) -> tuple[Lease, ...]:
    """Return the live leases with the one of ``claims`` begun or renewed, at the end."""
    others = []
    for lease in live_leases(leases, wall):
        if lease.token_id != claims.id:
            others.append(lease)
        else:  # an earlier certificate may end later: the CA's --ttl can have become shorter
            ends = max(ends, lease.ends)
    mine = Lease(claims.id, claims.pod, claims.namespace, claims.addresses, serial, ends)
    return (*others, mine)
