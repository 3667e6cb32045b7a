"""Settings as a user writes them: a good file, changed as a test wants it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ca.messages import JoinClaims, encode_token
from proxy.settings import Settings, SettingsError, parse_settings
from proxy.settings_membership import ProjectSettings

METRICS_LISTEN = 'a loopback address and port, as 127.0.0.1:15090 or [::1]:15090, or "off"'
WALL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
EXAMPLE = Path(__file__).parents[2] / "examples/pod.toml"
FINGERPRINT = "sha256:" + "ab" * 32
SUITES = "TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256"
GROUPS = "X25519MLKEM768, secp384r1, secp256r1"

PROJECT = ProjectSettings(
    members=(ip_network("10.0.0.0/24"), ip_network("fd00::/64")),
    ranges=(ip_network("10.0.0.0/24"), ip_network("fd00::/64")),
    strict=True,
    clear_in=(),
    clear_out=(),
    dns_port=None,
    resolvers=(),
    cluster_domain="cluster.local",
    dns_bypass=False,
    roster=False,
    endpoints_file=None,
    target_ports={},
    enforce=True,
    rules_file=None,
)

CLAIMS = JoinClaims(
    id="00112233445566ff",
    trust_domain="shop.example",
    pod="nginx1",
    namespace="shop",
    service_account="default",
    addresses=(ip_address("10.0.0.1"), ip_address("fd00::1")),
    expires=int(WALL) + 3600,
)


def token(claims: JoinClaims) -> str:
    return encode_token(claims, bytes(range(32)))


TOKEN = token(CLAIMS)
GOOD = {
    "trust_domain": '"shop.example"',
    "name": '"nginx1"',
    "namespace": '"shop"',
    "service_account": '"default"',
    "ca_address": '"https://10.0.1.1:8443"',
    "ca_root_fingerprint": f'"{FINGERPRINT}"',
    "token": f'"{TOKEN}"',
    "members": '["10.0.0.0/24", "fd00::/64"]',
}


def file_text(**changed: str | None) -> str:
    """Write a file of the good keys in their order, then those added; None leaves a key out."""
    keys = {**GOOD, **changed}
    return "".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None)


def parse(text: str, environment: Mapping[str, str] | None = None) -> Settings:
    def no_file(path: str) -> str:
        raise ValueError(f"no file {path} in this test")

    return parse_settings(text, environment or {}, wall=WALL, read_token=no_file)


def mistake(text: str, environment: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(text, environment)
    line = str(caught.value)
    assert "\n" not in line
    return line
