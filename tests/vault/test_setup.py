"""`tencrypt ca vault-setup` against a real server: nothing more than needed, and nothing less."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import openbao
from support.authority import DAY
from support.openbao import OpenBao

from ca.drivers.vault import Vault
from ca.drivers.vault_setup import apply, check
from ca.signer import SignerError
from ca.vault_plan import plan
from ca.vault_settings import VaultSettings

TENCRYPT = Path(sys.executable).parent / "tencrypt"
POD_ROLE = "tencrypt-pki/roles/tencrypt-pod"

MISSING = [
    "sys/mounts/tencrypt-pki is missing",
    "sys/mounts/tencrypt-kv is missing",
    "sys/policies/acl/tencrypt-ca is missing",
    "sys/policies/acl/tencrypt-ca-operator is missing",
]


def told(vault: Vault, settings: VaultSettings) -> list[str]:
    lines: list[str] = []
    apply(
        vault, settings, DAY, lambda number, total, text: lines.append(f"{number}/{total} {text}")
    )
    return lines


def test_what_is_missing_is_made_once(operator: Vault, settings: VaultSettings) -> None:
    assert check(operator, settings, DAY) == MISSING
    first = told(operator, settings)
    assert [line.split()[0] for line in first] == [f"{number}/12" for number in range(1, 13)]
    assert check(operator, settings, DAY) == []
    again = told(operator, settings)
    assert all(line.endswith(("stands", "which stays")) for line in again)


DRIFT = {
    "a wildcard identity": ({"allowed_uri_sans": ["spiffe://*"]}, "allowed_uri_sans is spiffe://*"),
    "any name": ({"allow_any_name": True}, "allow_any_name is True, and False is wanted"),
    "names of the CSR": ({"use_csr_sans": True}, "use_csr_sans is True"),
    "a longer life": ({"max_ttl": "48h"}, "max_ttl is 172800, and 86400 is wanted"),
    "another key": ({"key_type": "rsa", "key_bits": 2048}, "key_type is rsa, and ec is wanted"),
    "certificates that sign": ({"key_usage": ["DigitalSignature", "CertSign"]}, "key_usage is"),
    "not for clients": ({"client_flag": False}, "client_flag is False, and True is wanted"),
}


@pytest.mark.parametrize(("changes", "said"), DRIFT.values(), ids=DRIFT)
def test_a_role_that_was_changed_is_told_by_its_field_and_put_right(
    bao: OpenBao,
    operator: Vault,
    settings: VaultSettings,
    changes: dict[str, object],
    said: str,
) -> None:
    told(operator, settings)
    pod = next(step for step in plan(settings, DAY).roles if step.path == POD_ROLE)
    bao.write(POD_ROLE, {**pod.fields, **changes})
    lines = check(operator, settings, DAY)
    assert len(lines) == len(changes)
    assert lines[0].startswith(f"{POD_ROLE}: {said}")
    assert f"5/12 {POD_ROLE}" not in told(operator, settings)
    assert check(operator, settings, DAY) == []


def test_a_policy_that_allows_more_is_told_and_put_right(
    bao: OpenBao, operator: Vault, settings: VaultSettings
) -> None:
    told(operator, settings)
    bao.write("sys/policies/acl/tencrypt-ca", {"policy": 'path "*" { capabilities = ["sudo"] }'})
    [line] = check(operator, settings, DAY)
    assert line.startswith('sys/policies/acl/tencrypt-ca: policy is path "*"')
    told(operator, settings)
    assert check(operator, settings, DAY) == []


def test_records_that_are_there_stay(
    bao: OpenBao, operator: Vault, settings: VaultSettings
) -> None:
    told(operator, settings)
    path = "tencrypt-kv/data/namespaces/shop"
    bao.write(path, {"data": {"a": "b"}, "options": {"cas": 1}})
    told(operator, settings)
    assert bao.read(path)["data"]["data"] == {"a": "b"}


def test_a_mount_of_another_kind_is_not_touched(
    bao: OpenBao, operator: Vault, settings: VaultSettings
) -> None:
    bao.write("sys/mounts/tencrypt-kv", {"type": "kv"})
    with pytest.raises(SignerError, match="version is None, and 2 is wanted: choose another path"):
        told(operator, settings)


def test_an_issuer_that_is_there_stays(
    bao: OpenBao, operator: Vault, settings: VaultSettings
) -> None:
    bao.write("sys/mounts/tencrypt-pki", {"type": "pki"})
    bao.write("tencrypt-pki/root/generate/internal", {"common_name": "The company's root"})
    before = bao.list("tencrypt-pki/issuers")
    assert "which stays" in told(operator, settings)[1]
    assert bao.list("tencrypt-pki/issuers") == before
    assert check(operator, settings, DAY) == []


@pytest.fixture
def config(bao: OpenBao) -> Path:
    path = bao.folder / "ca.toml"
    path.write_text(
        f"""trust_domain = "shop.example"
namespaces = ["shop", "bank"]
vault_addresses = ["{bao.address}"]
vault_ca_file = "{bao.ca_file}"
vault_auth = "kubernetes"
vault_role = "tencrypt-ca"
""",
        encoding="ascii",
    )
    return path


def run(config: Path, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(TENCRYPT), "ca", "vault-setup", "--config", str(config), *words]
    environment = {key: value for key, value in os.environ.items() if "TOKEN" not in key}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment | ({"VAULT_TOKEN": token} if token else {}),
    )


def test_printed_commands_do_what_is_wanted(bao: OpenBao, config: Path) -> None:
    printed = run(config)
    assert printed.returncode == 0
    script = f'vault() {{ {openbao.program()} "$@"; }}\n{printed.stdout}'
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(bao.folder),
        **{f"{name}_ADDR": bao.address for name in ("VAULT", "BAO")},
        **{f"{name}_CACERT": str(bao.ca_file) for name in ("VAULT", "BAO")},
        **{f"{name}_TOKEN": bao.root_token for name in ("VAULT", "BAO")},
    }
    subprocess.run(["sh", "-eu"], input=script, text=True, check=True, env=environment, timeout=60)
    checked = run(config, "--check", token=bao.root_token)
    assert (checked.returncode, checked.stdout) == (0, "Vault holds what it must.\n")


def test_apply_and_check_by_the_command_line(bao: OpenBao, config: Path) -> None:
    missing = run(config, "--check", token=bao.root_token)
    assert (missing.returncode, missing.stdout) == (6, "\n".join(MISSING) + "\n")
    done = run(config, "--apply", token=bao.root_token)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "[1/13] sys/mounts/tencrypt-pki: mounted"
    checked = run(config, "--check", "--json", token=bao.root_token)
    assert (checked.returncode, checked.stdout) == (0, '{\n  "differences": []\n}\n')


def test_who_may_not_is_told_and_nothing_is_half_done(bao: OpenBao, config: Path) -> None:
    nobody = run(config, "--apply")
    assert nobody.returncode == 2
    assert nobody.stderr == (
        "tencrypt: ca vault-setup: set VAULT_TOKEN or BAO_TOKEN to an administrator's\n"
    )
    stranger = run(config, "--apply", token="wrong")
    assert stranger.returncode == 1
    assert stranger.stderr == (
        "tencrypt: ca vault-setup: sys/mounts: permission denied: the policy of this token does not allow it\n"
    )
    assert "tencrypt-pki/" not in bao.read("sys/mounts")["data"]


def test_a_vault_that_does_not_answer_is_told_in_one_line(bao: OpenBao, config: Path) -> None:
    bao.kill()
    away = run(config, "--check", token=bao.root_token)
    assert away.returncode == 1
    assert away.stderr == f"tencrypt: ca vault-setup: {bao.address}: sys/mounts: no connection\n"
