"""Rosters over real TLS on loopback: who gets which, when, and how long the CA holds a question."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from support.authority import DAY, Authority
from support.callers import Caller, join, names, read
from support.certified import pod_certificate
from typing_extensions import override

from ca.drivers import rosters
from ca.drivers.service import Service
from ca.lists import parse_envelope
from ca.messages import parse_error
from ca.profile import ApprovedRequest
from ca.roster import ListSigner
from ca.trust import read_trust

HOUR = timedelta(hours=1)


class Held(dict[object, object]):
    """The questions that the CA holds; a test can wait until there are so many."""

    def __init__(self) -> None:
        super().__init__()
        self.grew = asyncio.Event()

    @override
    def __setitem__(self, key: object, value: object) -> None:
        super().__setitem__(key, value)
        self.grew.set()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Held:
    watched = Held()
    make = rosters.RosterDesk.__init__

    def watch(self: rosters.RosterDesk, service: Service) -> None:
        make(self, service)
        monkeypatch.setattr(self, "_held", watched)

    monkeypatch.setattr(rosters.RosterDesk, "__init__", watch)
    return watched


@pytest.fixture
async def authority(waiting: Held, tmp_path: Path) -> AsyncIterator[Authority]:
    del waiting  # before the server is made
    async with Authority(tmp_path / "ca").serving() as serving:
        yield serving


async def held(
    waiting: Held, pods: Sequence[Caller], query: str
) -> list[asyncio.Task[tuple[int, bytes]]]:
    """Let these pods ask; return when the CA holds all of them."""
    tasks = [asyncio.create_task(pod.ask(query)) for pod in pods]  # noqa: TID251 - awaited by the test
    async with asyncio.timeout(10):
        while len(waiting) < len(pods):
            waiting.grew.clear()
            await waiting.grew.wait()
    return tasks


async def test_pod_gets_its_own_namespaces_roster_alone(authority: Authority) -> None:
    one = await join(authority)
    other = await join(authority, "db-1", "10.0.0.2", "bank")
    roster = await one.roster()
    assert names(roster) == ["web-1"]
    assert (roster.namespace, roster.entries[0].service_account) == ("shop", "web")
    assert names(await other.roster()) == ["db-1"]


async def test_newer_roster_is_answered_at_once_and_none_after_a_while(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rosters, "HOLD_SECONDS", 0.05)
    pod = await join(authority)
    version = (await pod.roster()).version
    assert (await pod.roster(f"?after={version - 1}")).version == version
    assert await pod.ask(f"?after={version}") == (204, b"")
    assert await pod.ask(f"?after={version + 1}") == (204, b"")


async def test_held_question_is_answered_when_a_pod_joins(
    authority: Authority, waiting: Held
) -> None:
    pod = await join(authority)
    version = (await pod.roster()).version
    (task,) = await held(waiting, [pod], f"?after={version}")
    await join(authority, "web-2", "10.0.0.2")
    status, body = await asyncio.wait_for(task, 10)
    assert status == 200
    roster = read(body)
    assert names(roster) == ["web-1", "web-2"]
    assert roster.version > version


async def test_renewal_disturbs_nobody(
    authority: Authority, waiting: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rosters, "HOLD_SECONDS", 0.3)
    monkeypatch.setattr(rosters, "PACE", 0.0)
    pod = await join(authority)
    other = await join(authority, "web-2", "10.0.0.2")
    version = (await pod.roster()).version
    (task,) = await held(waiting, [pod], f"?after={version}")
    authority.wall += HOUR
    await other.renew()
    assert await task == (204, b"")


async def test_later_signature_is_given_to_who_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rosters, "RESIGN_SECONDS", 0.02)
    async with Authority(tmp_path / "ca").serving() as authority:
        pod = await join(authority)
        first = await pod.roster()
        authority.wall += timedelta(seconds=60)
        second = await pod.roster(f"?after={first.version}&issued={first.issued}")
        monkeypatch.setattr(rosters, "HOLD_SECONDS", 0.1)
        assert await pod.ask(f"?after={first.version}") == (204, b"")
    assert (second.version, second.entries) == (first.version, first.entries)
    assert (second.issued, second.next) == (first.issued + 60, first.next + 60)


async def test_question_of_a_pod_takes_the_place_of_its_former_one(
    authority: Authority, waiting: Held
) -> None:
    pod = await join(authority)
    version = (await pod.roster()).version
    (former,) = await held(waiting, [pod], f"?after={version}")
    later = asyncio.create_task(pod.ask(f"?after={version}"))  # noqa: TID251 - awaited below
    assert await asyncio.wait_for(former, 10) == (204, b"")
    assert len(waiting) == 1
    await join(authority, "web-2", "10.0.0.2")
    assert (await asyncio.wait_for(later, 10))[0] == 200


async def test_more_questions_than_can_be_held_are_asked_to_come_back(
    authority: Authority, waiting: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rosters, "MOST_HELD", 1)
    one, two = await join(authority), await join(authority, "web-2", "10.0.0.2")
    version = (await one.roster()).version
    (task,) = await held(waiting, [one], f"?after={version}")
    status, body = await two.ask(f"?after={version}")
    assert (status, parse_error(body).code) == (503, "busy")
    assert (await two.ask())[0] == 200  # what need not wait is answered
    task.cancel()


async def test_held_questions_do_not_take_the_place_of_other_requests(
    authority: Authority, waiting: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ca.drivers.server.MOST_AT_ONCE", 1)
    pods = [await join(authority, f"web-{n}", f"10.0.0.{n}") for n in range(1, 4)]
    version = (await pods[0].roster()).version
    tasks = await held(waiting, pods, f"?after={version + 10**6}")
    await join(authority, "web-9", "10.0.0.9")
    for task in tasks:
        task.cancel()


async def test_server_that_stops_lets_go_of_who_waits(tmp_path: Path, waiting: Held) -> None:
    async with Authority(tmp_path / "ca").serving() as authority:
        pod = await join(authority)
        version = (await pod.roster()).version
        (task,) = await held(waiting, [pod], f"?after={version}")
    assert await asyncio.wait_for(task, 5) == (204, b"")


@pytest.mark.parametrize(
    "query", ["?after=x", "?after=-1", "?after=", "?after=1&after=2", "?before=1", "?issued=1e9"]
)
async def test_question_that_is_none_is_refused(authority: Authority, query: str) -> None:
    status, body = await (await join(authority)).ask(query)
    assert (status, parse_error(body).code) == (400, "malformed")


async def refusal(pod: Caller) -> tuple[int, str]:
    status, body = await pod.ask()
    (event,) = pod.authority.events("refused")
    code = parse_error(body).code
    assert event["reason"] == code
    return status, code


async def test_caller_without_a_certificate_is_refused(authority: Authority) -> None:
    stranger = Caller(authority, "web-1", "10.0.0.1", "shop")
    assert await refusal(stranger) == (403, "no_certificate")


async def test_certificate_that_has_ended_gets_no_roster_although_it_can_be_renewed(
    authority: Authority,
) -> None:
    pod = await join(authority)
    assert pod.certificate is not None
    authority.wall = pod.certificate.not_valid_after_utc + timedelta(seconds=1)
    assert await refusal(pod) == (403, "certificate_ended")


async def test_genuine_certificate_that_is_on_no_record_gets_no_roster(
    authority: Authority,
) -> None:
    pod = Caller(authority, "web-1", "10.0.0.1", "shop")
    approved = ApprovedRequest(pod.key.public_key(), pod.claims)
    pod.certificate = pod_certificate(authority.issuer, approved, authority.wall, DAY)
    assert await refusal(pod) == (403, "superseded")


async def test_list_signer_is_no_pod_to_the_ca(authority: Authority) -> None:
    pod = Caller(authority, "web-1", "10.0.0.1", "shop")
    signer = ListSigner(authority.signer, authority.root, authority.wall)
    key = signer._key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    pod.key, pod.certificate = key, signer.certificate
    assert await refusal(pod) == (403, "not_a_pod")


async def test_list_signers_certificate_is_audited(authority: Authority) -> None:
    pod = await join(authority)
    envelope = parse_envelope((await pod.ask())[1])
    signer = x509.load_pem_x509_certificate(envelope.chain[0].encode())
    (event,) = authority.events("list_signer")
    assert event["serial"] == f"{signer.serial_number:x}"


async def test_version_outlives_the_server(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with authority.serving():
        pod = await join(authority)
        before = (await pod.roster()).version
    authority.wall -= timedelta(minutes=2)  # its clock was set back
    async with authority.serving():
        assert (await pod.roster(f"?after={before}")).version > before


async def test_damaged_record_gives_no_roster_and_tells_no_pod_why(authority: Authority) -> None:
    pod = await join(authority)
    (authority.directory / "namespaces/shop.json").write_text("damaged")
    status, body = await pod.ask()
    assert (status, parse_error(body).code) == (500, "failed")
    event = authority.events("failed")[0]
    assert "shop.json: damaged" in str(event["message"])


async def test_pod_that_goes_by_other_roots_is_answered_at_once_whatever_its_lists_version(
    authority: Authority,
) -> None:
    pod = await join(authority)
    roster = await pod.roster()
    ahead = roster.version + 1000
    again = await pod.roster(f"?after={ahead}&bundle={'0' * 64}")
    assert again.bundle == roster.bundle == read_trust(authority.documents).hash
    assert await held_for(pod, f"?after={ahead}&bundle={roster.bundle}") is None


async def held_for(pod: Caller, query: str) -> bytes | None:
    """Ask for a moment; None where the question is held."""
    try:
        return (await asyncio.wait_for(pod.ask(query), 0.3))[1]
    except TimeoutError:
        return None
