"""Each mistake in the configuration is one line and an exit code, and nothing is half set up."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from support.kernel_state import kernel_state
from support.namespaces import Fabric, Pod
from support.processes import run, wait_for
from support.tencrypt import TENCRYPT, Json, ProjectCA, Proxy

CA_PATIENCE = 30.0
PORT = "a port from 1 to 65535"
NAMED = "the token names 10.77.0.11, fd77:7465:6e63::11"
LONG_PATH = "/run/" + "x" * 110
NOWHERE = "no interface eth9: there are eth0 (10.77.0.11, fd77:7465:6e63::11)"

Value = str | int | float | list[str] | None


@dataclass
class Bench:
    """A pod in which `tencrypt run` is to fail, and a configuration that is right."""

    fabric: Fabric
    pod: Pod
    ca: ProjectCA
    right: dict[str, Value]
    untouched: Json = field(repr=False)

    def write(self, changes: Mapping[str, Value], file: str = "pod.toml") -> Path:
        """Write the settings, a key a line; None leaves a key out."""
        settings = {**self.right, **changes}
        path = self.fabric.directory / file
        path.touch(mode=0o600)
        lines = [f"{k} = {json.dumps(v)}\n" for k, v in settings.items() if v is not None]
        path.write_text("".join(lines), encoding="ascii")
        return path

    def refuse(self, config: Path | None, **environment: str) -> str:
        """Run it; give the one line that it says before it ends as wrongly configured."""
        option = () if config is None else ("--config", config)
        done = self.run(*option, **environment)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("tencrypt: ")
        assert done.stderr.count("\n") == 1
        assert "tct1." not in done.stderr, "a token is a secret"
        assert kernel_state(self.pod) == self.untouched
        return done.stderr.removeprefix("tencrypt: ").rstrip("\n")

    def run(self, *options: str | Path, **environment: str) -> CompletedProcess[str]:
        command = (TENCRYPT, "run", "--netns", self.pod.path, *options)
        return run(command, accept=range(256), env={**os.environ, **environment}, timeout=20)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Fabric("nginx1", "other", "alone") as fabric:
        pod, ca = fabric["nginx1"], ProjectCA(fabric)
        right: dict[str, Value] = {
            "trust_domain": "shop.example",
            "name": "nginx1",
            "namespace": "shop",
            "service_account": "web",
            "interface": "eth0",
            "addresses": [pod.ipv4, pod.ipv6],
            "session_port": 15443,
            "ca_address": ca.address,
            "ca_root_fingerprint": ca.fingerprint,
            "token": ca.token(pod),
            "members": ["10.77.0.8/29", "fd77:7465:6e63::11", "fd77:7465:6e63::12"],
            "admin_socket": str(fabric.directory / "admin.sock"),
            "daemon_uid": 15443,
            "tls_suites": ["TLS_AES_256_GCM_SHA384"],
            "tls_groups": ["X25519MLKEM768"],
            "metrics_listen": "[::1]:15091",
        }
        yield Bench(fabric, pod, ca, right, kernel_state(pod))


@pytest.fixture(scope="module", autouse=True)
def without_ca(bench: Bench) -> Proxy:
    """A proxy whose CA does not answer, started first: it is patient for half a minute."""
    settings = {"ca_address": "https://10.77.0.1:9"}
    proxy = Proxy(bench.fabric["alone"], bench.ca, ["10.77.0.12"], settings=settings)
    proxy.start()
    return proxy


NAMES = {
    "trust_domain": ("a SPIFFE trust domain, as shop.example", "shop.example"),
    "name": ("a pod's name (DNS-1123), as nginx1", "nginx1"),
    "namespace": ("a namespace (DNS-1123 label), as shop", "shop"),
    "service_account": ("a service account's name (DNS-1123), as default", "web"),
}
INTERFACE = "a network interface's name of 1 to 15 characters, not lo or tenc0, as eth0"
CA_ADDRESS = "https://HOST:PORT, HOST an address or a name, as https://10.0.0.2:8443"
FINGERPRINT = "sha256: and 64 hexadecimal digits"
TOKEN = "a join token as `tencrypt ca token` prints it, or token_file instead"
MEMBERS = 'a list of addresses and prefixes, at least one, as ["10.0.0.0/24", "fd00::/64"]'
SOCKET = "an absolute path of at most 107 bytes"
UID = "a number from 1 to 65533"
METRICS_LISTEN = 'a loopback address and port, as 127.0.0.1:15090 or [::1]:15090, or "off"'
SUITES = "TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256"
GROUPS = "X25519MLKEM768, secp384r1, secp256r1"

MISTAKES: list[tuple[str, Value, str]] = [
    *((key, "Not_A Name", accepts) for key, (accepts, _) in NAMES.items()),
    *((key, 7, accepts) for key, (accepts, _) in NAMES.items()),
    *((key, "else.example", f'the token names "{named}"') for key, (_, named) in NAMES.items()),
    ("interface", "lo", INTERFACE),
    ("interface", "eth0; reboot", INTERFACE),
    ("addresses", "10.77.0.11", 'a list of addresses without prefix, as ["10.0.0.1", "fd00::1"]'),
    (
        "addresses",
        ["10.77.0.11/24"],
        "10.77.0.11/24 has bits set beyond its prefix: 10.77.0.0/24 has not",
    ),
    ("addresses", ["10.77.0.11", "10.77.0.11"], "10.77.0.11 is listed twice"),
    ("addresses", ["10.77.0.99"], NAMED),
    ("session_port", 99999, PORT),
    ("session_port", 0, PORT),
    ("session_port", "15443", PORT),
    ("ca_address", "http://10.77.0.1:8443", CA_ADDRESS),
    ("ca_address", "https://10.77.0.1", CA_ADDRESS),
    ("ca_root_fingerprint", "sha256:00", FINGERPRINT),
    ("members", [], MEMBERS),
    (
        "members",
        ["0.0.0.0/0"],
        "0.0.0.0/0 is everything: list the project's own prefixes",
    ),
    ("members", ["nginx2"], "'nginx2' is neither an address nor a prefix"),
    ("members", ["10.77.0.0/24"], "10.77.0.0/24 holds the CA's address 10.77.0.1"),
    ("admin_socket", "admin.sock", SOCKET),
    ("admin_socket", LONG_PATH, SOCKET),
    ("daemon_uid", 0, UID),
    ("daemon_uid", 65534, UID),
    ("daemon_uid", 1.5, UID),
    ("metrics_listen", 15090, METRICS_LISTEN),
    ("metrics_listen", "localhost:15090", METRICS_LISTEN),
    (
        "metrics_listen",
        "0.0.0.0:15090",
        "0.0.0.0 is not loopback: none but the pod's own programs may ask",
    ),
    ("tls_suites", ["TLS_AES_128_GCM_SHA256"], f"'TLS_AES_128_GCM_SHA256' is none of {SUITES}"),
    ("tls_suites", "TLS_AES_256_GCM_SHA384", f"a list of at least one of {SUITES}"),
    ("tls_groups", ["X448"], f"'X448' is none of {GROUPS}"),
    ("tls_groups", [], f"at least one of {GROUPS}"),
    ("tls_groups", ["secp256r1", "secp256r1"], "secp256r1 is listed twice"),
    (
        "tls_groups",
        ["secp384r1", "secp256r1"],
        "one group, or several with X25519MLKEM768 first: OpenSSL prefers it",
    ),
]


def test_every_key_has_a_mistake_here(bench: Bench) -> None:
    """Those of the token stand below, by themselves."""
    assert {key for key, _, _ in MISTAKES} == set(bench.right) - {"token"}


@pytest.mark.parametrize(
    ("key", "value", "reason"), MISTAKES, ids=lambda part: str(part)[:30].replace(" ", "-")
)
def test_a_wrong_value_is_told_with_its_line(
    bench: Bench, key: str, value: Value, reason: str
) -> None:
    if key == "namespace" and value == "else.example":
        value = "else"  # a label, without a dot
    path = bench.write({key: value})
    line = list(bench.right).index(key) + 1
    shown = json.dumps(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    assert bench.refuse(path) == f"{path}:{line}: {key} = {shown}: {reason}"


def test_a_missing_key_is_named(bench: Bench) -> None:
    path = bench.write({"name": None})
    assert bench.refuse(path) == f"{path}: name is missing: {NAMES['name'][0]}"


def test_an_unknown_key_is_told_with_what_was_meant(bench: Bench) -> None:
    path = bench.write({"sesion_port": 15443})
    meant = "did you mean session_port?"
    assert bench.refuse(path) == f"{path}:17: sesion_port is not a setting: {meant}"


def test_a_file_that_is_not_there_or_no_toml_is_told(bench: Bench) -> None:
    missing = bench.fabric.directory / "missing.toml"
    assert bench.refuse(missing) == f"{missing}: No such file or directory"
    path = bench.write({})
    path.write_text('name = "nginx1"\nnamespace = shop\n', encoding="ascii")
    assert bench.refuse(path) == f"{path}:2: not TOML: Invalid value"


def test_without_file_and_environment_the_first_variable_is_named(bench: Bench) -> None:
    said = f"TENCRYPT_TRUST_DOMAIN is missing: {NAMES['trust_domain'][0]}"
    assert bench.refuse(None) == said


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("SESSION_PORT", "99999", f"TENCRYPT_SESSION_PORT = 99999: {PORT}"),
        ("SESSION_PORT", "", f"TENCRYPT_SESSION_PORT = : {PORT}"),
        ("NAME", "nginx2", 'TENCRYPT_NAME = nginx2: the token names "nginx1"'),
        ("NAMESPACE", "A B", f"TENCRYPT_NAMESPACE = A B: {NAMES['namespace'][0]}"),
        ("ADDRESSES", "10.77.0.99", f"TENCRYPT_ADDRESSES = 10.77.0.99: {NAMED}"),
        ("MEMBERS", "", f"TENCRYPT_MEMBERS = : {MEMBERS}"),
        (
            "MEMBERS",
            "10.77.0.1, 10.77.0.12",
            "TENCRYPT_MEMBERS = 10.77.0.1, 10.77.0.12: 10.77.0.1/32 holds the CA's address 10.77.0.1",
        ),
        ("CA_ADDRESS", "https://ca", f"TENCRYPT_CA_ADDRESS = https://ca: {CA_ADDRESS}"),
        ("TOKEN", "tct1.secret", f"TENCRYPT_TOKEN = ...: {TOKEN}"),
        ("TLS_GROUPS", "X448", f"TENCRYPT_TLS_GROUPS = X448: 'X448' is none of {GROUPS}"),
        ("DAEMON_UID", "root", f"TENCRYPT_DAEMON_UID = root: {UID}"),
        (
            "SESION_PORT",
            "15443",
            "TENCRYPT_SESION_PORT is not a setting: did you mean TENCRYPT_SESSION_PORT?",
        ),
    ],
)
def test_the_environment_wins_and_its_mistakes_are_told_by_variable(
    bench: Bench, variable: str, text: str, said: str
) -> None:
    assert bench.refuse(bench.write({}), **{f"TENCRYPT_{variable}": text}) == said


def test_a_token_that_is_none_is_told_without_it(bench: Bench) -> None:
    path = bench.write({"token": "tct1.nonsense"})
    assert bench.refuse(path) == f"{path}:10: token = ...: {TOKEN}"


def test_the_token_of_another_pod_is_told(bench: Bench) -> None:
    path = bench.write({"token": bench.ca.token(bench.fabric["other"])})
    assert bench.refuse(path) == f'{path}:2: name = "nginx1": the token names "other"'


def test_an_expired_token_is_told(bench: Bench) -> None:
    good = len(bench.ca.show()["tokens"])
    path = bench.write({"token": bench.ca.token(bench.pod, options=("--ttl", "1s"))})
    wait_for("the token to expire", lambda: len(bench.ca.show()["tokens"]) == good)
    pattern = r"token = \.\.\.: expired at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC; ask for a new one"
    assert re.fullmatch(f"{re.escape(str(path))}:10: {pattern}", bench.refuse(path))


@pytest.mark.parametrize("how", ["both", "relative", "missing", "public", "empty"])
def test_a_token_file_that_cannot_serve_is_told(bench: Bench, how: str) -> None:
    file = bench.fabric.directory / f"token.{how}"
    file.touch(mode=0o644 if how == "public" else 0o600)
    if how == "missing":
        file.unlink()
    name = "token.txt" if how == "relative" else str(file)
    path = bench.write({"token": "tct1.x" if how == "both" else None, "token_file": name})
    reason = {
        "both": "token is set too: one of the two",
        "relative": "an absolute path of a file that holds the join token",
        "missing": "No such file or directory",
        "public": f"every user can read it: chmod o= {file.name}",
        "empty": "the file holds no join token",
    }[how]
    line = 17 if how == "both" else 16
    assert bench.refuse(path) == f'{path}:{line}: token_file = "{name}": {reason}'


def test_an_interface_that_is_not_there_is_told_with_those_that_are(bench: Bench) -> None:
    assert bench.refuse(bench.write({"interface": "eth9"})) == NOWHERE


def test_a_network_namespace_that_is_none_is_told(bench: Bench) -> None:
    for path, said in (
        ("/run/netns/nowhere", "network namespace /run/netns/nowhere: No such file or directory"),
        ("/etc/hostname", "/etc/hostname is no network namespace"),
    ):
        command = (TENCRYPT, "run", "--netns", path, "--config", bench.write({}))
        assert run(command, accept=(2,)).stderr == f"tencrypt: {said}\n"


def test_addresses_that_the_interface_does_not_hold_are_told(bench: Bench) -> None:
    token = bench.ca.token(bench.pod, addresses=["10.77.0.11", "10.77.0.99"])
    path = bench.write({"token": token, "addresses": ["10.77.0.11", "10.77.0.99"]})
    assert bench.refuse(path) == "interface eth0 does not hold 10.77.0.99"


def test_an_address_found_that_the_token_does_not_name_is_told(bench: Bench) -> None:
    token = bench.ca.token(bench.pod, addresses=["10.77.0.11"])
    path = bench.write({"token": token, "addresses": None})
    said = "this pod has the address fd77:7465:6e63::11: the token names 10.77.0.11"
    assert bench.refuse(path) == said


@pytest.fixture
def changed(bench: Bench) -> Iterator[Callable[[str, str], None]]:
    """Change the pod by one command of `ip`, and back by another afterwards."""
    back: list[str] = []

    def change(there: str, and_back: str) -> None:
        bench.pod.ip(f"{there}\n")
        back.append(and_back)
        bench.untouched = kernel_state(bench.pod)

    yield change
    for command in back:
        bench.pod.ip(f"{command}\n")
    bench.untouched = kernel_state(bench.pod)


def test_two_addresses_of_a_family_are_told(
    bench: Bench, changed: Callable[[str, str], None]
) -> None:
    changed("addr add 10.77.0.99/24 dev eth0", "addr del 10.77.0.99/24 dev eth0")
    both = ["10.77.0.11", "10.77.0.99"]
    path = bench.write({"token": bench.ca.token(bench.pod, addresses=both), "addresses": both})
    listed = "addresses are 10.77.0.11, 10.77.0.99"
    most = "one IPv4 and one IPv6 address at most; choose by setting addresses"
    assert bench.refuse(path) == f"{listed}: {most}"


def test_an_interface_too_narrow_for_ipv6_is_told(
    bench: Bench, changed: Callable[[str, str], None]
) -> None:
    changed("link set eth0 mtu 1371", "link set eth0 mtu 1500")
    said = "interface eth0 has MTU 1371: IPv6 through tenc0 needs 1372, or leave the IPv6 "
    assert bench.refuse(bench.write({})) == said + "addresses or members out"


def test_a_token_that_the_ca_does_not_know_ends_it_at_once_and_leaves_nothing(
    bench: Bench,
) -> None:
    tokens = bench.ca.directory / "tokens"
    known = set(tokens.iterdir())
    path = bench.write({"token": bench.ca.token(bench.pod)})
    (voided,) = set(tokens.iterdir()) - known
    voided.unlink()

    done = bench.run("--config", path)

    assert done.returncode == 3
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["ca_refused"]
    assert kernel_state(bench.pod) == bench.untouched


def test_a_ca_that_does_not_answer_ends_it_after_a_while_and_leaves_nothing(
    bench: Bench, without_ca: Proxy
) -> None:
    alone = bench.fabric["alone"]
    assert without_ca.process is not None
    assert without_ca.process.finish(CA_PATIENCE + 20) == 3
    last = without_ca.events()[-1]
    assert (last["event"], last["level"]) == ("ca_unreachable", "error")
    assert "tenc0" not in kernel_state(alone)["links"]
    assert kernel_state(alone)["filter"] == ""
