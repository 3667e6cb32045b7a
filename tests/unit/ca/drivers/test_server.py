"""The CA's server as strangers and pods meet it: over real TLS on loopback."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from support.authority import DAY, PASSPHRASE, Authority, make_csr_pem
from support.callers import join
from typing_extensions import override

from ca import owner, rotation
from ca.certificates import Issuer, make_root
from ca.drivers import server
from ca.drivers.file_backend import add_root, open_signer
from ca.drivers.server import parse_listen
from ca.limits import GRANTS, POLLS, REFUSALS
from ca.messages import LARGEST_BODY, SignRequest, encode, parse_error, parse_sign_response
from ca.trust_bundle import fingerprint

BODY = encode(SignRequest(make_csr_pem()))


def trust(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.directory / "root.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    async with Authority(tmp_path / "ca").serving() as serving:
        yield serving


async def ask(
    authority: Authority, path: str, token: str | None = None, body: bytes | None = None
) -> tuple[int, bytes]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    method = "GET" if body is None else "POST"
    connector = aiohttp.TCPConnector(ssl=trust(authority), force_close=True)
    async with (
        aiohttp.ClientSession(authority.address, connector=connector) as session,
        session.request(method, path, headers=headers, data=body) as response,
    ):
        return response.status, await response.read()


async def refusal(authority: Authority, token: str | None, body: bytes = BODY) -> tuple[int, str]:
    status, answer = await ask(authority, "/v1/sign", token, body)
    return status, parse_error(answer).code


async def connect(
    authority: Authority, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", authority.port, ssl=context)


async def servers_serial(authority: Authority) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it lives a second only: a slow machine must not matter
    _, writer = await connect(authority, context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(der).serial_number


async def test_bundle_and_health_are_open_to_all(authority: Authority) -> None:
    status, body = await ask(authority, "/v1/bundle")
    assert status == 200
    (root,) = json.loads(body)["roots"]
    assert x509.load_pem_x509_certificate(root.encode()) == authority.root
    assert await ask(authority, "/healthz") == (200, b"ok\n")


async def test_token_is_exchanged_for_a_certificate_and_audited(authority: Authority) -> None:
    token = authority.token()
    status, body = await ask(authority, "/v1/sign", token, BODY)
    assert status == 200
    leaf = x509.load_pem_x509_certificate(parse_sign_response(body).chain[0].encode())
    (event,) = authority.events("issued")
    assert event["serial"] == f"{leaf.serial_number:x}"
    assert (event["pod"], event["addresses"]) == ("web-1", ["10.0.0.1"])
    assert event["from"] == "127.0.0.1"


async def test_token_made_while_the_server_runs_counts_at_once(authority: Authority) -> None:
    assert (await ask(authority, "/v1/sign", authority.token("a" * 16), BODY))[0] == 200
    other = authority.token("b" * 16, ["10.0.0.2"])
    assert (await ask(authority, "/v1/sign", other, BODY))[0] == 200


async def test_stranger_gets_nothing(authority: Authority) -> None:
    for token in (None, "", "tct1.x.y", authority.token()[:-1] + "_"):
        assert await refusal(authority, token) == (401, "unknown_token")
    assert not authority.events("issued")


async def test_expired_token_is_refused_and_the_audit_says_whose(authority: Authority) -> None:
    token = authority.token()
    authority.wall += DAY
    assert await refusal(authority, token) == (401, "expired_token")
    (event,) = authority.events("refused")
    assert (event["reason"], event["pod"]) == ("expired_token", "web-1")


async def test_address_held_by_another_token_is_a_conflict(authority: Authority) -> None:
    first, second = authority.token("a" * 16), authority.token("b" * 16)
    assert (await ask(authority, "/v1/sign", first, BODY))[0] == 200
    assert await refusal(authority, second) == (409, "address_held")
    assert (await ask(authority, "/v1/sign", first, BODY))[0] == 200


async def test_of_many_at_once_one_token_gets_the_address(authority: Authority) -> None:
    tokens = [authority.token(f"{n:016x}") for n in range(8)]
    answers = await asyncio.gather(*(ask(authority, "/v1/sign", t, BODY) for t in tokens))
    assert sorted(status for status, _ in answers) == [200] + 7 * [409]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"no JSON", (400, "malformed")),
        (encode(SignRequest("no CSR")), (403, "csr_malformed")),
        (b" " * (LARGEST_BODY + 1), (413, "too_large")),
    ],
)
async def test_bad_request_is_refused_with_its_reason(
    authority: Authority, body: bytes, expected: tuple[int, str]
) -> None:
    assert await refusal(authority, authority.token(), body) == expected
    (event,) = authority.events("refused")
    assert (event["reason"], event["pod"]) == (expected[1], "web-1")


async def test_tokens_are_never_audited(authority: Authority) -> None:
    good, bad = authority.token(), "tct1." + "Q" * 40 + "." + "Q" * 43
    await ask(authority, "/v1/sign", good, BODY)
    await ask(authority, "/v1/sign", bad, BODY)
    told = str(authority.audited)
    assert good.rpartition(".")[2] not in told
    assert "QQQQ" not in told


async def test_paths_and_methods_that_are_not_served_answer_as_all_errors(
    authority: Authority,
) -> None:
    for path, body, expected in (("/", None, 404), ("/v1/sign", None, 405), ("/x", BODY, 404)):
        status, answer = await ask(authority, path, body=body)
        assert (status, parse_error(answer).code) == (expected, "http")


async def test_failing_store_issues_nothing_and_tells_no_stranger_why(
    authority: Authority,
) -> None:
    token = authority.token()
    (authority.directory / "namespaces/shop.json").write_bytes(b"damaged")
    status, answer = await ask(authority, "/v1/sign", token, BODY)
    assert (status, parse_error(answer).code) == (500, "failed")
    assert str(authority.directory) not in answer.decode()
    (event,) = authority.events("failed")
    assert "damaged" in str(event["message"])


async def test_older_tls_is_refused(authority: Authority) -> None:
    context = trust(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(authority, context)


async def test_server_gives_no_tickets(authority: Authority) -> None:
    # A resumed connection would show a client no certificate to judge.
    reader, writer = await connect(authority, trust(authority))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"ok\n")
    session = writer.get_extra_info("ssl_object").session
    assert session is None or not session.has_ticket
    writer.close()


async def test_server_renews_its_certificate_while_it_runs(tmp_path: Path) -> None:
    renewed = asyncio.Event()
    authority = Authority(tmp_path / "ca")

    class Audited(list[tuple[str, dict[str, object]]]):
        @override
        def append(self, line: tuple[str, dict[str, object]]) -> None:
            super().append(line)
            if len(self) == 2:
                renewed.set()

    authority.audited = Audited()
    async with authority.serving(server_life=timedelta(seconds=1)):
        before = await servers_serial(authority)
        await asyncio.wait_for(renewed.wait(), 10)
        after = await servers_serial(authority)
    serials = [event["serial"] for event in authority.events("server_certificate")]
    assert serials[:2] == [f"{before:x}", f"{after:x}"]
    assert before != after


async def test_too_many_requests_at_once_are_asked_to_come_back(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_AT_ONCE", 1)
    token = authority.token()
    head = f"POST /v1/sign HTTP/1.1\r\nHost: ca\r\nAuthorization: Bearer {token}\r\n"
    slow_reader, slow = await connect(authority, trust(authority))
    slow.write(f"{head}Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n".encode())
    assert b"100" in await slow_reader.readuntil(b"\r\n\r\n")  # now it waits for the body
    reader, writer = await connect(authority, trust(authority))
    writer.write(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in answer
    slow.write(BODY)
    assert (await slow_reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    for each in (slow, writer):
        each.close()


async def test_request_that_comes_too_slowly_is_ended(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.05)
    reader, writer = await connect(authority, trust(authority))
    head = f"POST /v1/sign HTTP/1.1\r\nHost: ca\r\nAuthorization: Bearer {authority.token()}\r\n"
    writer.write(f"{head}Content-Length: 10\r\n\r\n123".encode())
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408 ")
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost:"])
async def test_connection_without_a_whole_request_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    async with Authority(tmp_path / "ca").serving() as authority:
        reader, writer = await connect(authority, trust(authority))
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10.0.1.1:8443", "10.0.1.1 8443"), ("[fd00::1]:0", "fd00::1 0"), ("0.0.0.0:1", "0.0.0.0 1")],
)
def test_listening_place_is_understood(text: str, expected: str) -> None:
    address, port = parse_listen(text)
    assert f"{address} {port}" == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.1.1",
        "10.0.1.1:",
        "10.0.1.1:-1",
        "10.0.1.1:65536",
        "10.0.1.1:8443 ",
        "10.0.1.1:٣",
        ":8443",
        "ca:8443",
        "fd00::1:8443",
        "[10.0.1.1]:1",
        "[fd00::1]8443",
        "[fe80::1%eth0]:1",
    ],
)
def test_other_listening_places_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the command line says what is accepted
        parse_listen(text)


async def test_who_guesses_is_slowed_and_told_for_how_long(authority: Authority) -> None:
    statuses, after = [0], None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        while statuses[-1] != 429 and len(statuses) < 1000:
            headers = {"Authorization": "Bearer guess"}
            url = f"{authority.address}/v1/sign"
            async with session.post(url, headers=headers, data=b"{}") as answer:
                statuses.append(answer.status)
                after = answer.headers.get("Retry-After")
    assert REFUSALS[0] <= statuses.count(401) < 2 * REFUSALS[0]
    assert (statuses[-1], after) == (429, "1")
    assert len(authority.events("refused")) == statuses.count(401)


async def test_a_pod_that_has_certificate_after_certificate_is_slowed(authority: Authority) -> None:
    statuses, after = [0], None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        headers = {"Authorization": f"Bearer {authority.token()}"}
        body = encode(SignRequest(make_csr_pem()))
        while statuses[-1] != 429 and len(statuses) < 1000:
            url = f"{authority.address}/v1/sign"
            async with session.post(url, headers=headers, data=body) as answer:
                statuses.append(answer.status)
                after = answer.headers.get("Retry-After")
    assert GRANTS[0] <= statuses.count(200) < 2 * GRANTS[0]
    assert (statuses[-1], after) == (429, "1")


async def test_body_that_comes_slowly_frees_its_place_and_is_counted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ca.drivers.answers.BODY_SECONDS", 0.05)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", authority.port, ssl=context)
    head = f"Authorization: Bearer {authority.token()}\r\nContent-Length: 500\r\n\r\nhalf"
    writer.write(f"POST /v1/sign HTTP/1.1\r\nHost: ca\r\n{head}".encode())
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    (event,) = authority.events("refused")
    assert event["reason"] == "too_slow"
    assert event["pod"] == "web-1"


async def test_pod_that_asks_for_its_list_without_end_is_slowed(authority: Authority) -> None:
    pod = await join(authority)
    statuses = [(await pod.ask())[0] for _ in range(int(POLLS[0]) + 8)]
    assert statuses[: int(POLLS[0])] == [200] * int(POLLS[0])
    assert statuses[-1] == 429


async def test_server_shows_itself_although_a_former_roots_key_is_lost(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    key = ec.generate_private_key(ec.SECP256R1())
    root = make_root(key, "shop.example", authority.wall, DAY, 2)
    add_root(authority.directory, Issuer(root, key), PASSPHRASE)
    for what, decide in (
        ("prepare", lambda bundle, *_: rotation.prepare(bundle, root)),
        ("activate", rotation.activate),
    ):
        owner.step(authority.documents, authority.signer, what, decide, authority.wall)
    (authority.directory / "root.key").unlink()
    authority.signer = open_signer(authority.directory, PASSPHRASE)
    async with authority.serving():
        names = {event["root"] for event in authority.events("server_certificate")}
        assert names == {fingerprint(root)}
        (event,) = authority.events("failed")
        assert event["root"] == fingerprint(authority.root)
