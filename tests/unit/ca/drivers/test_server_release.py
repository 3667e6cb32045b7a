"""A pod that stops in order, over real TLS on loopback: what it gives back, and who may give it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.authority import Authority, make_claims
from support.callers import Caller, join, names

from ca.messages import parse_error
from proxy.credentials.csr import make_key_and_csr


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    async with Authority(tmp_path / "ca").serving() as serving:
        yield serving


async def test_pod_that_releases_leaves_the_roster_and_the_audit_says_so(
    authority: Authority,
) -> None:
    one, two = await join(authority), await join(authority, "web-2", "10.0.0.2")
    version = (await two.roster()).version
    assert await one.post("/v1/release") == (204, b"")
    assert names(await two.roster(f"?after={version}")) == ["web-2"]
    (event,) = authority.events("released")
    assert one.certificate is not None
    assert event["serial"] == f"{one.certificate.serial_number:x}"
    assert (event["pod"], event["token"], event["addresses"]) == (
        "web-1",
        one.number,
        ["10.0.0.1"],
    )
    assert event["from"] == "127.0.0.1"


async def test_released_certificate_is_renewed_no_more_and_its_addresses_go_to_another_token(
    authority: Authority,
) -> None:
    pod = await join(authority)
    assert (await pod.post("/v1/release"))[0] == 204
    for path in ("/v1/renew", "/v1/release"):
        status, body = await pod.post(path, csr=make_key_and_csr()[1])
        assert (status, parse_error(body).code) == (403, "superseded")
    assert (await pod.ask())[0] == 403
    other = Caller(authority, "web-7", "10.0.0.1", "shop")
    other.number = "f" * 16
    other.claims = make_claims(
        other.number, pod="web-7", addresses=pod.claims.addresses, expires=pod.claims.expires
    )
    await other.join()
    assert names(await other.roster()) == ["web-7"]


async def test_pod_that_released_comes_back_by_its_token(authority: Authority) -> None:
    pod = await join(authority)
    await pod.post("/v1/release")
    again = await join(authority)
    assert names(await again.roster()) == ["web-1"]


async def test_stranger_releases_nothing(authority: Authority) -> None:
    await join(authority)
    before = json.loads((authority.directory / "namespaces/shop.json").read_bytes())
    status, body = await Caller(authority, "web-1", "10.0.0.1", "shop").post("/v1/release")
    assert (status, parse_error(body).code) == (403, "no_certificate")
    assert json.loads((authority.directory / "namespaces/shop.json").read_bytes()) == before
