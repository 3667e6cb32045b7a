"""Signed rosters for tests: as the CA makes them, and as it never would."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from support.authority import make_claims
from support.certified import list_signer_certificate, pod_certificate, server_certificate

from ca.certificates import Issuer, KeySigner, make_root
from ca.lists import CONTEXT, Envelope, Roster, RosterEntry, encode_envelope, encode_roster
from ca.profile import ApprovedRequest
from ca.trust import first_record, vouch_for
from ca.trust_bundle import Vouched

DAY = timedelta(days=1)
UNVOUCHED = Vouched(b"{}")
"""For tests of an envelope's form."""


def make_roster(issued: float, **changes: object) -> Roster:
    """Return a good roster of two pods, issued at a Unix time, with `changes`."""
    entries = tuple(
        RosterEntry(f"web-{n}", "web", (ip_address(f"10.0.0.{n}"),), int(issued) + 3600)
        for n in (1, 2)
    )
    good = Roster("shop.example", "shop", 7, int(issued), int(issued) + 3600, entries, "0" * 64)
    return replace(good, **changes)  # type: ignore[arg-type]


@dataclass
class Lists:
    """A CA's root that signs lists, by a good signer or by others; its clock stands at `wall` (Unix seconds)."""

    wall: float
    trust_domain: str = "shop.example"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        """Make root and signer."""
        self.now = datetime.fromtimestamp(self.wall, UTC)
        self.issuer = Issuer(
            make_root(self.key, self.trust_domain, self.now - DAY, 3650 * DAY), self.key
        )
        self.signing = ec.generate_private_key(ec.SECP256R1())
        record = first_record(self.trust_domain, self.issuer.root, self.now)
        self.trust = vouch_for(record, KeySigner(self.issuer), self.now).vouched

    def signer(self, begins: timedelta = timedelta()) -> x509.Certificate:
        """Return the certificate of a list signer for a day that begins so long from now."""
        return list_signer_certificate(
            self.issuer, self.signing.public_key(), self.now + begins, DAY
        )

    def pod(self) -> x509.Certificate:
        """Return a pod's certificate for the same key."""
        approved = ApprovedRequest(self.signing.public_key(), make_claims())
        return pod_certificate(self.issuer, approved, self.now, DAY)

    def server(self) -> x509.Certificate:
        """Return the CA service's own for the same key."""
        return server_certificate(self.issuer, self.signing.public_key(), (), self.now, DAY)

    def sign(
        self,
        roster: Roster | bytes,
        chain: Iterable[x509.Certificate] | None = None,
        context: bytes = CONTEXT,
    ) -> bytes:
        """Return the envelope of a roster, or of any payload, by a good signer or by the one given."""
        payload = roster if isinstance(roster, bytes) else encode_roster(roster)
        signature = self.signing.sign(context + payload, ec.ECDSA(hashes.SHA256()))
        pems = (one.public_bytes(Encoding.PEM).decode() for one in (chain or (self.signer(),)))
        return encode_envelope(Envelope(payload, tuple(pems), signature, self.trust))
