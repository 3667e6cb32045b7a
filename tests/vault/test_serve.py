"""`tencrypt ca serve` with its key in a real OpenBao: pods join and renew, and an absence of Vault is sat out."""

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from support.joining import built, obtain, renew, roots_of
from support.openbao import OpenBao
from support.processes import Process, wait_for
from vault.conftest import Configure

from ca.lists import parse_envelope, parse_roster
from ca.messages import SignResponse
from ca.vault_plan import OPERATOR
from ca.vault_settings import VaultSettings, to_text
from policy.certificate import read_pod_names
from proxy.credentials.csr import make_key_and_csr
from proxy.credentials.trust import Believed
from proxy.drivers import ca_client
from proxy.drivers.ca_client import Ca, CaRefused, CaUnreachable

TENCRYPT = str(Path(sys.executable).parent / "tencrypt")


def tencrypt(*words: object, code: int = 0, token: str = "") -> str:
    done = subprocess.run(
        [TENCRYPT, "ca", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "VAULT_TOKEN": token},
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


class Served:
    """A CA's directory beside its Vault, and one server of it while that runs."""

    def __init__(self, bao: OpenBao, settings: VaultSettings, name: str = "ca") -> None:
        self.directory = bao.folder / name
        config = bao.folder / "ca.toml"
        config.write_text(to_text(settings), encoding="ascii")
        self.owner = bao.token(OPERATOR, ttl="1h")
        made = tencrypt("init", self.directory, "--config", config, token=self.owner)
        self.fingerprint = re.findall(r"sha256:[0-9a-f]{64}", made)[0]
        with socket.socket() as opened:
            opened.bind(("127.0.0.1", 0))
            self.port = opened.getsockname()[1]
        self.address = f"https://127.0.0.1:{self.port}"
        self.ca = Ca(self.address, self.fingerprint, "shop.example")
        self.log = bao.folder / f"serve-{name}"
        self.serve()

    def serve(self) -> None:
        """Start the server; its output begins anew."""
        where = ("--dir", str(self.directory), "--listen", f"127.0.0.1:{self.port}")
        self.process = Process([TENCRYPT, "ca", "serve", *where, "--ttl", "1h"], self.log)

    def is_ready(self) -> bool:
        return "ready at" in self.process.stdout

    def token(self, pod: str = "web-1", address: str = "10.0.0.1", *words: str) -> str:
        """Make a join token as the CA's owner."""
        named = ("--namespace", "shop", "--service-account", "web")
        made = ("token", "--dir", self.directory, "--name", pod, "--address", address)
        return tencrypt(*made, *named, *words, token=self.owner).strip()

    def events(self) -> list[str]:
        lines = self.process.stderr.splitlines()
        return [json.loads(line)["event"] for line in lines if line.startswith("{")]

    def get(self, path: str) -> requests.Response:
        # What answers is known by the CA client above; these two paths are for a kubelet, which verifies nothing.
        with pytest.warns(Warning, match="certificate verification"):
            return requests.get(f"{self.address}{path}", verify=False, timeout=10)  # noqa: S501 - as said


@pytest.fixture
def served(bao: OpenBao, prepared: VaultSettings) -> Iterator[Served]:
    made = Served(bao, prepared)
    try:
        made.process.wait_until("ready", made.is_ready)
        yield made
    finally:
        made.process.stop()


def leaf(response: SignResponse) -> x509.Certificate:
    return x509.load_pem_x509_certificate(response.chain[0].encode())


@pytest.fixture
async def connections_end() -> AsyncIterator[None]:
    """Wait at the end until no connection is left: TLS says good-bye after its client has what it wanted."""
    yield
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while len(loop._selector.get_map()) > 1:  # type: ignore[attr-defined]  # noqa: ASYNC110 - no public name, and no event says so
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("connections_end")
async def test_a_pod_joins_and_renews(served: Served) -> None:
    key, csr = make_key_and_csr()
    joined = await obtain(served.ca, served.token(), csr)
    names = read_pod_names(leaf(joined))
    assert (names.pod, names.identity.uri) == ("web-1", "spiffe://shop.example/ns/shop/sa/web")
    life = leaf(joined).not_valid_after_utc - leaf(joined).not_valid_before_utc
    assert 3600 <= life.total_seconds() <= 3600 + 301
    _, again = make_key_and_csr()
    renewed = await renew(served.ca, built(key, joined), again)
    assert leaf(renewed).serial_number != leaf(joined).serial_number
    assert served.events()[-2:] == ["issued", "renewed"]
    assert not list(served.directory.glob("*.key"))
    assert "trust domain  shop.example" in tencrypt(
        "show", "--dir", served.directory, token=served.owner
    )


@pytest.mark.usefixtures("connections_end")
async def test_vault_that_is_away_is_not_ready_and_not_dead(bao: OpenBao, served: Served) -> None:
    token, (_, csr) = served.token(), make_key_and_csr()
    await obtain(served.ca, token, csr)
    assert served.get("/readyz").status_code == 200
    bao.seal()
    patient = Ca(served.address, served.fingerprint, "shop.example", 15.0)
    with pytest.raises(CaUnreachable, match="what signs for the CA does not answer"):
        await obtain(patient, token, csr)
    wait_for("the server to notice", lambda: "signer_away" in served.events(), 30)
    away = served.get("/readyz")
    assert (away.status_code, away.headers["Retry-After"]) == (503, "1")
    assert served.get("/healthz").status_code == 200
    bao.unseal()
    wait_for("the server to notice", lambda: "signer_back" in served.events(), 30)
    assert served.get("/readyz").status_code == 200
    assert (await obtain(served.ca, token, csr)).chain


def test_a_server_that_starts_before_vault_waits_for_it(
    bao: OpenBao, prepared: VaultSettings
) -> None:
    served = Served(bao, prepared)
    served.process.wait_until("ready", served.is_ready)
    served.process.stop()
    bao.kill()
    served.serve()
    try:
        wait_for("an attempt", lambda: "signer_away" in served.events(), 30)
        assert not served.is_ready()
        bao.start()
        served.process.wait_until("ready", served.is_ready, 30)
    finally:
        assert served.process.stop() == 0


def test_it_ends_in_order_while_it_waits_for_vault(bao: OpenBao, prepared: VaultSettings) -> None:
    served = Served(bao, prepared)
    served.process.wait_until("ready", served.is_ready)
    served.process.stop()
    bao.kill()
    served.serve()
    served.process.wait_until("an attempt", lambda: "signer_away" in served.events(), 30)
    assert served.process.stop() == 0


def test_init_says_what_vault_lacks(bao: OpenBao, configure: Configure) -> None:
    config = bao.folder / "ca.toml"
    config.write_text(to_text(configure()), encoding="ascii")
    said = tencrypt("init", bao.folder / "ca", "--config", config, code=1, token=bao.root_token)
    assert said.startswith("tencrypt: ca init: tencrypt-pki/issuer/default/json: ")
    assert not (bao.folder / "ca").exists()


@pytest.fixture
def both(bao: OpenBao, prepared: VaultSettings) -> Iterator[tuple[Served, Served]]:
    """Give two servers of one CA."""
    made = Served(bao, prepared, "one"), Served(bao, prepared, "two")
    try:
        for one in made:
            one.process.wait_until("ready", one.is_ready)
        yield made
    finally:
        for one in made:
            one.process.stop()


async def tried(served: Served, token: str) -> str:
    """Ask for a certificate; say what came of it."""
    try:
        await obtain(served.ca, token, make_key_and_csr()[1])
    except CaRefused as error:
        return error.code
    return "issued"


@pytest.mark.usefixtures("connections_end")
async def test_two_servers_that_race_grant_each_use_and_each_address_once(
    both: tuple[Served, Served],
) -> None:
    one, _ = both
    token = one.token("web-1", "10.0.0.1", "--uses", "2")
    came = await asyncio.gather(*(tried(served, token) for served in both * 3))
    assert sorted(came) == ["issued"] * 2 + ["spent_token"] * 4
    rivals = [one.token(f"db-{number}", "10.0.0.9") for number in range(4)]
    asked = (tried(both[number % 2], rival) for number, rival in enumerate(rivals))
    assert sorted(await asyncio.gather(*asked)) == ["address_held"] * 3 + ["issued"]


@pytest.mark.usefixtures("connections_end")
async def test_a_pod_that_joined_at_one_server_renews_and_has_its_roster_at_the_other(
    both: tuple[Served, Served],
) -> None:
    one, two = both
    key, csr = make_key_and_csr()
    joined = built(key, await obtain(one.ca, one.token(), csr))
    async with ca_client.line(two.ca, Believed(joined.roots), joined) as line:
        roster = parse_roster(parse_envelope(await line.roster(0, None, 5) or b"").payload)
        other = one.token("web-2", "10.0.0.2")
        asking = asyncio.get_running_loop().create_task(line.roster(roster.version, None, 10))
        await obtain(one.ca, other, make_key_and_csr()[1])
        newer = parse_roster(parse_envelope(await asking or b"").payload)
    assert [entry.pod for entry in roster.entries] == ["web-1"]
    assert [entry.pod for entry in newer.entries] == ["web-1", "web-2"]
    one.process.signal(SIGKILL)
    one.process.finish()
    renewed = await renew(two.ca, joined, make_key_and_csr()[1])
    assert leaf(renewed).serial_number != joined.chain[0].serial_number


@pytest.mark.usefixtures("connections_end")
async def test_servers_killed_in_turn_leave_no_pod_without_its_lease(
    both: tuple[Served, Served],
) -> None:
    """Each of twenty pods joins wherever a server lives; what was answered is on record."""
    issued = 0
    for number in range(20):
        victim, other = both if number % 2 else both[::-1]
        token = other.token(f"web-{number}", f"10.0.1.{number + 1}")
        asking = asyncio.get_running_loop().create_task(tried(victim, token))
        await asyncio.sleep(number * 0.002)  # somewhere on the way of the request
        victim.process.signal(SIGKILL)
        victim.process.finish()
        try:
            issued += await asking == "issued"
        except CaUnreachable:
            assert await tried(other, token) == "issued"  # it comes back by itself
            issued += 1
        victim.serve()
        await asyncio.to_thread(victim.process.wait_until, "ready", victim.is_ready)
    assert issued == 20
    shown = json.loads(tencrypt("show", "--dir", both[0].directory, "--json", token=both[0].owner))
    assert len(shown["leases"]) == 20


@pytest.mark.usefixtures("connections_end")
async def test_what_vault_revokes_is_on_the_next_list(bao: OpenBao, served: Served) -> None:
    key, csr = make_key_and_csr()
    joined = built(key, await obtain(served.ca, served.token(), csr))
    other = built(*await joined_as(served, "web-2", "10.0.0.2"))
    digits = f"{other.own.serial:x}"
    digits = digits.rjust(len(digits) + len(digits) % 2, "0")
    colons = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
    async with ca_client.line(served.ca, Believed(joined.roots), joined) as line:
        before = parse_roster(parse_envelope(await line.roster(0, None, 5) or b"").payload)
        bao.write("tencrypt-pki/revoke", {"serial_number": colons})
        newer = await asyncio.wait_for(line.roster(before.version, None, 10), 5)
    assert parse_roster(parse_envelope(newer or b"").payload).revoked.serials == (
        f"{other.own.serial:x}",
    )
    with pytest.raises(CaRefused, match="revoked"):
        await renew(served.ca, other, make_key_and_csr()[1])


async def joined_as(
    served: Served, pod: str, address: str
) -> tuple[EllipticCurvePrivateKey, SignResponse]:
    key, csr = make_key_and_csr()
    return key, await obtain(served.ca, served.token(pod, address), csr)


def active(served: Served) -> str:
    words = ("rotate", "status", "--dir", served.directory, "--json")
    roots = json.loads(tencrypt(*words, token=served.owner))["roots"]
    (found,) = (one["fingerprint"] for one in roots if one["state"] == "active")
    return str(found)


@pytest.mark.usefixtures("connections_end")
async def test_roots_rotate_in_vault_whichever_server_a_pod_asks(
    both: tuple[Served, Served],
) -> None:
    one, two = both
    pod = built(*await joined_as(one, "web-1", "10.0.0.1"))

    def rotate(step: str, *options: str, code: int = 0) -> str:
        return tencrypt(
            "rotate", step, "--dir", one.directory, *options, token=one.owner, code=code
        )

    former = active(one)
    rotate("prepare")
    refused = rotate("activate", code=6)
    assert "shop/web-1" in refused
    assert "1 pod do not go by the present roots yet: nothing was changed" in refused
    rotate("activate", "--without", "shop/web-1")
    following = active(two)
    assert following != former
    # The pin on the former root is good for joining, at either server, and what is issued is under the new one.
    for number, served in enumerate(both, 2):
        await until(served, following)
        late = built(*await joined_as(served, f"web-{number}", f"10.0.0.{number}"))
        late.chain[-1].verify_directly_issued_by(root_of(late.roots, following))
    # Who was left behind names the root that it knows, and hears of the new one.
    renewed = await renew(two.ca, pod, make_key_and_csr()[1])
    leaf(renewed).verify_directly_issued_by(root_of(roots_of(renewed), following))
    rotate("revoke", "--root", former, "--force", "a test")
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(CaRefused, CaUnreachable):
                await ca_client.find_root(one.ca)
                await asyncio.sleep(0.1)
                continue
            break
    pinned = replace(two.ca, fingerprint=f"sha256:{following}")
    assert (await ca_client.find_root(pinned)).fingerprint(hashes.SHA256()).hex() == following


def root_of(roots: tuple[x509.Certificate, ...], fingerprint: str) -> x509.Certificate:
    (found,) = (root for root in roots if root.fingerprint(hashes.SHA256()).hex() == fingerprint)
    return found


async def until(served: Served, fingerprint: str) -> None:
    """Wait until a server shows itself under a root."""
    pinned = replace(served.ca, fingerprint=f"sha256:{fingerprint}")
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(CaUnreachable):
                await ca_client.find_root(pinned)
                return
            await asyncio.sleep(0.1)
