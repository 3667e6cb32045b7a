"""The CA without files: a signer and a store for tests of what the CA decides."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ca.certificates import Issuer, make_root, pod_certificate
from ca.issue import TokenRecord
from ca.lease import Lease
from ca.messages import JoinClaims, encode_token, token_hash
from ca.profile import ApprovedRequest

WALL = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECRET = bytes(32)
_KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = Issuer(make_root(_KEY, "shop.example", WALL, timedelta(days=3650)), _KEY)


class Signer:
    """The embedded backend without its files."""

    roots = (ISSUER.root,)

    def __init__(self, instead: Mapping[str, object] | None = None) -> None:
        """Write these claims instead of the true ones: a CA that has gone wrong."""
        self._instead = dict(instead or {})

    def sign(
        self, approved: ApprovedRequest, wall: datetime, life: timedelta
    ) -> tuple[x509.Certificate, ...]:
        claims = replace(approved.claims, **self._instead)  # type: ignore[arg-type]
        return (pod_certificate(ISSUER, replace(approved, claims=claims), wall, life),)


class Memory:
    """A store that forgets at the end, and can be full."""

    def __init__(self, *claims: JoinClaims) -> None:
        self.records = {
            each.id: TokenRecord(token_hash(encode_token(each, SECRET)), each) for each in claims
        }
        self.held: tuple[Lease, ...] = ()
        self.is_full = False

    def token(self, token_id: str) -> TokenRecord | None:
        return self.records.get(token_id)

    def leases(self) -> tuple[Lease, ...]:
        return self.held

    def put_leases(self, leases: Iterable[Lease]) -> None:
        if self.is_full:
            raise OSError("No space left on device")
        self.held = tuple(leases)
