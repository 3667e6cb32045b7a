"""The CA without files: a signer and a store for tests of what the CA decides."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typing_extensions import override

from ca.certificates import Issuer, KeySigner, make_root
from ca.issue import TokenRecord
from ca.lease import Lease
from ca.messages import JoinClaims, encode_token, token_hash
from ca.profile import ApprovedRequest
from ca.signer import Wanted, for_pod
from policy.identity import parse_pod_uri

WALL = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECRET = bytes(32)
_KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = Issuer(make_root(_KEY, "shop.example", WALL, timedelta(days=3650)), _KEY)
SIGNER = KeySigner(ISSUER)
"""The embedded backend's, without its files."""


class GoneWrong(KeySigner):
    """A signer that writes other claims than those that were judged."""

    def __init__(self, instead: Mapping[str, object]) -> None:
        """Write these instead."""
        super().__init__(ISSUER)
        self._instead = dict(instead)

    @override
    def sign(self, wanted: Wanted, wall: datetime, life: timedelta) -> tuple[x509.Certificate, ...]:
        identity = parse_pod_uri(wanted.uri)
        claims = JoinClaims(
            id="0123456789abcdef",
            trust_domain=identity.trust_domain,
            pod=wanted.dns[0].removesuffix(f".{identity.namespace}.pod"),
            namespace=identity.namespace,
            service_account=identity.service_account,
            addresses=wanted.addresses,
            expires=1,
        )
        false = replace(claims, **self._instead)  # type: ignore[arg-type]  # fields of claims
        return super().sign(for_pod(ApprovedRequest(wanted.public_key, false)), wall, life)


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
