"""A pod obtains its certificate from the real CA, and from nobody else."""

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.authority import DAY, TRUST_DOMAIN, Authority, make_claims, now
from support.certified import pod_certificate, server_certificate
from support.joining import built, obtain, renew
from support.memory_ca import ISSUER
from unit.ca.test_own_issuer import Made, make

from ca.certificates import Issuer
from ca.messages import LARGEST_ANSWER, Bundle, SignResponse, encode
from ca.profile import ApprovedRequest
from ca.trust_bundle import fingerprint
from proxy.credentials.credential import Credential
from proxy.credentials.csr import make_key_and_csr
from proxy.credentials.trust import Believed
from proxy.drivers import ca_client
from proxy.drivers.ca_client import Ca, CaRefused, CaUnreachable

Certify = Callable[[Authority, ec.EllipticCurvePublicKey], x509.Certificate]


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    async with Authority(tmp_path / "ca").serving() as serving:
        yield serving


def place(authority: Authority, patience: float = 5) -> Ca:
    return Ca(authority.address, authority.fingerprint, TRUST_DOMAIN, patience)


async def join(authority: Authority, token: str, csr: bytes | None = None) -> SignResponse:
    """Obtain a certificate as the proxy does."""
    return await obtain(place(authority), token, csr or make_key_and_csr()[1])


async def refused(authority: Authority, token: str, csr: bytes | None = None) -> str:
    with pytest.raises(CaRefused) as error:
        await join(authority, token, csr)
    assert token not in str(error.value)
    return error.value.code


async def test_pod_obtains_its_credential(authority: Authority) -> None:
    key, csr = make_key_and_csr()
    answer = await join(authority, authority.token(addresses=["10.0.0.1", "fd00::1"]), csr)
    credential = built(key, answer)
    assert credential.own.identity.uri == "spiffe://shop.example/ns/shop/sa/web"
    assert credential.own.address_texts() == ["10.0.0.1", "fd00::1"]
    assert credential.roots == (authority.root,)
    assert answer.time == authority.wall.timestamp()


async def test_restarted_pod_obtains_again(authority: Authority) -> None:
    token = authority.token()
    assert (await join(authority, token)).chain != (await join(authority, token)).chain


async def test_refusals_come_with_the_cas_reason(authority: Authority) -> None:
    token, other = authority.token("a" * 16), authority.token("b" * 16)
    await join(authority, token)
    assert await refused(authority, other) == "address_held"
    assert await refused(authority, token[:-1] + "_") == "unknown_token"
    head, claims, secret = token.split(".")
    assert await refused(authority, f"{head}.{claims[:-2]}AA.{secret}") == "unknown_token"
    authority.wall += DAY
    assert await refused(authority, token) == "expired_token"


async def test_csr_that_asks_for_an_address_is_refused(authority: Authority) -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("web-2.shop.pod")])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(names, critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    der = csr.public_bytes(Encoding.DER)
    assert await refused(authority, authority.token(), der) == "csr_asks"


async def test_ca_with_another_root_gets_no_token(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with pytest.raises(CaUnreachable, match=authority.fingerprint):
        await obtain(
            replace(place(authority), fingerprint=other.fingerprint), authority.token(), b""
        )
    assert not authority.events("refused")


async def test_store_that_fails_is_tried_again_later(authority: Authority) -> None:
    token = authority.token()
    (authority.directory / "namespaces/shop.json").write_bytes(b"")
    with pytest.raises(CaUnreachable, match="cannot answer now"):
        await join(authority, token)


async def joined(authority: Authority) -> Credential:
    key, csr = make_key_and_csr()
    return built(key, await join(authority, authority.token(), csr))


async def test_pod_renews_with_its_own_key_and_certificate(authority: Authority) -> None:
    credential = await joined(authority)
    authority.wall += 2 * DAY - timedelta(seconds=60)  # it ended a day ago, all but a minute
    key, csr = make_key_and_csr()
    renewed = built(key, await renew(place(authority), credential, csr))
    assert renewed.own.addresses == credential.own.addresses
    assert renewed.own.not_after == (authority.wall + DAY).timestamp()


async def test_refused_renewal_comes_with_the_cas_reason(authority: Authority) -> None:
    credential = await joined(authority)
    authority.wall += 2 * DAY + timedelta(seconds=60)
    with pytest.raises(CaRefused) as error:
        await renew(place(authority), credential, make_key_and_csr()[1])
    assert error.value.code == "certificate_ended"


async def test_key_goes_into_tls_by_way_of_memory_alone(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = await joined(authority)
    loaded: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, certfile: str) -> None:
        loaded.append(os.readlink(certfile))  # noqa: PTH115 - as ssl opens it
        load(self, certfile)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    await renew(place(authority), credential, make_key_and_csr()[1])
    assert loaded == ["/memfd:tencrypt-renewal (deleted)"]
    assert not [link for link in open_files() if "tencrypt-renewal" in link]


def open_files() -> list[str]:
    links = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            links.append(str(path.readlink()))
    return links


class Impostor:
    """A TLS server with a certificate of our choice; serves the true bundle, keeps all else it hears."""

    def __init__(self, authority: Authority, answers: dict[str, bytes] | None = None) -> None:
        self.authority = authority
        roots = (authority.root.public_bytes(Encoding.PEM).decode(),)
        self.answers = {"GET /v1/bundle": http(encode(Bundle(roots))), **(answers or {})}
        self.heard: list[bytes] = []
        self.newest = ssl.TLSVersion.TLSv1_3
        self.shown: list[bytes | None] = []

    @contextlib.asynccontextmanager
    async def serving(self, directory: Path, certify: Certify) -> AsyncIterator[None]:
        """Listen in the CA's place while the body runs."""
        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificate = certify(self.authority, key.public_key()).public_bytes(Encoding.PEM)
        file = directory / "impostor.pem"
        file.write_bytes(secret + certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = self.newest
        context.load_cert_chain(file)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self.authority.directory / "root.pem")
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=context)
        self.authority.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = " ".join(head.decode().split(" ")[:2])
            if path != "GET /v1/bundle":
                self.heard.append(head)
                connection = writer.get_extra_info("ssl_object")
                self.shown.append(connection.getpeercert(binary_form=True))
            if answer := self.answers.get(path):
                writer.write(answer)
                await writer.drain()
            else:
                await reader.read()  # silent until the client has enough
        writer.close()


def http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    return head.encode() + body


def as_pod(authority: Authority, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
    approved = ApprovedRequest(key, make_claims())
    return pod_certificate(authority.issuer, approved, authority.wall, DAY)


def as_ca(authority: Authority, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
    return server_certificate(authority.issuer, key, (), authority.wall, DAY)


def as_ca_long_ago(authority: Authority, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
    return server_certificate(authority.issuer, key, (), authority.wall - 2 * DAY, DAY)


async def join_impostor(
    impostor: Impostor, directory: Path, certify: Certify, patience: float = 5
) -> str:
    authority = impostor.authority
    token = authority.token()
    async with impostor.serving(directory, certify):
        with pytest.raises(CaUnreachable) as error:
            await obtain(place(authority, patience), token, make_key_and_csr()[1])
    assert token not in str(error.value)
    return str(error.value)


async def test_impostor_is_a_server_that_could_take_a_token(tmp_path: Path) -> None:
    # The control of the tests below: with the CA's own certificate it does hear the token.
    impostor = Impostor(Authority(tmp_path / "ca"), {"POST /v1/sign": http(b"")})
    await join_impostor(impostor, tmp_path, as_ca)
    (head,) = impostor.heard
    assert b"Authorization: Bearer tct1." in head


async def test_pods_certificate_does_not_make_a_ca(tmp_path: Path) -> None:
    impostor = Impostor(Authority(tmp_path / "ca"), {"POST /v1/sign": http(b"")})
    why = await join_impostor(impostor, tmp_path, as_pod)
    assert "not for spiffe://shop.example/tencrypt/ca" in why
    assert impostor.heard == []


async def renew_from_impostor(impostor: Impostor, directory: Path, certify: Certify) -> bytes:
    """Ask it for a renewal; the certificate that is to be renewed."""
    async with impostor.authority.serving():
        credential = await joined(impostor.authority)
    async with impostor.serving(directory, certify):
        with pytest.raises(CaUnreachable):
            await renew(place(impostor.authority), credential, make_key_and_csr()[1])
    return credential.chain[0].public_bytes(Encoding.DER)


async def test_pods_certificate_is_shown_to_the_ca_and_to_nobody_else(tmp_path: Path) -> None:
    impostor = Impostor(Authority(tmp_path / "ca"), {"POST /v1/renew": http(b"")})
    assert impostor.shown == []
    shown = await renew_from_impostor(impostor, tmp_path, as_ca)  # the control
    assert impostor.shown == [shown]
    await renew_from_impostor(impostor, tmp_path, as_pod)
    assert impostor.shown == [shown]


async def test_ca_of_another_root_that_shows_our_bundle_hears_no_token(tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    impostor = Impostor(Authority(tmp_path / "ca"), {"POST /v1/sign": http(b"")})
    why = await join_impostor(impostor, tmp_path, lambda _, key: as_ca(other, key))
    assert "verify failed" in why or "unable to get" in why or "signature" in why
    assert impostor.heard == []


async def test_older_tls_than_1_3_is_not_spoken(tmp_path: Path) -> None:
    impostor = Impostor(Authority(tmp_path / "ca"), {"POST /v1/sign": http(b"")})
    impostor.newest = ssl.TLSVersion.TLSv1_2
    assert "/v1/bundle: " in await join_impostor(impostor, tmp_path, as_ca)
    assert impostor.heard == []


async def test_ended_certificate_of_the_ca_hears_no_token(tmp_path: Path) -> None:
    impostor = Impostor(Authority(tmp_path / "ca"), {"POST /v1/sign": http(b"")})
    assert "expired" in await join_impostor(impostor, tmp_path, as_ca_long_ago)
    assert impostor.heard == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (http(b"{}"), "not as a CA does"),
        (http(b"x" * (LARGEST_ANSWER + 1)), f"more than {LARGEST_ANSWER} bytes"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + bytes(LARGEST_ANSWER + 1),
            "answered more than",
        ),
        (http(b"", "302 Found", "Location: /v1/bundle\r\n"), "answered 302"),
        (http(b"[]", "500 Internal Server Error"), "not as a CA does"),
        (http(json.dumps({"code": "busy", "message": "later"}).encode(), "503 Busy"), "later"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "/v1/sign"),
        (b"no HTTP\r\n\r\n", "/v1/sign"),
    ],
    ids=["form", "size", "endless", "redirect", "error form", "busy", "cut off", "not HTTP"],
)
async def test_answer_that_is_not_a_cas_is_no_certificate(
    tmp_path: Path, answer: bytes, says: str
) -> None:
    impostor = Impostor(Authority(tmp_path / "ca"), {"POST /v1/sign": answer})
    why = await join_impostor(impostor, tmp_path, as_ca)
    assert says in why
    assert "\n" not in why


@pytest.mark.parametrize(
    "answer",
    [http(b"{}"), http(b'{"roots": ["x"]}'), http(b"", "404 Not Found"), http(b"x" * 20_000)],
)
async def test_bundle_that_is_none_ends_it(tmp_path: Path, answer: bytes) -> None:
    impostor = Impostor(Authority(tmp_path / "ca"), {"GET /v1/bundle": answer})
    await join_impostor(impostor, tmp_path, as_ca)
    assert impostor.heard == []


async def test_silent_ca_is_given_up(tmp_path: Path) -> None:
    impostor = Impostor(Authority(tmp_path / "ca"))
    assert "no answer in 0.5 s" in await join_impostor(impostor, tmp_path, as_ca, patience=0.5)


async def test_nobody_there_is_said_plainly(authority: Authority) -> None:
    token = authority.token()
    authority.port = 1
    with pytest.raises(CaUnreachable, match=r"https://127\.0\.0\.1:1/.*: Connection refused"):
        await join(authority, token)


async def test_environments_proxy_hears_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await join(authority, authority.token())).chain


def shaken(server: ssl.SSLContext, believed: Believed) -> None:
    """Shake hands with a server over memory; raises what the client raises."""
    ways = ssl.MemoryBIO(), ssl.MemoryBIO()
    uri = "spiffe://shop.example/tencrypt/ca"
    client = ca_client._ca_only_context(believed, uri).wrap_bio(*ways)
    served = server.wrap_bio(ways[1], ways[0], server_side=True)
    for _ in range(4):
        for end in (client, served):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()


def test_ca_below_a_revoked_issuer_hears_nothing(tmp_path: Path) -> None:
    root = Made(ISSUER.root, ISSUER.key)
    middle = make("shop", root, key=ec.generate_private_key(ec.SECP256R1()), path_length=0)
    assert isinstance(middle.key, ec.EllipticCurvePrivateKey)
    issuer = Issuer(ISSUER.root, middle.key, (middle.certificate,))
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = server_certificate(issuer, key.public_key(), (), now(), DAY, "shop.example")
    path = tmp_path / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = [one.public_bytes(Encoding.PEM) for one in (leaf, middle.certificate)]
    path.write_bytes(secret + b"".join(chain))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    shaken(server, Believed((ISSUER.root,), frozenset({"0" * 64})))
    gone = frozenset({fingerprint(middle.certificate)})
    with pytest.raises(ssl.SSLCertVerificationError, match="issuer"):
        shaken(server, Believed((ISSUER.root,), gone))
