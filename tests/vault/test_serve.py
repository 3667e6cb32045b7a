"""`tencrypt ca serve` with its key in a real OpenBao: pods join and renew, and an absence of Vault is sat out."""

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from support.openbao import OpenBao
from support.processes import Process, wait_for
from vault.conftest import Configure

from ca.messages import SignResponse
from ca.vault_settings import VaultSettings, to_text
from policy.certificate import read_pod_names
from proxy.credentials.credential import Credential, build_credential
from proxy.credentials.csr import make_key_and_csr
from proxy.drivers import ca_client
from proxy.drivers.ca_client import Ca, CaUnreachable

TENCRYPT = str(Path(sys.executable).parent / "tencrypt")
NAMED = (
    "--name",
    "web-1",
    "--namespace",
    "shop",
    "--service-account",
    "web",
    "--address",
    "10.0.0.1",
)


def tencrypt(*words: object, code: int = 0) -> str:
    done = subprocess.run(
        [TENCRYPT, "ca", *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


class Served:
    """A CA's directory beside its Vault, and its server while it runs."""

    def __init__(self, bao: OpenBao, settings: VaultSettings) -> None:
        self.directory = bao.folder / "ca"
        config = bao.folder / "ca.toml"
        config.write_text(to_text(settings), encoding="ascii")
        made = tencrypt("init", self.directory, "--config", config)
        self.fingerprint = re.findall(r"sha256:[0-9a-f]{64}", made)[0]
        with socket.socket() as opened:
            opened.bind(("127.0.0.1", 0))
            self.port = opened.getsockname()[1]
        self.address = f"https://127.0.0.1:{self.port}"
        self.ca = Ca(self.address, self.fingerprint, "shop.example")
        self.log = bao.folder / "serve"
        self.serve()

    def serve(self) -> None:
        """Start the server; its output begins anew."""
        where = ("--dir", str(self.directory), "--listen", f"127.0.0.1:{self.port}")
        self.process = Process([TENCRYPT, "ca", "serve", *where, "--ttl", "1h"], self.log)

    def is_ready(self) -> bool:
        return "ready at" in self.process.stdout

    def token(self) -> str:
        return tencrypt("token", "--dir", self.directory, *NAMED).strip()

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


def credential(key: EllipticCurvePrivateKey, response: SignResponse) -> Credential:
    return build_credential(key, "".join(response.chain).encode(), "".join(response.roots).encode())


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
    joined = await ca_client.obtain(served.ca, served.token(), csr)
    names = read_pod_names(leaf(joined))
    assert (names.pod, names.identity.uri) == ("web-1", "spiffe://shop.example/ns/shop/sa/web")
    life = leaf(joined).not_valid_after_utc - leaf(joined).not_valid_before_utc
    assert 3600 <= life.total_seconds() <= 3600 + 301
    _, again = make_key_and_csr()
    renewed = await ca_client.renew(served.ca, credential(key, joined), again)
    assert leaf(renewed).serial_number != leaf(joined).serial_number
    assert served.events()[-2:] == ["issued", "renewed"]
    assert not list(served.directory.glob("*.key"))
    assert "trust domain  shop.example" in tencrypt("show", "--dir", served.directory)


@pytest.mark.usefixtures("connections_end")
async def test_vault_that_is_away_is_not_ready_and_not_dead(bao: OpenBao, served: Served) -> None:
    token, (key, csr) = served.token(), make_key_and_csr()
    joined = await ca_client.obtain(served.ca, token, csr)
    assert served.get("/readyz").status_code == 200
    bao.seal()
    patient = Ca(served.address, served.fingerprint, "shop.example", 15.0)
    with pytest.raises(CaUnreachable, match="what signs for the CA does not answer"):
        await ca_client.obtain(patient, token, csr)
    wait_for("the server to notice", lambda: "signer_away" in served.events(), 30)
    # Its lease is the CA's own affair: a pod that stops needs no signer.
    async with ca_client.line(served.ca, credential(key, joined)) as line:
        await line.release()
    away = served.get("/readyz")
    assert (away.status_code, away.headers["Retry-After"]) == (503, "1")
    assert served.get("/healthz").status_code == 200
    bao.unseal()
    wait_for("the server to notice", lambda: "signer_back" in served.events(), 30)
    assert served.get("/readyz").status_code == 200
    assert (await ca_client.obtain(served.ca, token, csr)).chain


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
    said = tencrypt("init", bao.folder / "ca", "--config", config, code=1)
    assert said.startswith("tencrypt: ca init: tencrypt-pki/issuer/default/json: ")
    assert not (bao.folder / "ca").exists()
