"""Brings Vault to what `ca.vault_plan` says, and looks what differs; as the operator, whose token is at hand."""

from collections.abc import Callable
from datetime import timedelta

from ca.drivers.vault import Json, Vault
from ca.vault_plan import Step, VaultPlan, differences, plan
from ca.vault_settings import VaultSettings

Told = Callable[[int, int, str], None]
"""Hears of each step: its number, of how many, and what was done."""


def check(vault: Vault, settings: VaultSettings, life: timedelta) -> list[str]:
    """Return what in Vault is not as planned, a line each; raises `SignerError`."""
    wanted = plan(settings, life)
    found = _mount(vault, wanted.mount)
    if found is None:
        return differences(wanted.mount, None)
    lines = differences(wanted.mount, found)
    if not _has_issuer(vault, settings):
        lines.append(f"{settings.pki_mount}: the engine has no issuer")
    for step in (*wanted.roles, wanted.policy):
        lines += differences(step, _data(vault, step.path))
    return lines


def apply(vault: Vault, settings: VaultSettings, life: timedelta, told: Told) -> VaultPlan:
    """Make what is missing, and put right what differs; a second time changes nothing. Raises `SignerError`."""
    wanted = plan(settings, life)
    total = len(wanted.steps)
    told(1, total, _apply_mount(vault, wanted.mount))
    if _has_issuer(vault, settings):
        told(2, total, f"{settings.pki_mount}: has an issuer, which stays")
    else:
        vault.write(wanted.root.path, wanted.root.fields)
        told(2, total, f"{wanted.root.path}: made the root")
    for number, step in enumerate((*wanted.roles, wanted.policy), 3):
        if differences(step, _data(vault, step.path)):
            vault.write(step.path, step.fields)
            told(number, total, f"{step.path}: written")
        else:
            told(number, total, f"{step.path}: stands")
    return wanted


def _apply_mount(vault: Vault, step: Step) -> str:
    found = _mount(vault, step)
    if found is None:
        config = {"max_lease_ttl": step.fields["max_lease_ttl"]}
        vault.write(step.path, {"type": step.fields["type"], "config": config})
        return f"{step.path}: mounted"
    if differences(step, found):
        vault.write(f"{step.path}/tune", {"max_lease_ttl": step.fields["max_lease_ttl"]})
        return f"{step.path}: tuned"
    return f"{step.path}: stands"


def _mount(vault: Vault, step: Step) -> Json | None:
    mounts = vault.read("sys/mounts") or {}
    found = mounts.get("data", mounts).get(f"{step.path.removeprefix('sys/mounts/')}/")
    if found is None:
        return None
    return {"type": found["type"], "max_lease_ttl": found["config"]["max_lease_ttl"]}


def _has_issuer(vault: Vault, settings: VaultSettings) -> bool:
    return bool(vault.names(f"{settings.pki_mount}/issuers"))


def _data(vault: Vault, path: str) -> Json | None:
    found = vault.read(path)
    if found is None:
        return None
    data: Json = found.get("data", found)
    return data
