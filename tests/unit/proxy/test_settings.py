"""Every mistake in the settings is one line that names its place and what is accepted."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ca.messages import JoinClaims, encode_token
from proxy.session.profile import DEFAULT_PROFILE, TlsProfile
from proxy.settings import (
    KEYS,
    Settings,
    SettingsError,
    check_addresses,
    describe,
    parse_settings,
)
from proxy.settings_values import Listen

METRICS_LISTEN = 'a loopback address and port, as 127.0.0.1:15090 or [::1]:15090, or "off"'
WALL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
EXAMPLE = Path(__file__).parents[3] / "examples/pod.toml"
FINGERPRINT = "sha256:" + "ab" * 32
SUITES = "TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256"
GROUPS = "X25519MLKEM768, secp384r1, secp256r1"


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
        members=(ip_network("10.0.0.0/24"), ip_network("fd00::/64")),
        admin_socket="/tmp/a.sock",
        daemon_uid=2000,
        metrics_listen=Listen(ip_address("::1"), 9000),
        tls_suites=("TLS_AES_256_GCM_SHA384",),
        tls_groups=("secp384r1",),
        offloads=("gso",),
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


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "[::1]"])
def test_metrics_listen_takes_loopback_and_is_written_as_it_was(address: str) -> None:
    settings = parse(file_text(metrics_listen=f'"{address}:9000"'))
    assert str(settings.metrics_listen) == f"{address}:9000"


def test_metrics_listen_can_be_off() -> None:
    assert parse(file_text(metrics_listen='"off"')).metrics_listen is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            file_text(session_port="99999"),
            "pod.toml:9: session_port = 99999: a port from 1 to 65535",
        ),
        (
            file_text(session_port="true"),
            "pod.toml:9: session_port = true: a port from 1 to 65535",
        ),
        (
            file_text(session_port='"1"'),
            'pod.toml:9: session_port = "1": a port from 1 to 65535',
        ),
        (
            file_text(daemon_uid="0"),
            "pod.toml:9: daemon_uid = 0: a number from 1 to 65533",
        ),
        *(
            (
                file_text(metrics_listen=f'"{text}"'),
                f'pod.toml:9: metrics_listen = "{text}": {METRICS_LISTEN}',
            )
            for text in (
                "",
                "127.0.0.1",
                "127.0.0.1:0",
                "127.0.0.1:65536",
                "127.0.0.256:9000",
                "127.0.0.1:9000 ",
                "[127.0.0.1]:9000",
                "::1:9000",
                "[::1%lo]:9000",
                "localhost:9000",
                "OFF",
            )
        ),
        *(
            (
                file_text(metrics_listen=f'"{text}"'),
                f'pod.toml:9: metrics_listen = "{text}": {text.rpartition(":")[0].strip("[]")} '
                "is not loopback: none but the pod's own programs may ask",
            )
            for text in ("0.0.0.0:9000", "10.0.0.1:9000", "[::]:9000", "[fd00::1]:9000")
        ),
        (
            file_text(trust_domain=None),
            "pod.toml: trust_domain is missing: a SPIFFE trust domain, as shop.example",
        ),
        (
            file_text(trust_domain='"Shop"'),
            'pod.toml:1: trust_domain = "Shop": a SPIFFE trust domain, as shop.example',
        ),
        (
            file_text(session_prot="1"),
            "pod.toml:9: session_prot is not a setting: did you mean session_port?",
        ),
        (
            file_text(token=None) + "[token]\n",
            "pod.toml:8: token = ...: "
            "a join token as `tencrypt ca token` prints it, or token_file instead",
        ),
        (
            "name = \n",
            "pod.toml:1: not TOML: Invalid value",
        ),
        (
            file_text(namespace='"store"'),
            'pod.toml:3: namespace = "store": the token names "shop"',
        ),
        (
            file_text(name='"nginx2"'),
            'pod.toml:2: name = "nginx2": the token names "nginx1"',
        ),
        (
            file_text(service_account='"web"'),
            'pod.toml:4: service_account = "web": the token names "default"',
        ),
        (
            file_text(trust_domain='"other.example"'),
            'pod.toml:1: trust_domain = "other.example": the token names "shop.example"',
        ),
        (
            file_text(addresses='["10.0.0.1", "10.0.0.9"]'),
            'pod.toml:9: addresses = ["10.0.0.1", "10.0.0.9"]: the token names 10.0.0.1, fd00::1',
        ),
        (
            file_text(addresses='["10.0.0.0/24"]'),
            'pod.toml:9: addresses = ["10.0.0.0/24"]: '
            'a list of addresses without prefix, as ["10.0.0.1", "fd00::1"]',
        ),
        (
            file_text(token=f'"{token(replace(CLAIMS, expires=int(WALL)))}"'),
            "pod.toml:7: token = ...: expired at 2026-01-02 03:04:05 UTC; ask for a new one",
        ),
        (
            file_text(token_file='"/run/token"'),
            'pod.toml:9: token_file = "/run/token": token is set too: one of the two',
        ),
        (
            file_text(token=None, token_file='"/run/token"'),
            'pod.toml:8: token_file = "/run/token": no file /run/token in this test',
        ),
        (
            file_text(token=None),
            "pod.toml: token is missing: "
            "a join token as `tencrypt ca token` prints it, or token_file instead",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_line(text: str, line: str) -> None:
    assert mistake(text) == line


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ("[]", 'a list of addresses and prefixes, at least one, as ["10.0.0.0/24", "fd00::/64"]'),
        ('"10.0.0.0/24"', "a list of addresses and prefixes"),
        ("[1]", "a list of addresses and prefixes"),
        ('["10.0.0.1/24"]', "10.0.0.1/24 has bits set beyond its prefix: 10.0.0.0/24 has not"),
        ('["0.0.0.0/0"]', "0.0.0.0/0 is everything: list the project's own prefixes"),
        ('["::/0"]', "::/0 is everything: list the project's own prefixes"),
        ('["126.0.0.0/7"]', "126.0.0.0/7 holds addresses that no pod can have (loopback"),
        ('["fe80::1"]', "fe80::1 holds addresses that no pod can have (link-local"),
        ('["fd00::1%eth0"]', "fd00::1%eth0 names a zone"),
        ('["ff02::1"]', "ff02::1 holds addresses that no pod can have (multicast"),
        ('["10.0.0.256"]', "'10.0.0.256' is neither an address nor a prefix"),
        ('["10.0.0.1", "10.0.0.1/32"]', "10.0.0.1 is listed twice"),
        ('["10.0.0.7", "10.0.0.0/24"]', "10.0.0.7 lies in 10.0.0.0/24, which is listed too"),
        ('["10.0.0.0/23"]', "10.0.0.0/23 holds the CA's address 10.0.1.1"),
        ('["10.0.1.1"]', "10.0.1.1/32 holds the CA's address 10.0.1.1"),
    ],
)
def test_members_are_pods_and_nothing_else(members: str, reason: str) -> None:
    line = mistake(file_text(members=members))
    assert line.startswith(f"pod.toml:8: members = {members}: {reason}")


@pytest.mark.parametrize(
    "address",
    [
        "http://10.0.0.2:1",
        "https://10.0.0.2",
        "https://10.0.0.2:0",
        "https://10.0.0.2:65536",
        "https://10.0.0.256:1",
        "https://10.0.2:1",
        "https://fd00::1:1",
        "https://[fd00::1%25eth0]:1",
        "https://[10.0.0.2]:1",
        "https://user@ca:1",
        "https://ca:1/",
        "https://-ca:1",
        "https://ca..shop:1",
        "https://ca:1\\n",
        f"https://{'a' * 64}:1",
        "",
    ],
)
def test_a_ca_address_is_scheme_host_and_port(address: str) -> None:
    line = mistake(file_text(ca_address=f'"{address}"'))
    assert line.startswith("pod.toml:5: ca_address = ")
    assert line.endswith("https://HOST:PORT, HOST an address or a name, as https://10.0.0.2:8443")


@pytest.mark.parametrize("address", ["https://[fd01::2]:8443", "https://ca.shop.svc:8443"])
def test_a_ca_may_have_an_ipv6_address_or_a_name(address: str) -> None:
    assert parse(file_text(ca_address=f'"{address}"')).ca_address == address


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('offloads = ["lro"]', "'lro' is none of tso, uso, gso, gro"),
        ('offloads = ["gso", "gso"]', "one is listed twice"),
        ('offloads = "gso"', "a list of some of tso, uso, gso, gro, or none: []"),
    ],
)
def test_offloads_are_those_that_there_are(line: str, reason: str) -> None:
    assert mistake(file_text() + line + "\n").endswith(f"{line}: {reason}")


@pytest.mark.parametrize("given", [[], ["gro"], ["tso", "uso", "gso", "gro"]])
def test_offloads_are_chosen(given: list[str]) -> None:
    assert parse(file_text(offloads=str(given).replace("'", '"'))).offloads == tuple(given)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("tls_suites = []", f"at least one of {SUITES}"),
        ('tls_suites = "TLS_AES_256_GCM_SHA384"', f"a list of at least one of {SUITES}"),
        ('tls_suites = ["AES"]', f"'AES' is none of {SUITES}"),
        ('tls_groups = ["X448"]', f"'X448' is none of {GROUPS}"),
        ('tls_groups = ["secp256r1", "secp256r1"]', "secp256r1 is listed twice"),
        (
            'tls_groups = ["secp384r1", "secp256r1"]',
            "one group, or several with X25519MLKEM768 first: OpenSSL prefers it",
        ),
        ("tls_groups = [1]", f"a list of one of {GROUPS}, or of several with X25519MLKEM768 first"),
    ],
)
def test_suites_and_groups_are_those_that_sessions_can_be_held_to(line: str, reason: str) -> None:
    assert mistake(f"{file_text()}{line}\n") == f"pod.toml:9: {line}: {reason}"


def test_the_environment_limits_suites_and_groups() -> None:
    environment = {
        "TENCRYPT_TLS_SUITES": "TLS_AES_256_GCM_SHA384",
        "TENCRYPT_TLS_GROUPS": "X25519MLKEM768,secp384r1",
    }
    profile = parse(file_text(), environment).tls_profile
    assert profile == TlsProfile(("TLS_AES_256_GCM_SHA384",), ("X25519MLKEM768", "secp384r1"))
    line = "TENCRYPT_TLS_GROUPS = X25519: 'X25519' is none of " + GROUPS
    assert mistake(file_text(), {"TENCRYPT_TLS_GROUPS": "X25519"}) == line


@pytest.mark.parametrize("name", ["lo", "tenc0", "..", "sixteen.letters.", "eth0\\n", "et/0", ""])
def test_an_interface_is_one_that_reaches_pods(name: str) -> None:
    assert mistake(file_text(interface=f'"{name}"')).startswith("pod.toml:9: interface = ")


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
    text = describe()
    names = {field.name for field in fields(Settings)}
    assert names | {"token_file"} == {key.name for key in KEYS}
    assert all(key.name in text and key.meaning in text for key in KEYS)


def test_the_example_works_and_names_every_setting() -> None:
    text = EXAMPLE.read_text()
    settings = parse_settings(text, {}, wall=WALL, read_token=lambda _path: TOKEN)
    assert settings.name == "nginx1"
    everything = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    full = parse_settings(everything, {}, wall=WALL, read_token=lambda _path: TOKEN)
    assert full == replace(
        settings, interface="eth0", addresses=(ip_address("10.0.0.1"), ip_address("fd00::1"))
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
