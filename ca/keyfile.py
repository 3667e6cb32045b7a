"""The root's key as a file: PKCS #8, encrypted under a key that scrypt derives from the passphrase.

The libraries at hand write encrypted PKCS #8 with 2,048 rounds of PBKDF2, which a passphrase that people
choose does not bear. So the envelope is written here; reading is the library's, and `openssl pkey` opens it
too::

    EncryptedPrivateKeyInfo                          RFC 5958 section 3
      PBES2                                          RFC 8018 section 6.2
        scrypt: salt, N = 2^14, r = 8, p = 5         RFC 7914 section 7
        AES-256-CBC: IV
      the PrivateKeyInfo, padded and encrypted
"""

import base64
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

# As hard to guess against as N = 2^17 with p = 1, in the 32 MB that OpenSSL allows a reader.
_N: Final = 1 << 14
_R: Final = 8
_P: Final = 5

_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_SEQUENCE: Final = 0x30
_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT: Final = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC: Final = bytes.fromhex("060960864801650304012a")


def encrypt_key(key: EllipticCurvePrivateKey, passphrase: bytes, random: bytes) -> bytes:
    """Return the key as PEM; ``random`` is 32 fresh bytes, for salt and IV."""
    salt, iv = random[:16], random[16:32]
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    padder = PKCS7(128).padder()
    derived = Scrypt(salt=salt, length=32, n=_N, r=_R, p=_P).derive(passphrase)
    encryptor = Cipher(algorithms.AES256(derived), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    parameters = _der(_SEQUENCE, _der(_OCTETS, salt), _integer(_N), _integer(_R), _integer(_P))
    scheme = _der(
        _SEQUENCE,
        _der(_SEQUENCE, _SCRYPT, parameters),
        _der(_SEQUENCE, _AES_256_CBC, _der(_OCTETS, iv)),
    )
    envelope = _der(_SEQUENCE, _der(_SEQUENCE, _PBES2, scheme), _der(_OCTETS, encrypted))
    lines = base64.encodebytes(envelope).replace(b"\n", b"")
    body = b"\n".join(lines[i : i + 64] for i in range(0, len(lines), 64))
    return (
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n%b\n-----END ENCRYPTED PRIVATE KEY-----\n" % body
    )


def decrypt_key(pem: bytes, passphrase: bytes) -> EllipticCurvePrivateKey:
    """Return the key; raises ValueError where the passphrase or the file is wrong."""
    try:
        key = load_pem_private_key(pem, passphrase)
    except TypeError:  # what the library raises for a key that is not encrypted
        raise ValueError("the key is not encrypted") from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")  # noqa: TRY004 - one exception for a bad file
    return key


def _integer(value: int) -> bytes:
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _der(tag: int, *parts: bytes) -> bytes:
    """Return one element (X.690 section 8.1); contents up to 65,535 bytes."""
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content
