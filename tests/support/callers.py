"""A pod as the CA's server meets it: joins, renews, releases, asks for rosters, over real TLS."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_address

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.authority import DAY, Authority, make_claims

from ca.drivers.tokens import make_token
from ca.lists import Roster, parse_envelope, parse_roster
from ca.messages import SignRequest, encode, parse_sign_response
from proxy.credentials.csr import make_key_and_csr


class Caller:
    """A pod's key, and the certificate that it shows."""

    def __init__(self, authority: Authority, name: str, address: str, namespace: str) -> None:
        self.authority = authority
        self.number = f"{int(ip_address(address)):016x}"
        self.key, self.csr = make_key_and_csr()
        self.certificate: x509.Certificate | None = None
        self.claims = make_claims(
            self.number,
            pod=name,
            namespace=namespace,
            addresses=(ip_address(address),),
            expires=int((authority.wall + DAY).timestamp()),
        )

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Give a connection on which the certificate is shown, if there is one."""
        context = ssl.create_default_context(cafile=str(self.authority.directory / "root.pem"))
        if self.certificate is not None:
            file = self.authority.directory.parent / f"{self.number}.pem"
            secret = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            file.write_bytes(secret + self.certificate.public_bytes(Encoding.PEM))
            context.load_cert_chain(file)
        connector = aiohttp.TCPConnector(ssl=context, force_close=True)
        async with aiohttp.ClientSession(self.authority.address, connector=connector) as session:
            yield session

    async def ask(self, query: str = "") -> tuple[int, bytes]:
        """Ask for the roster."""
        async with (
            self.session() as session,
            session.get(f"/v1/roster{query}") as response,
        ):
            return response.status, await response.read()

    async def post(self, path: str, token: str = "", csr: bytes = b"") -> tuple[int, bytes]:
        """Sign, renew or release."""
        pem = x509.load_der_x509_csr(csr or self.csr).public_bytes(Encoding.PEM).decode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = b"" if path == "/v1/release" else encode(SignRequest(pem))
        async with (
            self.session() as session,
            session.post(path, data=data, headers=headers) as response,
        ):
            return response.status, await response.read()

    async def join(self) -> "Caller":
        """Get a certificate by a token."""
        token = make_token(self.authority.documents, self.claims)
        self.take(*await self.post("/v1/sign", token))
        return self

    async def renew(self) -> None:
        """Get a certificate for a fresh key by the one that is shown."""
        key, csr = make_key_and_csr()
        answer = await self.post("/v1/renew", csr=csr)
        self.key = key
        self.take(*answer)

    def take(self, status: int, answer: bytes) -> None:
        """Show the certificate of this answer from now on."""
        assert status == 200, answer
        pem = parse_sign_response(answer).chain[0].encode()
        self.certificate = x509.load_pem_x509_certificate(pem)

    async def roster(self, query: str = "") -> Roster:
        """Ask for the roster, and read it."""
        status, body = await self.ask(query)
        assert status == 200, body
        return read(body)


async def join(
    authority: Authority, name: str = "web-1", address: str = "10.0.0.1", namespace: str = "shop"
) -> Caller:
    """Return a pod that has joined."""
    return await Caller(authority, name, address, namespace).join()


def read(envelope: bytes) -> Roster:
    """Return what an envelope says, unverified."""
    return parse_roster(parse_envelope(envelope).payload)


def names(roster: Roster) -> list[str]:
    """Return the pods on a roster."""
    return [entry.pod for entry in roster.entries]
