"""A pod and the real CA through the life of its roots: what the pod hears, says, renews and refuses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from support.authority import PASSPHRASE, Authority
from support.callers import Caller, join
from unit.proxy.drivers.test_roster_client import settings

from ca import owner, rotation
from ca.certificates import Issuer, make_root
from ca.drivers.file_backend import add_root, forget_roots
from ca.lists import Roster
from ca.messages import parse_error, root_fingerprint
from ca.revocations import Entry, Kind
from ca.trust_bundle import TrustBundle, fingerprint
from proxy.drivers.ca_client import CaUnreachable
from proxy.drivers.enrolment import Enrolment
from proxy.drivers.roster_client import RosterKeeper

SECONDS = 20


class Pod:
    """A pod's enrolment and list, both kept; `changed` is set at whatever it hears."""

    def __init__(self, authority: Authority) -> None:
        self.enrolment = Enrolment(settings(authority), random=lambda: 0.01)
        self.keeper = RosterKeeper(self.enrolment, self._heard, random=lambda: 0.0)
        self.lists: list[Roster] = []
        self.changed = asyncio.Event()

    def _heard(self, roster: Roster) -> None:
        self.lists.append(roster)
        self.changed.set()

    @property
    def serial(self) -> str:
        return f"{self.enrolment.credential.own.serial:x}"

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        await self.enrolment.obtain()
        async with asyncio.TaskGroup() as tasks:
            kept = [
                tasks.create_task(self.enrolment.keep(lambda *_: self.changed.set())),
                tasks.create_task(self.keeper.keep()),
            ]
            yield
            for one in kept:
                one.cancel()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of what it heard."""
        async with asyncio.timeout(SECONDS):
            while not holds():
                await self.changed.wait()
                self.changed.clear()


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    made = Authority(tmp_path / "ca", life=timedelta(minutes=4))
    async with made.serving() as serving:
        yield serving


def prepare(authority: Authority, number: int) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    root = make_root(key, "shop.example", authority.wall, timedelta(days=365), number)
    add_root(authority.directory, Issuer(root, key), PASSPHRASE)
    step(authority, "prepare", lambda bundle, *_: rotation.prepare(bundle, root))
    return root


def step(authority: Authority, what: str, decide: owner.Decide) -> None:
    owner.step(authority.documents, authority.signer, what, decide, authority.wall)


async def gated(authority: Authority, what: str, decide: owner.Decide) -> None:
    """Carry out a step as soon as no pod stands in the way."""
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(rotation.GateError):
                step(authority, what, decide)
                return
            await asyncio.sleep(0.1)


async def test_a_pod_lives_through_two_rotations_and_a_way_back(authority: Authority) -> None:
    pod = Pod(authority)
    async with pod.living():
        held = pod.enrolment.bundle
        await pod.until(lambda: bool(pod.lists))
        former = authority.root
        for number in (2, 3):
            serial, following = pod.serial, prepare(authority, number)
            await pod.until(lambda r=following: r in held.roots)  # type: ignore[misc]  # binds
            await gated(authority, "activate", rotation.activate)
            await pod.until(lambda s=serial: pod.serial != s)  # type: ignore[misc]  # binds
            assert held.bundle.active == following
            assert authority.events("renewed")
            gone = fingerprint(former)
            await gated(authority, "revoke", partial(_without, gone))
            await pod.until(lambda r=former: r not in held.roots)  # type: ignore[misc]  # binds
            assert pod.enrolment.credential.roots == (following,)
            former = following
        prepare(authority, 4)
        await gated(authority, "rollback", rotation.rollback)
        await pod.until(lambda: held.roots == (former,))
        assert pod.keeper.failures == 0
    forget_roots(authority.directory, held.roots)
    assert not (authority.directory / "root.key").exists()
    assert len(list((authority.directory / "roots").glob("*.key"))) == 1


def _without(
    gone: str, bundle: TrustBundle, standing: rotation.Standing, without: Iterable[str]
) -> TrustBundle:
    return rotation.revoke(bundle, gone, standing, without)


async def test_a_pod_whose_pin_is_withdrawn_needs_the_new_one_and_its_token_stays_with_it(
    authority: Authority,
) -> None:
    following = prepare(authority, 2)
    await gated(authority, "activate", rotation.activate)
    late = Pod(authority)
    await late.enrolment.obtain()  # a pin on a previous root is good
    assert late.enrolment.bundle.bundle.active == following
    step(authority, "taint", lambda b, *_: rotation.taint(b, fingerprint(authority.root)))
    async with asyncio.timeout(SECONDS):
        while "tainted" not in str(authority.events("bundle")):  # noqa: ASYNC110 - the server's own look
            await asyncio.sleep(0.05)
    pinned = Pod(authority)
    with pytest.raises(CaUnreachable, match="another root than ca_root_fingerprint says"):
        await pinned.enrolment._join(b"")
    authority.fingerprint = root_fingerprint(following.public_bytes(Encoding.DER))
    await Pod(authority).enrolment.obtain()


async def test_a_step_waits_for_the_pod_that_does_not_follow_and_names_it(
    authority: Authority,
) -> None:
    await join(authority, "web-2", "10.0.0.2")  # it never asks for a list
    pod = Pod(authority)
    async with pod.living():
        following = prepare(authority, 2)
        await pod.until(lambda: following in pod.enrolment.bundle.roots)
        async with asyncio.timeout(SECONDS):
            while True:
                with pytest.raises(rotation.GateError) as error:
                    step(authority, "activate", rotation.activate)
                if error.value.missing == ("shop/web-2",):
                    break
                await asyncio.sleep(0.05)


def withdraw(authority: Authority, kind: Kind, name: str) -> None:
    namespace = "" if kind is Kind.CERTIFICATE else "shop"
    entry = Entry(kind, namespace, name, int(authority.wall.timestamp()), "a test")
    owner.change_revocations(authority.documents, lambda found: found.adding(entry))


async def refusals(pod: Caller, token: str) -> set[str]:
    """Try every door of the CA."""
    answers = [await pod.post("/v1/renew"), await pod.post("/v1/sign", token), await pod.ask()]
    return {parse_error(body).code for _, body in answers}


@pytest.mark.parametrize(("kind", "name"), [(Kind.POD, "web-9"), (Kind.IDENTITY, "web")])
async def test_who_is_withdrawn_is_refused_at_every_door_and_peers_hear_of_it(
    authority: Authority, kind: Kind, name: str
) -> None:
    bad = await join(authority, "web-9", "10.0.0.9")
    token = authority.token("e" * 16, ["10.0.0.9"])
    pod = Pod(authority)
    async with pod.living():
        await pod.until(lambda: bool(pod.lists))
        if kind is Kind.IDENTITY:  # its own account: it hears of it before it is refused
            withdraw(authority, kind, "other")
            await pod.until(lambda: pod.lists[-1].revoked.service_accounts == ("other",))
            return
        withdraw(authority, kind, name)
        await pod.until(lambda: pod.lists[-1].revoked.pods == (name,))
        assert await refusals(bad, token) <= {"revoked", "key_reused", "address_held"}
        status, body = await bad.ask()
        assert (status, parse_error(body).code) == (403, "revoked")
        owner.change_revocations(
            authority.documents, lambda found: found.lifting((kind, "shop", name))
        )
        await pod.until(lambda: pod.lists[-1].revoked.pods == ())
    assert (await bad.ask())[0] == 200


async def test_a_withdrawn_certificate_is_refused_and_its_pod_joins_anew(
    authority: Authority,
) -> None:
    bad = await join(authority)
    assert bad.certificate is not None
    withdraw(authority, Kind.CERTIFICATE, f"{bad.certificate.serial_number:x}")
    status, body = await bad.post("/v1/renew", csr=Caller(authority, "x", "10.0.0.1", "shop").csr)
    assert (status, parse_error(body).code) == (403, "revoked")
    await bad.join()
    assert (await bad.ask())[0] == 200
