"""A real OpenBao (or Vault) server on loopback: HTTPS, storage in a folder, so it can be killed and started again."""

import contextlib
import datetime as dt
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from support.cache import go_module
from support.processes import Process

SOURCE: Final = Path(__file__).parents[1] / "testbed/openbao"
VERSION: Final = "2.4.0"
START_SECONDS: Final = 30.0

Json = dict[str, Any]


def program() -> Path:
    """Give the machine's `bao` or `vault`; else build OpenBao, once: some 6 minutes."""
    for name in ("bao", "vault"):
        if found := shutil.which(name):
            return Path(found)
    variable = f"github.com/openbao/openbao/version.fullVersion={VERSION}"
    return go_module("bao", SOURCE, "-ldflags", f"-s -w -X {variable}") / "bao"


class BaoError(Exception):
    """The server refused a request of the test's own; its words."""


class OpenBao:
    """A server with one unseal key, and its root token for what an administrator does."""

    def __init__(self, folder: Path) -> None:
        """Make its certificate and configuration; `start` runs it."""
        self.folder = folder
        self.ca_file = folder / "tls.pem"
        self.port = _free_port()
        self.address = f"https://127.0.0.1:{self.port}"
        self.root_token = ""
        self._unseal_key = ""
        self._process: Process | None = None
        self._starts = 0
        (folder / "storage").mkdir()
        _make_certificate(self.ca_file, folder / "tls.key")
        (folder / "bao.hcl").write_text(
            f"""
            storage "file" {{ path = "{folder}/storage" }}
            listener "tcp" {{
              address = "127.0.0.1:{self.port}"
              tls_cert_file = "{self.ca_file}"
              tls_key_file = "{folder}/tls.key"
            }}
            api_addr = "{self.address}"
            disable_mlock = true
            """,
            encoding="ascii",
        )
        self._session = requests.Session()
        self._session.verify = str(self.ca_file)
        self._session.trust_env = False

    def start(self) -> None:
        """Run it, and unseal it; the first time it is initialised."""
        self._starts += 1
        environment = {**os.environ, "HOME": str(self.folder)}
        self._process = Process(
            [program(), "server", f"-config={self.folder / 'bao.hcl'}"],
            self.folder / f"server-{self._starts}",
            env=environment,
        )
        self._process.wait_until("OpenBao to answer", self._answers, START_SECONDS)
        if not self._unseal_key:
            keys = self._ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            self._unseal_key, self.root_token = keys["keys"][0], keys["root_token"]
        self.unseal()

    def unseal(self) -> None:
        """Let it work; nothing if it does."""
        self._ask("PUT", "sys/unseal", {"key": self._unseal_key})

    def seal(self) -> None:
        """Have it answer 503 to all until it is unsealed."""
        self._ask("PUT", "sys/seal")

    def kill(self) -> None:
        """End it at once; what it has stored stays."""
        if self._process is not None and self._process.running():
            self._process.signal(SIGKILL)
            self._process.finish()

    def read(self, path: str, **query: str) -> Json:
        """Ask for something, as root; its data."""
        return self._ask("GET", path, query=query)

    def list(self, path: str) -> list[str]:
        """Return the names below a path, as root."""
        return list(self._ask("LIST", path)["data"]["keys"])

    def write(self, path: str, body: Json | None = None, *, token: str = "") -> Json:
        """Do something, as root or by another token; its data. Raises `BaoError`."""
        return self._ask("POST", path, body or {}, token=token)

    def delete(self, path: str) -> None:
        """Take something away, as root."""
        self._ask("DELETE", path)

    def token(self, *policies: str, **fields: object) -> str:
        """Return a new token that has these policies alone."""
        body = {"policies": list(policies), "no_default_policy": True, "no_parent": True, **fields}
        return str(self.write("auth/token/create", body)["auth"]["client_token"])

    def _answers(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            self._session.get(f"{self.address}/v1/sys/seal-status", timeout=5)
            return True
        return False

    def _ask(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        token: str = "",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        answer = self._session.request(
            method,
            f"{self.address}/v1/{path}",
            json=body,
            params=query,
            headers={"X-Vault-Token": token or self.root_token},
            timeout=30,
        )
        if answer.status_code >= 400:
            raise BaoError(f"{method} {path}: {answer.status_code} {answer.text.strip()}")
        return dict(answer.json()) if answer.content else {}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[OpenBao]:
    """Give a server that runs, unsealed, in an empty folder."""
    server = OpenBao(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port


def _make_certificate(path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "OpenBao of a test")])
    now = dt.datetime.now(dt.UTC)  # noqa: TID251 - the server goes by the real clock
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key_path.chmod(0o600)


if __name__ == "__main__":
    print(program())  # before tests begin: a build takes minutes
