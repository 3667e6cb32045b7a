"""How the CA finds Vault: each mistake is one line that says where, what, and what is accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.vault_settings import (
    KEYS,
    SERVICE_ACCOUNT_TOKEN,
    Auth,
    VaultSettings,
    parse_vault_settings,
    to_text,
)
from policy.settings_source import SettingsError, describe

GOOD = """trust_domain = "shop.example"
namespaces = ["shop", "bank"]
vault_addresses = ["https://vault.example:8200", "https://10.0.0.9:8200/"]
vault_auth = "kubernetes"
vault_role = "tencrypt-ca"
"""


def parse(text: str, **environment: str) -> VaultSettings:
    return parse_vault_settings(text, environment, "ca.toml")


def test_what_is_left_out_is_usual() -> None:
    found = parse(GOOD)
    assert found.addresses == ("https://vault.example:8200", "https://10.0.0.9:8200")
    assert (found.auth, found.auth_mount) == (Auth.KUBERNETES, "kubernetes")
    assert found.secret_file == SERVICE_ACCOUNT_TOKEN
    assert (found.pki_mount, found.namespace, found.ca_file) == ("tencrypt-pki", "", None)


def test_what_was_read_can_be_written_and_read_again() -> None:
    found = parse(GOOD + 'vault_ca_file = "/etc/a \\"b\\".pem"\nvault_namespace = "team/shop"\n')
    assert parse(to_text(found)) == found


def test_the_environment_wins() -> None:
    found = parse(GOOD, TENCRYPT_VAULT_ADDRESSES="https://other:8200", TENCRYPT_NAMESPACES="shop")
    assert (found.addresses, found.namespaces) == (("https://other:8200",), ("shop",))


MISTAKES = {
    "no TLS": (
        'vault_addresses = ["http://vault:8200"]',
        'ca.toml:3: vault_addresses = ["http://vault:8200"]: a list of 1 to 8 HTTPS addresses, as ["https://vault.example:8200"]',
    ),
    "no address": ("vault_addresses = []", "ca.toml:3: vault_addresses = []: a list of 1 to 8"),
    "an address with a path": (
        'vault_addresses = ["https://vault:8200/v1"]',
        'ca.toml:3: vault_addresses = ["https://vault:8200/v1"]: a list',
    ),
    "another method": (
        'vault_auth = "userpass"',
        'ca.toml:4: vault_auth = "userpass": kubernetes, approle, jwt, cert, token',
    ),
    "a namespace twice": ('namespaces = ["shop", "shop"]', "ca.toml:2: namespaces = "),
    "a wildcard for a namespace": ('namespaces = ["*"]', 'ca.toml:2: namespaces = ["*"]: '),
    "a mount with dots": (
        'vault_role = "r"\nvault_pki_mount = "../sys"',
        'ca.toml:6: vault_pki_mount = "../sys": a path, as tencrypt-pki',
    ),
    "no role": ('vault_role = ""', 'ca.toml:5: vault_role = "": a name, as tencrypt-ca'),
    "no secret": (
        'vault_auth = "approle"',
        "ca.toml: vault_secret_file is missing: an absolute path of a file that not all users can read; "
        "vault_auth = approle needs it",
    ),
    "a path that is not absolute": (
        'vault_role = "r"\nvault_ca_file = "ca.pem"',
        'ca.toml:6: vault_ca_file = "ca.pem": an absolute path',
    ),
    "a slip": (
        'vault_role = "r"\nvault_rol = "tencrypt"',
        "ca.toml:6: vault_rol is not a setting: did you mean vault_role?",
    ),
}


@pytest.mark.parametrize(("line", "said"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_one_line(line: str, said: str) -> None:
    key = line.split(" = ", maxsplit=1)[0]
    lines = [line if one.startswith(f"{key} ") else one for one in GOOD.splitlines()]
    with pytest.raises(SettingsError) as error:
        parse("\n".join(lines))
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@given(st.text(max_size=200))
def test_any_text_is_settings_or_one_error(text: str) -> None:
    said = ""
    try:
        parse(text)
    except SettingsError as error:
        said = str(error)
    assert "\n" not in said


def test_help_explains_each_key() -> None:
    assert all(
        f"  {name}\n" in describe(KEYS) for name in ("trust_domain", "vault_auth", "vault_role")
    )
