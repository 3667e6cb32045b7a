"""The project CA, in this process: a real directory, and its real server on loopback."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from ca.drivers import server
from ca.drivers.file_backend import FileBackend, FileStore, create
from ca.messages import JoinClaims, root_fingerprint

TRUST_DOMAIN = "shop.example"
PASSPHRASE = b"correct horse battery staple"
LIFE = timedelta(hours=24)
LOOPBACK = IPv4Address("127.0.0.1")


def wall() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - TLS itself goes by the machine's clock


@dataclass
class TestCA:
    """A CA's directory, opened; and what its server has put into the audit."""

    __test__ = False

    directory: Path
    store: FileStore
    backend: FileBackend
    audit: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    address: str = ""

    @property
    def fingerprint(self) -> str:
        return root_fingerprint(self.backend.issuer.root.public_bytes(Encoding.DER))

    def token(
        self,
        addresses: Sequence[str] = ("10.0.0.1",),
        *,
        token_id: str = "0123456789abcdef",
        pod: str = "web-1",
        ttl: timedelta = timedelta(hours=1),
    ) -> str:
        return self.store.make_token(claims(addresses, token_id=token_id, pod=pod, ttl=ttl))

    def events(self, name: str) -> list[dict[str, object]]:
        return [fields for event, fields in self.audit if event == name]

    @contextlib.asynccontextmanager
    async def serve(
        self, clock: Callable[[], datetime] = wall, server_life: timedelta = server.SERVER_LIFE
    ) -> AsyncIterator[None]:
        """Serve on a free port of loopback."""

        def audit(event: str, fields: dict[str, object]) -> None:
            self.audit.append((event, fields))

        service = server.Service(self.store, self.backend, LIFE, clock, audit)
        async with server.serve(service, LOOPBACK, 0, server_life) as port:
            self.address = f"https://{LOOPBACK}:{port}"
            yield


def claims(
    addresses: Sequence[str] = ("10.0.0.1",),
    *,
    token_id: str = "0123456789abcdef",
    pod: str = "web-1",
    ttl: timedelta = timedelta(hours=1),
    now: datetime | None = None,
) -> JoinClaims:
    """Claims of a pod of the project shop."""
    return JoinClaims(
        id=token_id,
        trust_domain=TRUST_DOMAIN,
        pod=pod,
        namespace="shop",
        service_account="web",
        addresses=tuple(ip_address(address) for address in addresses),
        expires=int(((now or wall()) + ttl).timestamp()),
    )


def make_ca(directory: Path) -> TestCA:
    """Make a CA in a new directory, and open it."""
    create(directory, TRUST_DOMAIN, PASSPHRASE, wall(), timedelta(days=3650))
    return TestCA(directory, FileStore(directory), FileBackend.open(directory, PASSPHRASE))
