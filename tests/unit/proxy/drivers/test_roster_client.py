"""A pod keeps the newest roster: from the real CA over TLS, from others, and through a CA that is away."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.authority import DAY, TRUST_DOMAIN, Authority
from support.callers import join, names
from support.rosters import Lists, make_roster
from support.settings_text import PROJECT

from ca.drivers import rosters
from ca.lists import LARGEST_ENVELOPE, Roster
from ca.overview import read_leases
from ca.roster import Rosters, SignedRoster
from proxy.credentials.bundle import HeldBundle
from proxy.credentials.credential import Credential
from proxy.credentials.trust import Believed
from proxy.drivers import ca_client
from proxy.drivers.ca_client import Ca, CaRefused, CaUnreachable
from proxy.drivers.enrolment import Enrolment
from proxy.drivers.roster_client import REFRESH, RELEASE_SECONDS, RosterKeeper
from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.profile import DEFAULT_PROFILE
from proxy.settings import Settings

SECONDS = 10.0


def settings(authority: Authority) -> Settings:
    return Settings(
        trust_domain=TRUST_DOMAIN,
        name="web-1",
        namespace="shop",
        service_account="web",
        interface=None,
        addresses=(),
        session_port=15443,
        ca_address=authority.address,
        ca_root_fingerprint=authority.fingerprint,
        token=authority.token(),
        project=PROJECT,
        admin_socket="/run/tencrypt/admin.sock",
        daemon_uid=15443,
        metrics_listen=None,
        tls_suites=DEFAULT_PROFILE.suites,
        offloads=(),
        verify=False,
        tls_groups=DEFAULT_PROFILE.groups,
    )


class Pod:
    """A pod that has joined, and what its keeper brought."""

    def __init__(self, enrolment: Enrolment) -> None:
        self.enrolment = enrolment
        self.adopted: list[Roster] = []
        self.came = asyncio.Event()
        self.keeper = RosterKeeper(enrolment, self._adopt, random=lambda: 0.0)

    def _adopt(self, roster: Roster) -> None:
        assert self.keeper.roster is roster
        self.adopted.append(roster)
        self.came.set()

    async def next(self) -> Roster:
        """Wait for a roster."""
        async with asyncio.timeout(SECONDS):
            await self.came.wait()
        self.came.clear()
        return self.adopted[-1]

    @contextlib.asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """Keep the roster while the body runs."""
        task = asyncio.ensure_future(self.keeper.keep())  # noqa: TID251 - cancelled below
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    async with Authority(tmp_path / "ca").serving() as serving:
        yield serving


@pytest.fixture
async def pod(authority: Authority, caplog: pytest.LogCaptureFixture) -> Pod:
    caplog.set_level(logging.INFO, "tencrypt")
    enrolment = Enrolment(settings(authority))
    await enrolment.obtain()
    return Pod(enrolment)


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    return [vars(record)["fields"] for record in caplog.records if record.getMessage() == event]


async def test_roster_comes_at_once_and_again_when_a_pod_joins_or_leaves(
    authority: Authority, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    async with pod.keeping():
        first = await pod.next()
        assert names(first) == ["web-1"]
        other = await join(authority, "web-2", "10.0.0.2")
        assert names(await pod.next()) == ["web-1", "web-2"]
        await other.post("/v1/release")
        last = await pod.next()
        assert names(last) == ["web-1"]
    assert last.version > first.version
    assert [event["count"] for event in told(caplog, "roster")] == [1, 2, 1]
    status = pod.keeper.status(pod.enrolment.renewal.ends)
    assert (status["version"], status["entries"], status["failures"]) == (last.version, 1, 0)


async def test_status_says_how_old_and_how_long_good(pod: Pod) -> None:
    async with pod.keeping():
        roster = await pod.next()
    now = roster.issued - pod.enrolment.wall_offset + 100
    status = pod.keeper.status(now)
    assert (status["age_seconds"], status["usable_seconds"]) == (100, 3500)


async def test_questions_go_over_one_connection(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rosters, "HOLD_SECONDS", 0.01)
    lines: list[Credential] = []
    asked = asyncio.Event()
    make, ask = ca_client.line, ca_client.Line.roster
    count = 0

    def line(ca: Ca, roots: Believed, credential: Credential) -> object:
        lines.append(credential)
        return make(ca, roots, credential)

    async def roster(
        self: ca_client.Line, version: int, issued: int | None, hold: float, *_: str
    ) -> bytes | None:
        nonlocal count
        count += 1
        if count == 3:
            asked.set()
        return await ask(self, version, issued, hold)

    monkeypatch.setattr(ca_client, "line", line)
    monkeypatch.setattr(ca_client.Line, "roster", roster)
    async with pod.keeping(), asyncio.timeout(SECONDS):
        await asked.wait()
    assert lines == [pod.enrolment.credential]


class Story:
    """A CA of this test's making, which is asked by a clock that is turned by hand."""

    def __init__(self, enrolment: Enrolment, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.wall = 5000.0, 1_700_000_000.0
        self.lists = Lists(self.wall)
        credential, root = enrolment.credential, self.lists.issuer.root
        enrolment.credential = replace(credential, roots=(root,))
        enrolment.bundle = HeldBundle("shop.example", root)
        enrolment.bundle.offer(self.lists.trust)
        enrolment.wall_offset = self.wall - self.now
        self.asked: list[tuple[float, int, int | None]] = []
        self.answers: list[bytes | Exception | None] = []
        self.pauses: list[float] = []
        self.adopted: list[Roster] = []
        self.enrolment = enrolment
        self.keeper = RosterKeeper(
            enrolment, self.adopted.append, lambda: self.now, self._sleep, lambda: 0.5
        )
        monkeypatch.setattr(ca_client, "line", self._line)

    @contextlib.asynccontextmanager
    async def _line(
        self, _ca: Ca, _roots: object, _credential: Credential
    ) -> AsyncIterator["Story"]:
        yield self

    async def roster(
        self, version: int, issued: int | None, _hold: float, bundle: str
    ) -> bytes | None:
        """Stand in for `Line.roster`."""
        assert bundle == self.enrolment.bundle.hash
        self.asked.append((self.now, version, issued))
        if not self.answers:
            raise asyncio.CancelledError
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def tell(self, *answers: bytes | Exception | None) -> None:
        """Let the CA answer so, one question after another, and then let the story end."""
        self.answers += answers
        with pytest.raises(asyncio.CancelledError):
            await self.keeper.keep()


@pytest.fixture
def story(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> Story:
    return Story(pod.enrolment, monkeypatch)


async def test_ca_that_is_away_is_asked_at_growing_pauses_and_the_roster_is_kept(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    good = story.lists.sign(make_roster(story.wall))
    away = [CaUnreachable("away")] * 9
    await story.tell(good, *away, None)
    assert story.pauses == [0.75, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.75]
    assert story.keeper.roster == make_roster(story.wall)
    failures = told(caplog, "roster_failed")
    assert [event["attempt"] for event in failures] == list(range(1, 10))
    assert failures[0]["reason"] == "away"
    status = story.keeper.status(story.now)
    assert (status["failures"], status["last_error"]) == (0, None)


async def test_status_says_what_fails(story: Story) -> None:
    await story.tell(CaUnreachable("away"), CaUnreachable("still away"))
    status = story.keeper.status(story.now)
    assert (status["failures"], status["last_error"]) == (2, "still away")
    assert (status["version"], status["age_seconds"]) == (None, None)


async def test_refusal_is_tried_again_slowly(story: Story) -> None:
    await story.tell(CaRefused("withdrawn", "the token was deleted"))
    assert story.pauses == [225]


async def test_roster_that_is_not_to_be_believed_changes_nothing(story: Story) -> None:
    good = story.lists.sign(make_roster(story.wall))
    forged = Lists(story.wall).sign(make_roster(story.wall, version=9))
    await story.tell(good, forged)
    assert story.keeper.envelope == good
    assert "roster" in str(story.keeper.status(story.now)["last_error"])
    assert len(story.adopted) == 1


async def test_later_signature_is_asked_for_when_a_tenth_of_the_time_is_over(
    story: Story,
) -> None:
    first = make_roster(story.wall)
    await story.tell(story.lists.sign(first), None)
    story.now += REFRESH * 3600
    await story.tell(None)
    assert [(version, issued) for _, version, issued in story.asked[:3]] == [
        (0, None),
        (first.version, None),
        (first.version, None),
    ]
    assert story.asked[-1][1:] == (first.version, first.issued)


async def test_roster_of_a_peer_counts_as_the_cas_and_the_ca_is_asked_for_newer_ones(
    story: Story,
) -> None:
    roster = make_roster(story.wall, version=9)
    story.keeper.offer(story.lists.sign(roster))
    assert story.adopted == [roster]
    with pytest.raises(Dropped) as refused:
        story.keeper.offer(story.lists.sign(make_roster(story.wall, version=8)))
    assert refused.value.reason is Drop.ROSTER
    await story.tell()
    assert story.asked[0][1] == 9


async def test_new_credential_is_used_for_the_next_question(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Credential] = []

    @contextlib.asynccontextmanager
    async def line(_ca: Ca, _roots: object, credential: Credential) -> AsyncIterator[Story]:
        used.append(credential)
        yield story

    monkeypatch.setattr(ca_client, "line", line)
    former = story.enrolment.credential
    newer = replace(former)
    ask = story.roster

    async def roster(version: int, issued: int | None, hold: float, bundle: str) -> bytes | None:
        story.enrolment.credential = newer
        return await ask(version, issued, hold, bundle)

    monkeypatch.setattr(story, "roster", roster)
    await story.tell(None)
    assert used == [former, newer]


async def test_pod_that_stops_gives_its_addresses_back(
    authority: Authority, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    await pod.keeper.release()
    (event,) = authority.events("released")
    assert event["pod"] == "web-1"
    assert read_leases(authority.documents) == ()
    assert told(caplog, "released") == [{}]


async def test_pod_stops_whether_or_not_the_ca_hears_it(
    authority: Authority,
    pod: Pod,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextlib.asynccontextmanager
    async def silent(_ca: Ca, _roots: object, _credential: Credential) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr("proxy.drivers.roster_client.RELEASE_SECONDS", 0.05)
    make: Callable[..., object] = ca_client.line
    monkeypatch.setattr(ca_client, "line", silent)
    await pod.keeper.release()
    monkeypatch.setattr(ca_client, "line", make)
    authority.wall += 3 * DAY  # refused: the certificate ended long ago
    await pod.keeper.release()
    reasons = [str(event["reason"]) for event in told(caplog, "release_failed")]
    assert "no answer" in reasons[0]
    assert "certificate_ended" in reasons[1]
    assert RELEASE_SECONDS <= 2


async def test_answer_that_is_larger_than_any_roster_is_not_read_on(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(self: Rosters, *of: Any) -> SignedRoster:
        signed = sign(self, *of)
        return replace(signed, envelope=bytes(LARGEST_ENVELOPE + 1))

    sign = Rosters.sign
    monkeypatch.setattr(Rosters, "sign", too_large)
    async with ca_client.line(
        pod.enrolment.ca, pod.enrolment.bundle.authority, pod.enrolment.credential
    ) as line:
        with pytest.raises(CaUnreachable, match="more than 1048576 bytes"):
            await line.roster(0, None, 1)


async def test_pods_certificate_is_needed(authority: Authority, pod: Pod) -> None:
    async with ca_client.line(
        pod.enrolment.ca, pod.enrolment.bundle.authority, pod.enrolment.credential
    ) as line:
        assert await line.roster(0, None, 1)
        authority.wall += DAY + timedelta(seconds=1)
        with pytest.raises(CaRefused) as refused:
            await line.roster(0, None, 1)
    assert refused.value.code == "certificate_ended"
