"""How the CA proves itself to a real Vault, and gets on when its token, or Vault, is gone for a while."""

import base64
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.memory_ca import ISSUER
from support.openbao import OpenBao
from typing_extensions import override
from vault.conftest import Configure

from ca.drivers.vault import PATIENCE, Vault, VaultRefusedError
from ca.signer import SignerAwayError, SignerError
from ca.vault_plan import POLICY
from ca.vault_settings import VaultSettings

LOOK = "auth/token/lookup-self"


def connect(settings: VaultSettings) -> Vault:
    return Vault(settings, time.monotonic)  # noqa: TID251 - a real server


def secret(bao: OpenBao, name: str, text: str) -> str:
    path = bao.folder / name
    path.touch(mode=0o600)
    path.write_text(text, encoding="ascii")
    return str(path)


def policies(vault: Vault) -> list[str]:
    found: list[str] = vault.ask("GET", LOOK)["data"]["policies"]
    return found


@pytest.fixture
def approle(bao: OpenBao, prepared: VaultSettings, configure: Configure) -> VaultSettings:
    """Return settings of a CA that logs in by AppRole; its tokens live 4 s."""
    assert prepared.pki_mount
    bao.write("sys/auth/approle", {"type": "approle"})
    role = {"token_policies": [POLICY], "token_ttl": "4s", "token_max_ttl": "1h"}
    bao.write("auth/approle/role/ca", role)
    role_id = bao.read("auth/approle/role/ca/role-id")["data"]["role_id"]
    secret_id = bao.write("auth/approle/role/ca/secret-id")["data"]["secret_id"]
    return configure(
        vault_auth="approle",
        vault_role=role_id,
        vault_secret_file=secret(bao, "secret-id", secret_id),
    )


def test_approle(approle: VaultSettings) -> None:
    assert policies(connect(approle)) == ["default", POLICY]


def test_a_token_that_ended_is_replaced(bao: OpenBao, approle: VaultSettings) -> None:
    vault = connect(approle)
    first = vault.ask("GET", LOOK)["data"]["accessor"]
    bao.write("auth/token/revoke-accessor", {"accessor": first})
    assert vault.ask("GET", LOOK)["data"]["accessor"] != first


def test_a_token_is_renewed_at_half_its_life(approle: VaultSettings) -> None:
    now = 0.0
    vault = Vault(approle, lambda: now)
    first = vault.ask("GET", LOOK)["data"]
    now = 1.9
    vault.keep()
    assert vault.ask("GET", LOOK)["data"].get("last_renewal_time") is None
    now = 2.1
    vault.keep()
    again = vault.ask("GET", LOOK)["data"]
    assert again["accessor"] == first["accessor"]
    assert again["last_renewal_time"]


def test_a_secret_that_is_no_longer_good_is_told_and_a_new_one_is_read(
    bao: OpenBao, approle: VaultSettings
) -> None:
    path = Path(str(approle.secret_file))
    good = path.read_text(encoding="ascii")
    path.write_text("wrong", encoding="ascii")
    vault = connect(approle)
    with pytest.raises(
        VaultRefusedError, match=r"^auth/approle: approle .* is refused: invalid"
    ) as refused:
        policies(vault)
    assert "wrong" not in str(refused.value)
    path.write_text(good, encoding="ascii")
    assert policies(vault) == ["default", POLICY]
    path.unlink()
    bao.write(
        "auth/token/revoke-accessor", {"accessor": vault.ask("GET", LOOK)["data"]["accessor"]}
    )
    with pytest.raises(SignerAwayError, match="secret-id: No such file or directory"):
        policies(vault)


def test_a_secret_that_all_users_can_read_is_refused(approle: VaultSettings) -> None:
    Path(str(approle.secret_file)).chmod(0o644)
    with pytest.raises(SignerAwayError, match="every user can read it"):
        policies(connect(approle))


@pytest.mark.usefixtures("prepared")
def test_certificate(bao: OpenBao, configure: Configure) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wall = datetime.now(UTC)  # noqa: TID251 - Vault goes by the real clock
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    shown = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(wall - timedelta(hours=1))
        .not_valid_after(wall + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = shown.public_bytes(Encoding.PEM).decode()
    bao.write("sys/auth/cert", {"type": "cert"})
    bao.write("auth/cert/certs/ca", {"certificate": pem, "token_policies": [POLICY]})
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    settings = configure(
        vault_auth="cert",
        vault_role="ca",
        vault_cert_file=secret(bao, "ca.pem", pem),
        vault_key_file=secret(bao, "ca.key", text),
    )
    assert policies(connect(settings)) == ["default", POLICY]


@pytest.mark.usefixtures("prepared")
def test_jwt(bao: OpenBao, configure: Configure) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    bao.write("sys/auth/jwt", {"type": "jwt"})
    bao.write("auth/jwt/config", {"jwt_validation_pubkeys": [public]})
    role = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["vault"],
        "token_policies": [POLICY],
    }
    bao.write("auth/jwt/role/ca", role)

    def signed(audience: str) -> str:
        now = int(time.time())  # noqa: TID251 - as above
        claims = {"sub": "ca", "aud": audience, "exp": now + 60, "iat": now}
        parts = [{"alg": "ES256", "typ": "JWT"}, claims]
        head = b".".join(
            base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts
        )
        r, s = decode_dss_signature(key.sign(head, ec.ECDSA(hashes.SHA256())))
        signature = base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        return f"{head.decode()}.{signature.rstrip(b'=').decode()}"

    def with_audience(audience: str) -> Vault:
        path = secret(bao, "jwt", signed(audience))
        return connect(configure(vault_auth="jwt", vault_role="ca", vault_secret_file=path))

    assert policies(with_audience("vault")) == ["default", POLICY]
    with pytest.raises(VaultRefusedError, match=r"^auth/jwt: jwt ca is refused"):
        policies(with_audience("somebody else"))


def test_a_method_that_is_not_there_is_told(configure: Configure, bao: OpenBao) -> None:
    path = secret(bao, "jwt", "none")
    vault = connect(configure(vault_auth="jwt", vault_role="ca", vault_secret_file=path))
    with pytest.raises(VaultRefusedError, match="auth/jwt"):
        policies(vault)


def test_sealed_is_away_for_a_while_and_then_told(bao: OpenBao, approle: VaultSettings) -> None:
    vault = connect(approle)
    assert policies(vault)
    bao.seal()
    began = time.monotonic()  # noqa: TID251 - how long a caller has to wait is the promise
    with pytest.raises(SignerAwayError, match="sealed"):
        policies(vault)
    assert time.monotonic() - began < PATIENCE + 1  # noqa: TID251 - as above
    bao.unseal()
    assert policies(vault) == ["default", POLICY]


def test_a_server_that_was_killed_is_found_again(bao: OpenBao, approle: VaultSettings) -> None:
    vault = connect(approle)
    assert policies(vault)
    bao.kill()
    with pytest.raises(SignerAwayError, match="no connection"):
        policies(vault)
    bao.start()
    assert policies(vault) == ["default", POLICY]


def test_the_next_address_is_asked_where_one_does_not_answer(
    bao: OpenBao, prepared: VaultSettings, configure: Configure
) -> None:
    assert prepared.auth == "token"
    vault = connect(configure(vault_addresses=["https://127.0.0.1:1", bao.address]))
    assert policies(vault) == [POLICY]


def test_a_server_with_another_certificate_hears_no_secret(
    bao: OpenBao, prepared: VaultSettings, configure: Configure
) -> None:
    assert prepared.ca_file
    other = bao.folder / "other.pem"
    other.write_bytes(ISSUER.root.public_bytes(Encoding.PEM))
    vault = hurried(configure(vault_ca_file=str(other)))
    with pytest.raises(SignerAwayError, match="its certificate is not trusted"):
        policies(vault)


@contextlib.contextmanager
def instead(bao: OpenBao, answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Give a server in Vault's place, with its certificate, that says one thing to all: its address, what it hears."""
    heard: list[bytes] = []

    class Handler(StreamRequestHandler):
        @override
        def handle(self) -> None:
            heard.append(self.rfile.readline())
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bao.ca_file, bao.folder / "tls.key")
    with TCPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}", heard
        finally:
            server.shutdown()
            serving.join()


def hurried(settings: VaultSettings) -> Vault:
    """Return a Vault whose patience is over after a few attempts."""
    clock = iter(range(0, 1000, 3))
    return Vault(settings, lambda: float(next(clock)), lambda _: None)


def test_a_redirect_is_not_followed_with_the_token(
    bao: OpenBao, prepared: VaultSettings, configure: Configure
) -> None:
    """A standby of a cluster that does not forward names the active one, and so can an attacker."""
    assert prepared.pki_mount
    where = f"Location: {bao.address}/v1/{LOOK}\r\nContent-Length: 0\r\n\r\n"
    with instead(bao, b"HTTP/1.1 307 Elsewhere\r\n" + where.encode()) as (address, heard):
        vault = hurried(configure(vault_addresses=[address]))
        with pytest.raises(SignerAwayError, match="redirects to another: name that"):
            vault.read(LOOK)
        assert heard


RUBBISH = {
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "a list": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "nothing in it": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "no token in it": b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"auth": null}',
    "cut off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "no bytes": b"",
    "a status of its own": b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("auth", ["token", "cert"])
@pytest.mark.parametrize("answer", RUBBISH.values(), ids=RUBBISH)
def test_whatever_answers_in_vaults_place_is_one_error(
    bao: OpenBao, configure: Configure, auth: str, answer: bytes
) -> None:
    with instead(bao, answer) as (address, heard):
        pair = {"vault_cert_file": str(bao.ca_file), "vault_key_file": str(bao.folder / "tls.key")}
        settings = configure(vault_addresses=[address], vault_auth=auth, **pair)
        with pytest.raises(SignerError) as error:
            hurried(settings).keep()
        assert "\n" not in str(error.value)
        assert heard


def test_a_file_of_roots_that_is_not_there_is_told(bao: OpenBao, configure: Configure) -> None:
    missing = str(bao.folder / "missing.pem")
    with pytest.raises(SignerAwayError, match=r"missing\.pem"):
        hurried(configure(vault_ca_file=missing)).keep()
