"""The project's real CA in this process: its directory, its server on loopback, and what pods ask of it."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.certificates import Issuer
from ca.drivers import server
from ca.drivers.file_backend import create, open_signer
from ca.drivers.file_documents import FileDocuments
from ca.drivers.tokens import make_token
from ca.messages import JoinClaims, root_fingerprint
from ca.profile import ApprovedRequest, judge_csr
from proxy.credentials.csr import make_key_and_csr

PASSPHRASE = b"correct horse battery staple"
TRUST_DOMAIN = "shop.example"
DAY = timedelta(days=1)


_CLAIMS = JoinClaims(
    id="0123456789abcdef",
    trust_domain=TRUST_DOMAIN,
    pod="web-1",
    namespace="shop",
    service_account="web",
    addresses=(ip_address("10.0.0.1"), ip_address("fd00::1")),
    expires=1 << 39,
)


def make_claims(number: str = _CLAIMS.id, **changes: Any) -> JoinClaims:
    """Return a good pod's claims, valid for very long, with `changes`."""
    return replace(_CLAIMS, id=number, **changes)


def make_csr_pem() -> str:
    """Return the CSR of a pod with a fresh key."""
    csr = x509.load_der_x509_csr(make_key_and_csr()[1])
    return csr.public_bytes(Encoding.PEM).decode("ascii")


def approved(claims: JoinClaims) -> ApprovedRequest:
    """Return what may be signed for a fresh key that a CSR proves."""
    proven = judge_csr(make_csr_pem())
    return ApprovedRequest(proven.public_key, claims, proven.csr)


def now() -> datetime:
    """Return the wall time, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 - TLS judges by the real clock


@dataclass
class Authority:
    """A CA's directory; its clock stands where `wall` is set, its audit lines are kept."""

    directory: Path
    wall: datetime = field(default_factory=now)
    life: timedelta = DAY
    audited: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        """Make the CA."""
        self.root = create(self.directory, TRUST_DOMAIN, PASSPHRASE, self.wall, 3650 * DAY)
        self.fingerprint = root_fingerprint(self.root.public_bytes(Encoding.DER))
        self.documents = FileDocuments(self.directory)
        self.signer = open_signer(self.directory, PASSPHRASE)

    @property
    def issuer(self) -> Issuer:
        """Its root and key."""
        return self.signer.issuer

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"https://127.0.0.1:{self.port}"

    def token(self, number: str = _CLAIMS.id, addresses: Sequence[str] = ("10.0.0.1",)) -> str:
        """Make a join token, valid for a day."""
        expires = int((self.wall + DAY).timestamp())
        named = tuple(map(ip_address, addresses))
        return make_token(self.documents, make_claims(number, addresses=named, expires=expires))

    def events(self, name: str) -> list[dict[str, object]]:
        """What was audited under this name."""
        return [fields for event, fields in self.audited if event == name]

    @contextlib.asynccontextmanager
    async def serving(self, server_life: timedelta = DAY) -> AsyncIterator["Authority"]:
        """Serve on loopback while the body runs."""
        service = server.Service(
            self.documents,
            self.signer,
            self.life,
            lambda: self.wall,
            lambda event, fields: self.audited.append((event, fields)),
        )
        async with server.serve(service, ip_address("127.0.0.1"), 0, server_life) as (port, _):
            self.port = port
            yield self
