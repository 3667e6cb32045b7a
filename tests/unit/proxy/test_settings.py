"""Settings of file and environment: every mistake is one line that names its place and what is accepted."""

import json
import re
from dataclasses import fields, replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.settings_text import (
    CLAIMS,
    EXAMPLE,
    FINGERPRINT,
    GOOD,
    PROJECT,
    TOKEN,
    WALL,
    file_text,
    mistake,
    parse,
    token,
)

from policy.settings_source import describe
from proxy.flow.clearance import parse_clearance
from proxy.session.profile import DEFAULT_PROFILE
from proxy.settings import Settings, SettingsError, check_addresses, parse_settings
from proxy.settings_keys import KEYS
from proxy.settings_values import Listen


def test_a_full_file_is_understood() -> None:
    text = file_text(
        interface='"eth0"',
        addresses='["10.0.0.1"]',
        session_port="4000",
        admin_socket='"/tmp/a.sock"',
        daemon_uid="2000",
        metrics_listen='"[::1]:9000"',
        tls_suites='["TLS_AES_256_GCM_SHA384"]',
        tls_groups='["secp384r1"]',
        offloads='["gso"]',
        verify='"project"',
    )
    assert parse(text) == Settings(
        trust_domain="shop.example",
        name="nginx1",
        namespace="shop",
        service_account="default",
        interface="eth0",
        addresses=(ip_address("10.0.0.1"),),
        session_port=4000,
        ca_address="https://10.0.1.1:8443",
        ca_root_fingerprint=FINGERPRINT,
        token=TOKEN,
        project=PROJECT,
        admin_socket="/tmp/a.sock",
        daemon_uid=2000,
        metrics_listen=Listen(ip_address("::1"), 9000),
        tls_suites=("TLS_AES_256_GCM_SHA384",),
        tls_groups=("secp384r1",),
        offloads=("gso",),
        verify=True,
    )


def test_what_is_left_out_has_the_documented_default() -> None:
    settings = parse(file_text())
    assert settings.interface is None
    assert settings.addresses == ()
    assert settings.session_port == 15443
    assert settings.daemon_uid == 15443
    assert settings.metrics_listen == Listen(ip_address("127.0.0.1"), 15090)
    assert settings.tls_profile == DEFAULT_PROFILE
    assert settings.admin_socket == "/run/tencrypt/shop.nginx1.sock"


def test_the_environment_alone_is_enough() -> None:
    environment = {
        "TENCRYPT_TRUST_DOMAIN": "shop.example",
        "TENCRYPT_NAME": "nginx1",
        "TENCRYPT_NAMESPACE": "shop",
        "TENCRYPT_SERVICE_ACCOUNT": "default",
        "TENCRYPT_CA_ADDRESS": "https://10.0.1.1:8443",
        "TENCRYPT_CA_ROOT_FINGERPRINT": FINGERPRINT,
        "TENCRYPT_TOKEN": TOKEN,
        "TENCRYPT_MEMBERS": "10.0.0.0/24, fd00::/64",
    }
    assert parse("", environment) == parse(file_text())


def test_the_environment_wins_over_the_file() -> None:
    assert parse(file_text(session_port="1"), {"TENCRYPT_SESSION_PORT": "2"}).session_port == 2


def test_a_fingerprint_may_be_written_as_openssl_prints_it() -> None:
    colons = ":".join(["AB"] * 32)
    settings = parse(file_text(ca_root_fingerprint=f'"{colons}"'))
    assert settings.ca_root_fingerprint == FINGERPRINT


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (
            {"TENCRYPT_SESSION_PORT": "99999"},
            "TENCRYPT_SESSION_PORT = 99999: a port from 1 to 65535",
        ),
        (
            {"TENCRYPT_SESSION_PORT": "1\n2"},
            'TENCRYPT_SESSION_PORT = "1\\n2": a port from 1 to 65535',
        ),
        (
            {"TENCRYPT_MEMBERS": "10.0.0.1/24"},
            "TENCRYPT_MEMBERS = 10.0.0.1/24: "
            "10.0.0.1/24 has bits set beyond its prefix: 10.0.0.0/24 has not",
        ),
        (
            {"TENCRYPT_TOKEN": "tct1.secret"},
            "TENCRYPT_TOKEN = ...: "
            "a join token as `tencrypt ca token` prints it, or token_file instead",
        ),
        (
            {"TENCRYPT_SESION_PORT": "1"},
            "TENCRYPT_SESION_PORT is not a setting: did you mean TENCRYPT_SESSION_PORT?",
        ),
        (
            {"TENCRYPT_NAMESPACE": "store"},
            'TENCRYPT_NAMESPACE = store: the token names "shop"',
        ),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    environment: dict[str, str], line: str
) -> None:
    assert mistake(file_text(), environment) == line


def test_variables_that_kubernetes_makes_for_services_are_no_mistakes() -> None:
    made = {
        f"TENCRYPT_{service}{suffix}": "tcp://10.0.1.1:8443"
        for service in ("", "CA_", "POLICY_")
        for suffix in (
            "PORT",
            "SERVICE_HOST",
            "SERVICE_PORT",
            "PORT_8443_TCP",
            "PORT_8443_TCP_ADDR",
        )
    }
    assert parse(file_text(), {**made, "TENCRYPT_CA_PASSPHRASE": "x"}) == parse(file_text())


def test_a_token_file_serves_and_the_environments_choice_wins() -> None:
    text = file_text(token='"tct1.old"')
    settings = parse_settings(
        text,
        {"TENCRYPT_TOKEN_FILE": "/run/token"},
        wall=WALL,
        read_token=lambda path: f"{TOKEN}\n" if path == "/run/token" else "",
    )
    assert settings.token == TOKEN


def test_the_token_shows_in_no_error_and_no_repr() -> None:
    secret = TOKEN.rsplit(".", 1)[1]
    spoilt = mistake(file_text(token=f'"{TOKEN}!"'))
    listed = mistake(file_text(token=f'["{TOKEN}"]'))
    unclosed = mistake(file_text(token=f'"{TOKEN}'))
    assert all(secret not in text for text in (spoilt, listed, unclosed, repr(parse(file_text()))))


def test_an_error_names_the_line_that_sets_the_key_and_not_one_that_looks_like_it() -> None:
    text = file_text(
        members='[\n  "10.0.0.0/24",\n  # session_port = 1\n]',
        admin_socket='"""\nsession_port = 2\n"""',
    )
    line = mistake(text + "# session_port = 3\n'session_port' = 0\n")
    assert line == "pod.toml:16: session_port = 0: a port from 1 to 65535"


def test_every_setting_is_explained() -> None:
    text = describe(KEYS)
    keys = {key.name for key in KEYS}
    assert {field.name for field in fields(Settings)} - {"project"} <= keys
    assert {"token_file", "cluster_ranges", "encryption", "rules_file"} <= keys
    assert all(key.name in text and key.meaning in text for key in KEYS)


def test_the_example_works_and_names_every_setting() -> None:
    text = EXAMPLE.read_text()
    settings = parse_settings(text, {}, wall=WALL, read_token=lambda _path: TOKEN)
    assert settings.name == "nginx1"
    everything = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    full = parse_settings(everything, {}, wall=WALL, read_token=lambda _path: TOKEN)
    assert full == replace(
        settings,
        interface="eth0",
        addresses=(ip_address("10.0.0.1"), ip_address("fd00::1")),
        project=replace(
            settings.project,
            members=(ip_network("10.0.0.0/24"),),
            clear_in=(parse_clearance("10.0.9.9 tcp/8080"),),
            clear_out=(parse_clearance("10.96.0.1 tcp/443"),),
            resolvers=(ip_address("10.96.0.10"),),
            target_ports={80: 8080},
            endpoints_file="/etc/tencrypt/endpoints.json",
            rules_file="/etc/tencrypt/rules.toml",
        ),
    )
    assert all(re.search(rf"\b{key.name} = ", text) for key in KEYS)


def test_addresses_found_on_the_interface_must_be_the_tokens() -> None:
    settings = parse(file_text())
    check_addresses(settings, (ip_address("fd00::1"),))
    with pytest.raises(SettingsError) as caught:
        check_addresses(settings, (ip_address("10.0.0.1"), ip_address("10.0.0.9")))
    assert str(caught.value) == (
        "this pod has the address 10.0.0.9: the token names 10.0.0.1, fd00::1"
    )


def test_a_default_socket_path_that_is_too_long_asks_for_a_shorter_one() -> None:
    name = "a" * 100
    line = mistake(file_text(name=f'"{name}"', token=f'"{token(replace(CLAIMS, pod=name))}"'))
    assert line.endswith(f"{name}.sock is too long: set an absolute path of at most 107 bytes")


lines = st.one_of(
    st.sampled_from([f"{key} = {value}" for key, value in GOOD.items()]),
    st.builds(
        "{} = {}".format,
        st.sampled_from([key.name for key in KEYS]),
        st.one_of(
            st.integers().map(str),
            st.text().map(json.dumps),
            st.lists(st.text()).map(json.dumps),
            st.sampled_from(["1979-05-27", "nan", "{}", "[[]]", "0x" + "f" * 5000]),
        ),
    ),
    st.text(),
)


@settings(deadline=None)  # a busy machine is no mistake
@given(
    st.one_of(st.text(), st.lists(lines).map("\n".join)),
    st.dictionaries(st.sampled_from([key.variable for key in KEYS]), st.text()),
)
@example("a = " + "[" * 10000, {})
@example("session_port = " + "9" * 5000, {})
@example("session_port = 0x" + "f" * 5000, {})
@example("name" + ".a" * 2000 + " = 1", {})
@example("name = 9999-99-99", {})
@example('"na\\u006de" = 1', {})
@example("x\\u0085 = \r 1", {})
def test_whatever_is_written_only_a_settings_error_of_one_line_escapes(
    text: str, environment: dict[str, str]
) -> None:
    try:
        outcome = repr(parse(text, environment))
    except SettingsError as error:
        outcome = str(error)
    assert len(outcome.splitlines()) == 1
