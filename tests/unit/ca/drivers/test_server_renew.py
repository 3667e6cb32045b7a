"""Renewals over real TLS on loopback: whom TLS lets through, whom the CA refuses, and what is audited."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.authority import DAY, Authority, make_claims, make_csr_pem
from support.certified import pod_certificate, server_certificate

from ca.messages import SignRequest, encode, parse_error, parse_sign_response
from ca.profile import ApprovedRequest
from proxy.credentials.csr import make_key_and_csr

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Shown:
    """What a client shows in TLS."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    async with Authority(tmp_path / "ca").serving() as serving:
        yield serving


def body(csr_der: bytes | None = None) -> bytes:
    if csr_der is None:
        return encode(SignRequest(make_csr_pem()))
    pem = x509.load_der_x509_csr(csr_der).public_bytes(Encoding.PEM)
    return encode(SignRequest(pem.decode()))


async def ask(
    authority: Authority,
    path: str,
    data: bytes,
    shown: Shown | None = None,
    token: str | None = None,
) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(authority.directory / "root.pem"))
    if shown is not None:
        file = authority.directory.parent / "client.pem"
        secret = shown.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(secret + shown.certificate.public_bytes(Encoding.PEM))
        context.load_cert_chain(file)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with (
        aiohttp.ClientSession(authority.address, connector=connector) as session,
        session.post(path, data=data, headers=headers) as response,
    ):
        return response.status, await response.read()


async def obtain(
    authority: Authority, shown: Shown | None = None, token: str | None = None
) -> Shown:
    """Get a certificate: by the one shown, or else by a token."""
    key, csr = make_key_and_csr()
    token = token or (authority.token() if shown is None else None)
    path = "/v1/sign" if shown is None else "/v1/renew"
    status, answer = await ask(authority, path, body(csr), shown, token)
    assert status == 200, answer
    pem = parse_sign_response(answer).chain[0].encode()
    return Shown(key, x509.load_pem_x509_certificate(pem))


async def refusal(authority: Authority, shown: Shown | None) -> tuple[int, str]:
    status, answer = await ask(authority, "/v1/renew", body(), shown)
    return status, parse_error(answer).code


async def test_pod_renews_by_its_certificate_and_the_audit_says_which(
    authority: Authority,
) -> None:
    first = await obtain(authority)
    second = await obtain(authority, first)
    (event,) = authority.events("renewed")
    assert event["serial"] == f"{second.certificate.serial_number:x}"
    assert event["replaces"] == f"{first.certificate.serial_number:x}"
    assert (event["pod"], event["addresses"]) == ("web-1", ["10.0.0.1"])
    assert event["from"] == "127.0.0.1"
    assert len(authority.events("issued")) == 1


async def test_tls_lets_an_ended_certificate_through_and_the_ca_judges_how_late(
    authority: Authority,
) -> None:
    # TLS goes by the machine's clock: these certificates ended before the test began.
    authority.wall -= 10 * DAY
    first = await obtain(authority)
    authority.wall = first.certificate.not_valid_after_utc + 23 * HOUR
    second = await obtain(authority, first)
    authority.wall = second.certificate.not_valid_after_utc + 25 * HOUR
    assert await refusal(authority, second) == (403, "certificate_ended")
    (event,) = authority.events("refused")
    assert event["reason"] == "certificate_ended"


async def test_key_replaced_two_renewals_ago_is_refused_and_the_audit_says_whose(
    authority: Authority,
) -> None:
    first = await obtain(authority)
    second = await obtain(authority, first)
    await obtain(authority, second)
    assert await refusal(authority, first) == (403, "superseded")
    (event,) = authority.events("refused")
    assert (event["reason"], event["pod"]) == ("superseded", "web-1")
    assert event["replaces"] == f"{first.certificate.serial_number:x}"


async def test_pod_whose_token_expired_is_renewed_and_one_whose_token_was_deleted_is_not(
    authority: Authority,
) -> None:
    first = await obtain(authority)
    authority.wall += DAY - HOUR
    second = await obtain(authority, first)
    authority.wall += 2 * HOUR  # past the token's end
    third = await obtain(authority, second)
    for file in (authority.directory / "tokens").iterdir():
        file.unlink()
    assert await refusal(authority, third) == (403, "withdrawn")


async def test_caller_without_a_certificate_is_refused_a_renewal(authority: Authority) -> None:
    token = authority.token()
    status, answer = await ask(authority, "/v1/renew", body(), token=token)
    assert (status, parse_error(answer).code) == (403, "no_certificate")


async def test_token_goes_on_working_beside_a_certificate(authority: Authority) -> None:
    first = await obtain(authority)
    status, _ = await ask(authority, "/v1/sign", body(), first, authority.token())
    assert status == 200
    status, answer = await ask(authority, "/v1/sign", body(), first)
    assert (status, parse_error(answer).code) == (401, "unknown_token")


async def test_certificate_of_another_ca_does_not_pass_tls(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    key = ec.generate_private_key(ec.SECP256R1())
    approved = ApprovedRequest(key.public_key(), make_claims())
    foreign = pod_certificate(other.issuer, approved, authority.wall, DAY)
    with pytest.raises(aiohttp.ClientError):
        await ask(authority, "/v1/renew", body(), Shown(key, foreign))
    assert not authority.events("renewed")


async def test_cas_own_service_certificate_does_not_pass_tls(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    own = server_certificate(authority.issuer, key.public_key(), (), authority.wall, DAY)
    with pytest.raises(aiohttp.ClientError):
        await ask(authority, "/v1/renew", body(), Shown(key, own))
    assert not authority.events("renewed")


async def test_genuine_certificate_that_is_on_no_record_is_refused(authority: Authority) -> None:
    # The control of the two tests above, too: it passes TLS.
    key = ec.generate_private_key(ec.SECP256R1())
    approved = ApprovedRequest(key.public_key(), make_claims())
    unknown = pod_certificate(authority.issuer, approved, authority.wall, DAY)
    assert await refusal(authority, Shown(key, unknown)) == (403, "superseded")
