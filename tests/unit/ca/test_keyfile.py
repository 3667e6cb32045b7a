"""The root's key on disk opens with its passphrase alone, and is hard to guess."""

import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from ca.keyfile import decrypt_key, encrypt_key

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = encrypt_key(KEY, b"correct horse", bytes(range(32)))


def test_key_opens_with_its_passphrase() -> None:
    assert decrypt_key(PEM, b"correct horse").private_numbers() == KEY.private_numbers()


@pytest.mark.parametrize("passphrase", [b"", b"correct", b"correct horse "])
def test_key_does_not_open_with_another(passphrase: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the texts are the library's
        decrypt_key(PEM, passphrase)


def test_openssl_opens_it_and_finds_scrypt() -> None:
    command = ["openssl", "pkey", "-passin", "pass:correct horse", "-outform", "DER"]
    plain = subprocess.run(command, input=PEM, capture_output=True, check=True).stdout
    assert KEY.private_numbers().private_value.to_bytes(32, "big") in plain
    shown = subprocess.run(["openssl", "asn1parse"], input=PEM, capture_output=True, check=True)
    assert b"1.3.6.1.4.1.11591.4.11" in shown.stdout or b"scrypt" in shown.stdout


def test_same_key_is_never_written_twice_alike() -> None:
    assert encrypt_key(KEY, b"correct horse", bytes(32)) != PEM


def test_key_in_clear_is_refused() -> None:
    clear = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="not encrypted"):
        decrypt_key(clear, b"correct horse")


def test_key_of_another_kind_is_refused() -> None:
    other = rsa.generate_private_key(65537, 2048)
    pem = other.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse")
    )
    with pytest.raises(ValueError, match="not an ECDSA key"):
        decrypt_key(pem, b"correct horse")
