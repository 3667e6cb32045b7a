"""A real OpenBao for each test: one starts in a fifth of a second."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from support import openbao
from support.authority import DAY
from support.openbao import OpenBao

from ca.drivers.vault import Vault
from ca.drivers.vault_setup import apply
from ca.vault_plan import POLICY
from ca.vault_settings import VaultSettings, parse_vault_settings


class Configure(Protocol):
    """Makes the CA's settings; by default it has a token of the root's."""

    def __call__(self, **changes: str | list[str]) -> VaultSettings:
        """Change some keys."""


@pytest.fixture
def bao(tmp_path: Path) -> Iterator[OpenBao]:
    with openbao.running(tmp_path) as server:
        yield server


@pytest.fixture
def configure(bao: OpenBao) -> Configure:
    def make(**changes: str | list[str]) -> VaultSettings:
        secret = bao.folder / "secret"
        secret.touch(mode=0o600)
        if not secret.read_text():
            secret.write_text(bao.root_token)
        keys = {
            "trust_domain": "shop.example",
            "namespaces": ["shop"],
            "vault_addresses": [bao.address],
            "vault_ca_file": str(bao.ca_file),
            "vault_auth": "token",
            "vault_secret_file": str(secret),
        } | changes
        text = "\n".join(f"{key} = {value!r}" for key, value in keys.items())
        return parse_vault_settings(text, {}, "ca.toml")

    return make


@pytest.fixture
def settings(configure: Configure) -> VaultSettings:
    return configure()


@pytest.fixture
def operator(bao: OpenBao, settings: VaultSettings) -> Vault:
    """Return Vault as its administrator has it."""
    return Vault(settings, time.monotonic, token=bao.root_token)  # noqa: TID251 - a real server


@pytest.fixture
def prepared(bao: OpenBao, settings: VaultSettings, operator: Vault) -> VaultSettings:
    """Return settings of a CA whose Vault is as `vault-setup` leaves it, with a token of the CA's policy alone."""
    apply(operator, settings, DAY, lambda *_: None)
    Path(str(settings.secret_file)).write_text(bao.token(POLICY, ttl="1h"))
    return settings


@pytest.fixture
def vault(prepared: VaultSettings) -> Vault:
    """Return Vault as the CA has it."""
    return Vault(prepared, time.monotonic)  # noqa: TID251 - a real server
