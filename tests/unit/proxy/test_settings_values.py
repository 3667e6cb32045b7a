"""What each setting takes, and the line that says what it does not take."""

from dataclasses import replace

import pytest
from support.settings_text import (
    CLAIMS,
    GROUPS,
    METRICS_LISTEN,
    SUITES,
    WALL,
    file_text,
    mistake,
    parse,
    token,
)

from proxy.session.profile import TlsProfile


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
