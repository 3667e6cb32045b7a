"""Brings Vault to what `ca.vault_plan` says, and looks what differs; as the operator, whose token is at hand."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from ca.drivers.vault import Json, Vault, VaultRefusedError
from ca.signer import SignerError
from ca.vault_plan import Step, VaultPlan, differences, plan
from ca.vault_settings import VaultSettings

_READY_ATTEMPTS: Final = 40
_READY_PAUSE: Final = 0.25

Told = Callable[[int, int, str], None]
"""Hears of each step: its number, of how many, and what was done."""


def check(vault: Vault, settings: VaultSettings, life: timedelta) -> list[str]:
    """Return what in Vault is not as planned, a line each; raises `SignerError`."""
    wanted = plan(settings, life)
    lines: list[str] = []
    found = _mount(vault, wanted.mount)
    lines += differences(wanted.mount, found)
    if found is not None:
        if not _has_issuer(vault, settings):
            lines.append(f"{settings.pki_mount}: the engine has no issuer")
        for step in wanted.roles:
            lines += differences(step, _data(vault, step.path))
    found = _mount(vault, wanted.kv)
    lines += differences(wanted.kv, found)
    if found is not None:
        lines += differences(wanted.kv_config, _data(vault, wanted.kv_config.path))
        for step in wanted.documents:
            lines += differences(step, _data(vault, step.path))
    for step in wanted.policies:
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
    for number, step in enumerate(wanted.steps[2:], 3):
        told(number, total, _apply(vault, wanted, step))
    return wanted


def _apply(vault: Vault, wanted: VaultPlan, step: Step) -> str:
    if step is wanted.kv:
        return _apply_mount(vault, step)
    if step in wanted.documents:
        if _data(vault, step.path) is not None:
            return f"{step.path}: stands"
        _when_ready(vault, step.path, {"data": step.fields, "options": {"cas": 0}})
        return f"{step.path}: written"
    if differences(step, _data(vault, step.path)):
        _when_ready(vault, step.path, step.fields)
        return f"{step.path}: written"
    return f"{step.path}: stands"


def _when_ready(vault: Vault, path: str, fields: Mapping[str, object]) -> None:
    """Write as soon as a KV engine that was just mounted takes it."""
    for left in reversed(range(_READY_ATTEMPTS)):
        try:
            vault.write(path, fields)
        except VaultRefusedError as error:
            if "upgrad" not in str(error).lower() or not left:
                raise
        else:
            return
        time.sleep(_READY_PAUSE)


def _apply_mount(vault: Vault, step: Step) -> str:
    found = _mount(vault, step)
    if found is None:
        fields = step.fields
        if fields["type"] == "kv":
            vault.write(step.path, {"type": "kv", "options": {"version": fields["version"]}})
        else:
            config = {"max_lease_ttl": fields["max_lease_ttl"]}
            vault.write(step.path, {"type": fields["type"], "config": config})
        return f"{step.path}: mounted"
    lines = differences(step, found)
    if not lines:
        return f"{step.path}: stands"
    if step.fields["type"] == "kv" or found["type"] != step.fields["type"]:
        raise SignerError(f"{lines[0]}: choose another path")
    vault.write(f"{step.path}/tune", {"max_lease_ttl": step.fields["max_lease_ttl"]})
    return f"{step.path}: tuned"


def _mount(vault: Vault, step: Step) -> Json | None:
    mounts = vault.read("sys/mounts") or {}
    found = mounts.get("data", mounts).get(f"{step.path.removeprefix('sys/mounts/')}/")
    if found is None:
        return None
    return {
        "type": found["type"],
        "max_lease_ttl": found["config"]["max_lease_ttl"],
        "version": (found.get("options") or {}).get("version"),
    }


def _has_issuer(vault: Vault, settings: VaultSettings) -> bool:
    return bool(vault.names(f"{settings.pki_mount}/issuers"))


def _data(vault: Vault, path: str) -> Json | None:
    found = vault.read(path)
    if found is None:
        return None
    data: Json = found.get("data", found)
    return data
