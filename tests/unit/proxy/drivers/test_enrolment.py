"""A pod's certificate over days, with a clock that is turned by hand and the CA's own rules."""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from support.authority import make_claims
from support.memory_ca import ISSUER, SECRET, WALL, GoneWrong, Memory, ask, office
from support.settings_text import PROJECT

from ca.issue import TokenRecord, authenticate
from ca.messages import SignRequest, SignResponse, encode, encode_token
from ca.namespace import Namespace
from ca.refusal import Refused
from ca.renew import Caller, identify
from proxy.credentials.credential import Credential
from proxy.drivers import ca_client
from proxy.drivers.ca_client import Ca, CaRefused, CaUnreachable
from proxy.drivers.enrolment import Enrolment
from proxy.session.profile import DEFAULT_PROFILE
from proxy.settings import Settings
from proxy.status import JsonObject

HOUR, DAY = 3600.0, 86_400.0
BOOT = 5000.0  # monotonic seconds at WALL
CLAIMS = make_claims(expires=int(WALL.timestamp() + HOUR))


class Over(Exception):  # noqa: N818 - ends a story
    """The story's time is over."""


@dataclass
class World:
    """A clock that `sleep` turns, and a CA that can be away, refuse, or lose its answers."""

    store: Memory
    life: timedelta = timedelta(days=1)
    now: float = BOOT
    ahead: float = 0.0
    is_away: bool = False
    answers_lost: int = 0
    certifies: dict[str, object] = field(default_factory=dict)
    """What a CA that has gone wrong writes instead of the truth."""
    asked: list[tuple[float, str]] = field(default_factory=list)
    """When, and by which means, whether answered or not."""
    happenings: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    until: float = 0.0

    @property
    def wall(self) -> datetime:
        """The CA's clock, which may have been corrected."""
        return datetime.fromtimestamp(WALL.timestamp() + self.now - BOOT + self.ahead, UTC)

    def at(self, hours: float, happening: Callable[[], object]) -> None:
        """Let something happen so many hours after the start."""
        self.happenings.append((BOOT + hours * HOUR, happening))

    async def sleep(self, seconds: float) -> None:
        """Let time pass, and with it whatever happens."""
        assert seconds >= 0
        self.now += seconds
        for happening in [one for one in self.happenings if one[0] <= self.now]:
            self.happenings.remove(happening)
            happening[1]()
        if self.now >= self.until:
            raise Over

    async def find_root(self, _ca: Ca) -> x509.Certificate:
        """Stand in for `ca_client.find_root`."""
        return ISSUER.root

    async def obtain(
        self, _ca: Ca, _root: x509.Certificate, token: str, csr: bytes
    ) -> SignResponse:
        """Stand in for `ca_client.obtain`."""
        return self._answer(
            "token",
            csr,
            lambda: authenticate(f"Bearer {token}", office(self.store).find_token, self.wall),
        )

    async def renew(
        self, _ca: Ca, _roots: object, credential: Credential, csr: bytes
    ) -> SignResponse:
        """Stand in for `ca_client.renew`."""

        shown = credential.chain[0].public_bytes(Encoding.DER)
        return self._answer("key", csr, lambda: identify(shown, "shop.example", self.wall))

    def _answer(
        self, means: str, csr: bytes, who: Callable[[], TokenRecord | Caller]
    ) -> SignResponse:
        self.asked.append(((self.now - BOOT) / HOUR, means))
        if self.is_away:
            raise CaUnreachable("away")
        pem = x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM).decode()
        body = encode(SignRequest(pem))
        try:
            signer = GoneWrong(self.certifies)
            issued = ask(self.store, who(), body, self.wall, signer=signer, life=self.life)
        except Refused as refused:
            raise CaRefused(refused.reason, refused.message) from None
        if self.answers_lost:
            self.answers_lost -= 1
            raise CaUnreachable("cut off")
        return issued.response

    def leave(self) -> None:
        """Be away from now on."""
        self.is_away = True

    def come_back(self) -> None:
        """Answer again."""
        self.is_away = False


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> World:
    caplog.set_level(logging.INFO, "tencrypt")
    made = World(Memory(CLAIMS))
    monkeypatch.setattr(ca_client, "find_root", made.find_root)
    monkeypatch.setattr(ca_client, "obtain", made.obtain)
    monkeypatch.setattr(ca_client, "renew", made.renew)
    return made


@dataclass
class Lived:
    """What came of a story."""

    enrolment: Enrolment
    adopted: list[tuple[Credential, float]]
    status: JsonObject


def make_settings() -> Settings:
    return Settings(
        trust_domain="shop.example",
        name="web-1",
        namespace="shop",
        service_account="web",
        interface=None,
        addresses=(),
        session_port=15443,
        ca_address="https://10.0.1.1:8443",
        ca_root_fingerprint="sha256:" + "0" * 64,
        token=encode_token(CLAIMS, SECRET),
        project=PROJECT,
        admin_socket="/run/tencrypt/admin.sock",
        daemon_uid=15443,
        metrics_listen=None,
        tls_suites=DEFAULT_PROFILE.suites,
        offloads=(),
        verify=False,
        tls_groups=DEFAULT_PROFILE.groups,
    )


async def live(world: World, hours: float) -> Lived:
    """Let a pod start and run for so long."""
    world.until = BOOT + hours * HOUR
    adopted: list[tuple[Credential, float]] = []
    enrolment = Enrolment(make_settings(), lambda: world.now, world.sleep, random.Random(1).random)
    await enrolment.obtain()
    with pytest.raises(Over):
        await enrolment.keep(lambda credential, offset: adopted.append((credential, offset)))
    return Lived(enrolment, adopted, enrolment.status(world.now))


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    return [vars(record)["fields"] for record in caplog.records if record.getMessage() == event]


async def test_certificate_is_renewed_at_half_its_life_for_ever_with_a_fresh_key(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lived = await live(world, 10 * 24)
    assert [means for _, means in world.asked] == ["token", *["key"] * len(lived.adopted)]
    ats = [at for at, _ in world.asked]
    pauses = [later - at for at, later in itertools.pairwise(ats)]
    assert 18 <= len(pauses) <= 22
    assert all(10.8 <= pause <= 13.2 for pause in pauses)
    assert len({round(pause, 3) for pause in pauses}) == len(pauses)
    keys = {credential.own.fingerprint for credential, _ in lived.adopted}
    numbers = {c.key.public_key().public_numbers() for c, _ in lived.adopted}
    assert len(keys) == len(numbers) == len(lived.adopted)
    assert lived.enrolment.credential is lived.adopted[-1][0]
    assert len(told(caplog, "certificate_renewed")) == len(lived.adopted)
    assert lived.status["failures"] == 0
    assert lived.status["last_error"] is None


async def test_clock_offset_follows_the_cas_clock(world: World) -> None:
    def correct() -> None:
        world.ahead = 90.0

    world.at(1, correct)
    lived = await live(world, 14)
    (_, offset), *_ = lived.adopted
    assert offset == pytest.approx(WALL.timestamp() - BOOT + 90)
    assert lived.enrolment.wall_offset == offset


async def test_certificate_is_kept_through_an_outage_and_renewed_after_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.at(1, world.leave)
    world.at(20, world.come_back)
    lived = await live(world, 21)
    assert len(lived.adopted) == 1
    assert told(caplog, "certificate_ended") == []
    failures = told(caplog, "renewal_failed")
    assert [f["attempt"] for f in failures] == list(range(1, len(failures) + 1))
    assert failures[0]["reason"] == "away"
    assert lived.status["failures"] == 0, "since the last success"
    since_start = lived.enrolment.renewals, lived.enrolment.failures
    assert since_start == (1, len(failures))
    lefts = [int(str(f["seconds_left"])) for f in failures]
    assert lefts == sorted(lefts, reverse=True)
    assert 4 * HOUR - 60 < lefts[-1] < 13.2 * HOUR
    back = [at for at, _ in world.asked if at >= 20]
    assert back[0] <= 20 + 60 / 3600


async def test_outage_does_not_flood_the_ca(world: World) -> None:
    world.at(1, world.leave)
    await live(world, 21)
    attempts = [at for at, _ in world.asked[1:]]
    # Thirty seconds apart on the average.
    assert 0.8 < len(attempts) / ((21 - attempts[0]) * 120) < 1.25


async def test_ended_certificate_is_told_once_and_heals_by_its_own_key(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.at(1, world.leave)
    world.at(47, world.come_back)
    lived = await live(world, 48)
    (ended,) = told(caplog, "certificate_ended")
    assert ended["serial"] != f"{lived.enrolment.credential.own.serial:x}"
    assert len(lived.adopted) == 1
    assert {means for _, means in world.asked[1:]} == {"key"}
    assert min(at for at, _ in world.asked if at >= 47) <= 47 + 10 / 3600
    assert lived.status["failures"] == 0


async def test_second_end_is_told_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for start, end in ((1, 30), (31, 70)):
        world.at(start, world.leave)
        world.at(end, world.come_back)
    await live(world, 71)
    assert len(told(caplog, "certificate_ended")) == 2


async def test_lost_answers_are_asked_for_again_with_the_same_key(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.at(1, lambda: setattr(world, "answers_lost", 3))
    lived = await live(world, 40)
    assert len(told(caplog, "renewal_failed")) == 3
    assert len(lived.adopted) >= 2
    assert {means for _, means in world.asked[1:]} == {"key"}


async def test_refusal_keeps_the_certificate_and_is_retried_slowly_until_it_is_mended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    records = dict(world.store.records)
    world.at(1, world.store.records.clear)
    world.at(20, lambda: world.store.records.update(records))
    lived = await live(world, 21)
    failures = told(caplog, "renewal_failed")
    assert "withdrawn" in str(failures[0]["reason"])
    assert len(lived.adopted) == 1
    assert told(caplog, "certificate_ended") == []
    ats = [at for at, _ in world.asked[1:] if at < 20]
    pauses = [later - at for at, later in itertools.pairwise(ats)]
    assert all(150 <= pause * 3600 <= 300 for pause in pauses)


async def test_key_that_the_ca_no_longer_knows_is_replaced_by_the_token_while_that_is_good(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.life = timedelta(minutes=40)
    world.at(0.1, lambda: world.store.put(Namespace()))  # the CA's records were restored
    lived = await live(world, 0.5)
    assert [means for _, means in world.asked] == ["token", "key", "token"]
    assert [event["means"] for event in told(caplog, "certificate_renewed")] == ["token"]
    assert len(lived.adopted) == 1


async def test_token_that_is_over_is_not_tried(world: World) -> None:
    world.at(2, lambda: world.store.put(Namespace()))
    lived = await live(world, 14)
    assert {means for _, means in world.asked[1:]} == {"key"}
    assert "superseded" in str(lived.status["last_error"])
    assert lived.adopted == []


async def test_status_says_when_what_and_why(world: World) -> None:
    world.at(1, world.leave)
    status = (await live(world, 14)).status
    assert status["renewals"] == 0
    assert int(str(status["failures"])) > 3
    assert status["last_error"] == "away"
    assert 0 <= int(str(status["next_seconds"])) <= 60


@pytest.mark.parametrize(
    "other",
    [
        {"pod": "web-2"},
        {"namespace": "bank"},
        {"service_account": "admin"},
        {"addresses": (ip_address("10.0.0.99"),)},
    ],
    ids=str,
)
async def test_certificate_of_another_pod_is_not_taken_and_the_good_one_kept(
    world: World, caplog: pytest.LogCaptureFixture, other: dict[str, object]
) -> None:
    world.at(1, lambda: setattr(world, "certifies", other))
    world.at(20, lambda: setattr(world, "certifies", {}))
    lived = await live(world, 21)
    assert told(caplog, "renewal_failed")
    assert "is for" in str(told(caplog, "renewal_failed")[0]["reason"])
    assert len(lived.adopted) == 1
    (credential, _) = lived.adopted[0]
    assert (credential.own.pod, credential.own.identity.uri) == (CLAIMS.pod, CLAIMS.identity.uri)
    assert told(caplog, "certificate_ended") == []


async def test_ca_that_is_away_at_the_start_is_given_up_after_thirty_seconds(
    world: World,
) -> None:
    world.leave()
    with pytest.raises(CaUnreachable):
        await live(world, 1)
    assert world.now - BOOT <= 30
    assert len(world.asked) > 10


async def test_rotation_on_demand_renews_before_its_time(world: World) -> None:
    """The sleep of `keep` is broken off; where the CA is away, the certificate stays and the reason is told."""
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)
        await asyncio.Event().wait()

    enrolment = Enrolment(make_settings(), lambda: world.now, sleep, random.Random(1).random)
    await enrolment.obtain()
    before = f"{enrolment.credential.own.serial:x}"
    keeping = asyncio.get_running_loop().create_task(enrolment.keep(lambda *_: None))
    answer = await enrolment.rotate()
    assert answer["renewed"]
    assert answer["serial"] == f"{enrolment.credential.own.serial:x}" != before
    world.leave()
    failed = await enrolment.rotate()
    assert failed == {"renewed": False, "serial": answer["serial"], "error": "away"}
    keeping.cancel()
