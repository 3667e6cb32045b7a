"""The project's CA as pods meet it: all of a project's pods join at once, as after a power cut.

Each pod does what a proxy does (the roots, then a certificate by its token, over two TLS connections), and asks again
as a proxy does where the CA is busy. Once with the CA's key and records in a directory, once in a real OpenBao. Nothing
but CPU and loopback is between them: pods and CA share this machine.
"""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from random import Random
from time import perf_counter, time
from typing import Final

from support import openbao
from support.authority import make_claims
from support.joining import obtain
from support.processes import HarnessError, Process, run

from bench import machine
from ca.documents import Documents
from ca.drivers.file_documents import FileDocuments
from ca.drivers.tokens import make_token
from ca.drivers.vault import Vault
from ca.drivers.vault_documents import VaultDocuments
from ca.vault_plan import OPERATOR, POLICY
from ca.vault_settings import parse_vault_settings
from proxy.credentials.csr import make_key_and_csr
from proxy.drivers.ca_client import Ca, CaUnreachable

TENCRYPT: Final = Path(sys.executable).parent / "tencrypt"
FILE: Final = "directory"
VAULT: Final = "OpenBao"
PODS: Final = 2000
PATIENCE: Final = 120.0
FIRST: Final = ip_address("10.128.0.1")
LONGEST_PAUSE: Final = 3.0
"""Seconds: as a proxy at its start (`proxy.drivers.enrolment`), it doubles its pauses up to this."""


@dataclass
class Crowd:
    """What became of the pods: how often each was asked to come back."""

    retries: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Issuance:
    """How long until all pods have their certificates, and what one costs the CA."""

    name: str = "issuance"
    metrics: tuple[str, ...] = ("join_all", "join_rate", "join_cpu", "join_retries")
    once: bool = True

    def prepare(self) -> None:
        """Have OpenBao."""
        openbao.program()

    def contestants(self) -> tuple[str, ...]:
        """Give where the CA's key and records are."""
        return FILE, VAULT

    def run(self, contestant: str, _seconds: float) -> dict[str, float]:
        """Let all join; seconds, certificates a second, milliseconds of the CA's CPU for one."""
        with (
            tempfile.TemporaryDirectory(prefix="tencrypt-bench-ca-") as folder,
            (_of_directory if contestant == FILE else _of_vault)(Path(folder)) as served,
        ):
            tokens = [_token(served.documents, number) for number in range(PODS)]
            asked = [(token, make_key_and_csr()[1]) for token in tokens]
            crowd, before = Crowd(), machine.processor_seconds([served.pid])
            begin = perf_counter()
            asyncio.run(_join_all(served.ca, asked, crowd))
            took = perf_counter() - begin
            spent = machine.processor_seconds([served.pid]) - before
        if crowd.failures:
            raise HarnessError(f"{len(crowd.failures)} pods failed: {crowd.failures[0]}")
        return {
            "join_all": took,
            "join_rate": PODS / took,
            "join_cpu": spent / PODS * 1e3,
            "join_retries": crowd.retries / PODS,
        }


@dataclass(frozen=True)
class Served:
    """A CA that answers."""

    ca: Ca
    documents: Documents
    pid: int


async def _join_all(ca: Ca, asked: list[tuple[str, bytes]], crowd: Crowd) -> None:
    drawn = Random(1)  # noqa: S311 - a run repeats
    await asyncio.gather(*(_join(ca, *one, crowd, drawn) for one in asked))


async def _join(ca: Ca, token: str, csr: bytes, crowd: Crowd, drawn: Random) -> None:
    pause, until = 0.2, perf_counter() + PATIENCE
    while True:
        try:
            await obtain(ca, token, csr)
        except CaUnreachable as error:
            if perf_counter() > until:
                crowd.failures.append(str(error))
                return
        else:
            return
        crowd.retries += 1
        await asyncio.sleep(pause * (0.5 + drawn.random() / 2))
        pause = min(2 * pause, LONGEST_PAUSE)


def _token(documents: Documents, number: int) -> str:
    claims = make_claims(
        f"{number:016x}",
        pod=f"web-{number:04}",
        addresses=(FIRST + number,),
        expires=int(time()) + 3600,
    )
    return make_token(documents, claims)


@contextmanager
def _of_directory(folder: Path) -> Iterator[Served]:
    secret = folder / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("correct horse battery staple\n", encoding="ascii")
    words = ("--trust-domain", "shop.example", "--passphrase-file", secret)
    made = run([TENCRYPT, "ca", "init", folder / "ca", *words]).stdout
    with _serving(folder, made, ["--passphrase-file", secret]) as (ca, pid):
        yield Served(ca, FileDocuments(folder / "ca"), pid)


@contextmanager
def _of_vault(folder: Path) -> Iterator[Served]:
    with openbao.running(folder) as bao:
        config, secret = folder / "ca.toml", folder / "secret"
        secret.touch(mode=0o600)
        config.write_text(
            f"""trust_domain = "shop.example"
namespaces = ["shop"]
vault_addresses = ["{bao.address}"]
vault_ca_file = "{bao.ca_file}"
vault_auth = "token"
vault_secret_file = "{secret}"
""",
            encoding="ascii",
        )
        setup: list[str | Path] = [TENCRYPT, "ca", "vault-setup", "--config", config, "--apply"]
        run(setup, env=_with_token(bao.root_token))
        secret.write_text(bao.token(POLICY, ttl="1h"), encoding="ascii")
        owner = bao.token(OPERATOR, ttl="1h")
        init: list[str | Path] = [TENCRYPT, "ca", "init", folder / "ca", "--config", config]
        made = run(init, env=_with_token(owner)).stdout
        settings = parse_vault_settings(config.read_text(encoding="ascii"), {}, None)
        vault = Vault(settings, perf_counter, token=owner)
        with _serving(folder, made, []) as (ca, pid):
            yield Served(ca, VaultDocuments(vault, settings.kv_mount), pid)


def _with_token(token: str) -> dict[str, str]:
    return {**os.environ, "VAULT_TOKEN": token}


@contextmanager
def _serving(folder: Path, made: str, words: list[str | Path]) -> Iterator[tuple[Ca, int]]:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    command: list[str | Path] = [TENCRYPT, "ca", "serve", "--dir", folder / "ca"]
    process = Process([*command, "--listen", f"127.0.0.1:{port}", *words], folder / "serve")
    try:
        process.wait_until("ready", lambda: "ready at" in process.stdout)
        fingerprint = made.rsplit(maxsplit=1)[-1]
        yield Ca(f"https://127.0.0.1:{port}", fingerprint, "shop.example"), process.pid
    finally:
        process.stop()
