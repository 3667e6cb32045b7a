"""`tencrypt ca` as its owner types it: output, exit codes, one line for each mistake."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import tencrypt
from ca.messages import encode_claims, parse_fingerprint, parse_token

PASSPHRASE = "correct horse battery staple"
NAMED = ("--name", "web-1", "--namespace", "shop", "--service-account", "web")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Ca = Callable[..., Done]


@pytest.fixture
def ca(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ca:
    """Run `tencrypt ca` with these words."""
    monkeypatch.delenv("TENCRYPT_CA_PASSPHRASE", raising=False)

    def run(*words: object) -> Done:
        try:
            code = tencrypt.main(["ca", *map(str, words)])
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "pass"
    path.touch(mode=0o600)
    path.write_text(f"{PASSPHRASE}\n")
    return path


@pytest.fixture
def directory(tmp_path: Path, ca: Ca, passphrase: Path) -> Path:
    path = tmp_path / "ca"
    words = ("init", path, "--trust-domain", "shop.example", "--passphrase-file", passphrase)
    assert ca(*words).code == 0
    return path


def is_one_line(done: Done, command: str) -> bool:
    return done.err.startswith(f"tencrypt: ca {command}: ") and done.err.count("\n") == 1


def test_init_tells_the_fingerprint_that_show_tells(
    tmp_path: Path, ca: Ca, passphrase: Path
) -> None:
    path = tmp_path / "ca"
    done = ca("init", path, "--trust-domain", "shop.example", "--passphrase-file", passphrase)
    assert (done.code, done.err) == (0, "")
    fingerprint = parse_fingerprint(done.out.split()[-1])
    shown = json.loads(ca("show", "--dir", path, "--json").out)
    assert shown["root"]["fingerprint"] == fingerprint
    assert shown["trust_domain"] == "shop.example"
    years = (shown["root"]["not_after"] - shown["root"]["not_before"]) / (365 * 86400)
    assert 10 <= years < 10.01


def test_second_init_is_refused(directory: Path, ca: Ca, passphrase: Path) -> None:
    before = {path: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    done = ca("init", directory, "--trust-domain", "x", "--passphrase-file", passphrase)
    assert done.code == 2
    assert is_one_line(done, "init")
    assert before == {path: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--trust-domain", "Shop"), "--trust-domain 'Shop': a trust domain: 1 to 255 of"),
        (("--trust-domain", "shop", "--years", "0"), "--years 0: 1 to 30"),
        (("--trust-domain", "shop"), "no passphrase: give --passphrase-file or set TENCRYPT_CA_"),
        (("--trust-domain", "shop", "--passphrase-file", "/none"), "/none: No such file"),
    ],
)
def test_wrong_init_makes_nothing(
    tmp_path: Path, ca: Ca, words: tuple[str, ...], says: str
) -> None:
    done = ca("init", tmp_path / "ca", *words)
    assert (done.code, done.out) == (2, "")
    assert is_one_line(done, "init")
    assert says in done.err
    assert not (tmp_path / "ca").exists()


@pytest.mark.parametrize("content", ["", "\n", "x" * 1025])
def test_passphrase_that_is_none_or_too_long_is_refused(
    tmp_path: Path, ca: Ca, passphrase: Path, content: str
) -> None:
    passphrase.write_text(content)
    words = ("--trust-domain", "shop", "--passphrase-file", passphrase)
    done = ca("init", tmp_path / "ca", *words)
    assert done.code == 2
    assert "a passphrase of 1 to 1024 bytes" in done.err


def test_passphrase_that_every_user_can_read_is_refused(
    tmp_path: Path, ca: Ca, passphrase: Path
) -> None:
    passphrase.chmod(0o644)
    words = ("--trust-domain", "shop", "--passphrase-file", passphrase)
    done = ca("init", tmp_path / "ca", *words)
    assert done.code == 2
    assert f"every user can read it: chmod o= {passphrase}" in done.err


def test_token_prints_the_token_and_nothing_else(directory: Path, ca: Ca) -> None:
    where = ("--address", "10.0.0.1", "--address", "fd00::1")
    done = ca("token", "--dir", directory, *NAMED, *where, "--ttl", "7d")
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    claims = parse_token(done.out.strip())
    assert claims.identity.uri == "spiffe://shop.example/ns/shop/sa/web"
    assert (claims.pod, list(map(str, claims.addresses))) == ("web-1", ["10.0.0.1", "fd00::1"])
    (listed,) = json.loads(ca("show", "--dir", directory, "--json").out)["tokens"]
    assert listed == json.loads(encode_claims(claims))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--name", "Web"), "--name 'Web': a pod's name"),
        (("--namespace", "a.b"), "--namespace 'a.b': a namespace"),
        (("--service-account", "a_b"), "--service-account 'a_b': a service account's name"),
        (("--address", "127.0.0.1"), "--address: address 127.0.0.1: one that a pod can have"),
        (("--address", "10.0.0.1"), "--address: addresses: 1 to 16, each once"),
        (("--ttl", "1w"), "--ttl '1w': as 30m, 24h or 7d, at most 365d"),
        (("--ttl", "366d"), "--ttl '366d': as 30m, 24h or 7d, at most 365d"),
        (("--ttl", "0s"), "--ttl '0s': as 30m"),
    ],
)
def test_token_with_a_wrong_part_is_not_made(
    directory: Path, ca: Ca, words: tuple[str, ...], says: str
) -> None:
    done = ca("token", "--dir", directory, *NAMED, "--address", "10.0.0.1", *words)
    assert (done.code, done.out) == (2, "")
    assert is_one_line(done, "token")
    assert says in done.err
    assert list((directory / "tokens").iterdir()) == []


@pytest.mark.parametrize("command", ["show", "token", "serve"])
def test_folder_without_a_ca_is_told(
    tmp_path: Path, ca: Ca, passphrase: Path, command: str
) -> None:
    more = {
        "show": (),
        "token": (*NAMED, "--address", "10.0.0.1"),
        "serve": ("--listen", "127.0.0.1:0", "--passphrase-file", passphrase),
    }[command]
    done = ca(command, "--dir", tmp_path, *more)
    assert done.code == 2
    assert is_one_line(done, command)
    assert f"{tmp_path} holds no CA" in done.err


def test_show_is_a_table_for_people(directory: Path, ca: Ca) -> None:
    done = ca("show", "--dir", directory)
    assert "live join tokens: none" in done.out
    token = ca("token", "--dir", directory, *NAMED, "--address", "10.0.0.1").out.strip()
    shown = ca("show", "--dir", directory).out
    assert "sha256:" in shown
    assert parse_token(token).id in shown
    assert "shop/web-1" in shown
    assert token.rpartition(".")[2] not in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--listen", "ca:1"), "--listen 'ca:1': ADDR:PORT, as 10.0.1.1:8443 or [fd00::1]:8443"),
        (("--listen", "192.0.2.1:0"), "--listen 192.0.2.1:0: Cannot assign requested address"),
        (
            ("--listen", "127.0.0.1:0", "--ttl", "31d"),
            "--ttl '31d': as 30m, 24h or 7d, at most 30d",
        ),
    ],
)
def test_wrong_serve_ends_with_one_line(
    directory: Path, ca: Ca, passphrase: Path, words: tuple[str, ...], says: str
) -> None:
    done = ca("serve", "--dir", directory, "--passphrase-file", passphrase, *words)
    assert (done.code, done.out) == (2, "")
    assert f"tencrypt: ca serve: {says}\n" in done.err


def test_wrong_passphrase_is_one_line(directory: Path, ca: Ca, passphrase: Path) -> None:
    passphrase.write_text("wrong")
    words = ("--dir", directory, "--listen", "127.0.0.1:0", "--passphrase-file", passphrase)
    done = ca("serve", *words)
    assert (done.code, done.out) == (2, "")
    assert is_one_line(done, "serve")
    assert "root.key: this passphrase does not open it" in done.err


@pytest.fixture
def served(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """`tencrypt ca serve`, with its passphrase from the environment."""
    command = [sys.executable, "-m", "tencrypt", "ca", "serve", "--dir", str(directory)]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"],
        cwd=Path(tencrypt.__file__).parent,
        env=os.environ | {"TENCRYPT_CA_PASSPHRASE": PASSPHRASE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_says_when_it_is_ready_and_stops_in_order(
    served: subprocess.Popen[str], directory: Path, ca: Ca, number: signal.Signals
) -> None:
    assert served.stdout is not None
    ready = served.stdout.readline()
    fingerprint = json.loads(ca("show", "--dir", directory, "--json").out)["root"]["fingerprint"]
    assert ready.startswith("CA of shop.example ready at https://127.0.0.1:")
    assert ready.endswith(f"root {fingerprint}\n")
    served.send_signal(number)
    out, err = served.communicate(timeout=20)
    assert (served.returncode, out) == (0, "")
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["server_certificate"]


def test_second_server_on_the_directory_is_refused(
    served: subprocess.Popen[str], directory: Path, ca: Ca, passphrase: Path
) -> None:
    assert served.stdout is not None
    served.stdout.readline()
    words = ("--dir", directory, "--listen", "127.0.0.1:0", "--passphrase-file", passphrase)
    done = ca("serve", *words)
    assert done.code == 2
    assert is_one_line(done, "serve")
    assert "is being served already" in done.err


def test_damaged_record_is_one_line(directory: Path, ca: Ca) -> None:
    (directory / "namespaces/shop.json").write_bytes(b"{}")
    done = ca("show", "--dir", directory)
    assert done.code == 2
    assert is_one_line(done, "show")


@pytest.mark.parametrize("command", ["", "init", "serve", "token", "show"])
def test_help_shows_an_example_that_can_be_typed(ca: Ca, command: str) -> None:
    done = ca(*command.split(), "--help")
    assert done.code == 0
    assert f"\n  tencrypt ca {command or 'init'} " in done.out


def test_a_copy_becomes_the_directory_again(tmp_path: Path, ca: Ca, directory: Path) -> None:
    token = ca("token", "--dir", directory, *NAMED, "--address", "10.0.0.1")
    assert token.code == 0
    before = ca("show", "--dir", directory).out
    copied = ca("backup", "--dir", directory, tmp_path / "copy")
    assert copied == Done(0, f"{tmp_path}/copy: 5 files of {directory}\n", "")
    again = ca("backup", "--dir", directory, tmp_path / "copy")
    assert again == Done(2, "", f"tencrypt: ca backup: {tmp_path}/copy is there already\n")
    restored = ca("restore", tmp_path / "copy", tmp_path / "new")
    assert restored == Done(0, f"{tmp_path}/new: 5 files of {tmp_path}/copy\n", "")
    assert ca("show", "--dir", tmp_path / "new").out == before
    full = ca("restore", tmp_path / "copy", tmp_path / "new")
    assert full.code == 2
    assert is_one_line(full, "restore")


def test_a_passphrase_is_changed(tmp_path: Path, ca: Ca, directory: Path, passphrase: Path) -> None:
    new = tmp_path / "new"
    new.touch(mode=0o600)
    new.write_text("another\n")
    words = ("passphrase", "--dir", directory, "--passphrase-file", passphrase)
    assert ca(*words, "--new-passphrase-file", new) == Done(
        0, f"the key in {directory} has the new passphrase\n", ""
    )
    wrong = ca(*words, "--new-passphrase-file", new)
    assert wrong == Done(
        2,
        "",
        f"tencrypt: ca passphrase: {directory}/root.key: this passphrase does not open it\n",
    )


def test_an_issuer_of_ones_own_wants_its_key_and_is_judged(
    tmp_path: Path, ca: Ca, directory: Path, passphrase: Path
) -> None:
    words = ("init", tmp_path / "own", "--trust-domain", "shop.example")
    more = ("--passphrase-file", passphrase, "--issuer", directory / "root.pem")
    assert ca(*words, *more) == Done(
        2, "", "tencrypt: ca init: --issuer and --issuer-key: both, or neither\n"
    )
    # The other CA's key is encrypted under the same passphrase.
    made = ca(*words, *more, "--issuer-key", directory / "root.key")
    assert made.code == 0
    assert made.out.splitlines()[1] in ca("show", "--dir", directory).out.replace(
        "fingerprint   ", "root fingerprint "
    )
    broken = ca(
        "init",
        tmp_path / "x",
        *words[2:],
        *more,
        "--issuer-key",
        directory / "ca.json",
    )
    assert broken.err == (
        f"tencrypt: ca init: --issuer {directory}/root.pem: the key is none in PEM\n"
    )
    assert not (tmp_path / "x").exists()
