"""What a pod and the CA say to each other: join tokens, and JSON bodies. The one module that `proxy` sees.

All parsing is strict and raises `MessageError` alone: unknown, missing or doubled keys, wrong types and
sizes are errors.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from policy.identity import (
    MOST_ADDRESSES,
    IdentityError,
    PodIdentity,
    check_namespace,
    check_pod_name,
    check_service_account,
    check_trust_domain,
)

Address = IPv4Address | IPv6Address

LARGEST_BODY: Final = 16 * 1024
"""Bytes of any body: a chain of P-256 certificates takes 1 to 3 KB."""

LARGEST_ANSWER: Final = 64 * 1024
"""Bytes of what the CA answers: a bundle of four roots, vouched for by each, takes 20 KB."""

MOST_CERTIFICATES: Final = 8

_TOKEN: Final = re.compile(r"tct1\.([A-Za-z0-9_-]{1,4096})\.([A-Za-z0-9_-]{43})")
_TOKEN_ID: Final = re.compile(r"[0-9a-f]{16}")
_FINGERPRINT: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CODE: Final = re.compile(r"[a-z_]{1,40}")
LAST_SECOND: Final = 1 << 40
"""Unix seconds end here: 34,000 years on, and exact as JSON's numbers are read everywhere."""
LAST_COUNT: Final = (1 << 63) - 1


class MessageError(ValueError):
    """A token or body is not of its form; the text names the part and holds nothing secret."""


@dataclass(frozen=True, slots=True)
class JoinClaims:
    """What a join token entitles to; ``expires`` in Unix seconds."""

    id: str
    trust_domain: str
    pod: str
    namespace: str
    service_account: str
    addresses: tuple[Address, ...]
    expires: int

    @property
    def identity(self) -> PodIdentity:
        """The identity that a certificate for these claims has."""
        return PodIdentity(self.trust_domain, self.namespace, self.service_account)


@dataclass(frozen=True, slots=True)
class SignRequest:
    """A pod asks for a certificate for the key of this CSR; its token goes in the Authorization header."""

    csr: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The project's roots, PEM each."""

    roots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignResponse:
    """What was issued: PEM, leaf first, without roots; the roots as `ca.trust_bundle`; the CA's Unix time."""

    chain: tuple[str, ...]
    trust: dict[str, object]
    time: float


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """Why not: a stable code for programs, one line for people."""

    code: str
    message: str


def encode_token(claims: JoinClaims, secret: bytes) -> str:
    """Return the token's text for 32 random bytes; the CA keeps its `token_hash` only."""
    return f"tct1.{to_base64(encode_claims(claims))}.{to_base64(secret)}"


def encode_claims(claims: JoinClaims) -> bytes:
    """Return the claims as JSON."""
    fields = {
        "id": claims.id,
        "trust_domain": claims.trust_domain,
        "pod": claims.pod,
        "namespace": claims.namespace,
        "service_account": claims.service_account,
        "addresses": [str(address) for address in claims.addresses],
        "expires": claims.expires,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def parse_token(text_untrusted: str) -> JoinClaims:
    """Return what a token says of itself.

    Nothing is verified: a pod compares it with its own settings; the CA looks the whole token up by its hash
    and goes by its own record.
    """
    match = _TOKEN.fullmatch(text_untrusted)
    if match is None:
        raise MessageError("a join token: tct1.CLAIMS.SECRET, as `tencrypt ca token` prints it")
    return parse_claims(from_base64(match[1]))


def parse_claims(data_untrusted: bytes) -> JoinClaims:
    """Return claims from their JSON."""
    fields = read_object(
        data_untrusted,
        {"id", "trust_domain", "pod", "namespace", "service_account", "addresses", "expires"},
    )
    token_id, expires = read_text(fields, "id"), fields["expires"]
    if not _TOKEN_ID.fullmatch(token_id):
        raise MessageError("id: 16 hexadecimal digits")
    if type(expires) is not int or not 0 < expires < LAST_SECOND:
        raise MessageError("expires: Unix seconds")
    try:
        return JoinClaims(
            token_id,
            check_trust_domain(read_text(fields, "trust_domain")),
            check_pod_name(read_text(fields, "pod")),
            check_namespace(read_text(fields, "namespace")),
            check_service_account(read_text(fields, "service_account")),
            check_addresses(read_texts(fields, "addresses", MOST_ADDRESSES)),
            expires,
        )
    except IdentityError as error:
        raise MessageError(str(error)) from None


def check_addresses(texts: tuple[str, ...]) -> tuple[Address, ...]:
    """Return addresses that pods can have: 1 to 16, unicast, each once."""
    addresses = []
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            raise MessageError(f"address {text[:40]!r}: an IPv4 or IPv6 address") from None
        if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped):
            raise MessageError(f"address {text[:40]!r}: without scope, IPv4 as IPv4")
        if (
            address.is_multicast
            or address.is_loopback
            or address.is_link_local
            or address.is_unspecified
            or address == IPv4Address("255.255.255.255")
        ):
            raise MessageError(f"address {address}: one that a pod can have")
        addresses.append(address)
    if not 1 <= len(addresses) <= MOST_ADDRESSES or len(set(addresses)) != len(addresses):
        raise MessageError(f"addresses: 1 to {MOST_ADDRESSES}, each once")
    return tuple(addresses)


def token_hash(text: str) -> str:
    """Return what the CA keeps of a token: SHA-256, for its secret has 256 bits and needs no salt."""
    return hashlib.sha256(text.encode()).hexdigest()


def root_fingerprint(certificate_der: bytes) -> str:
    """Return a root's fingerprint as it is written everywhere: ``sha256:`` and 64 digits."""
    return f"sha256:{hashlib.sha256(certificate_der).hexdigest()}"


def root_host(fingerprint: str) -> str:
    """Return the server name by which a client asks the CA for its certificate under this root (hexadecimal)."""
    return f"{fingerprint[:32]}.root.tencrypt.invalid"


def parse_fingerprint(text_untrusted: str) -> str:
    """Return a fingerprint in that form; colons between bytes, upper case and a missing prefix are understood."""
    digits = text_untrusted.strip().lower().removeprefix("sha256:").replace(":", "")
    if not _FINGERPRINT.fullmatch(f"sha256:{digits}"):
        raise MessageError("a fingerprint: sha256: and 64 hexadecimal digits")
    return f"sha256:{digits}"


def encode(message: SignRequest | SignResponse | Bundle | ErrorResponse) -> bytes:
    """Return a message as JSON."""
    return json.dumps(asdict(message)).encode()


def parse_sign_request(data_untrusted: bytes) -> SignRequest:
    """Return a request; its CSR is text of no known form yet."""
    return SignRequest(read_text(read_object(data_untrusted, {"csr"}), "csr"))


def parse_sign_response(data_untrusted: bytes) -> SignResponse:
    """Return a response; its certificates are text of no known form yet, and its trust an object of none."""
    fields = read_object(data_untrusted, {"chain", "trust", "time"}, LARGEST_ANSWER)
    time, trust = fields["time"], fields["trust"]
    if not isinstance(trust, dict):
        raise MessageError("trust: an object")
    if not isinstance(time, int | float) or isinstance(time, bool) or not 0 < time < LAST_SECOND:
        raise MessageError("time: Unix seconds")
    chain = read_texts(fields, "chain", MOST_CERTIFICATES)
    return SignResponse(chain, trust, float(time))


def parse_bundle(data_untrusted: bytes) -> Bundle:
    """Return a bundle; its certificates are text of no known form yet."""
    return Bundle(read_texts(read_object(data_untrusted, {"roots"}), "roots", MOST_CERTIFICATES))


def parse_error(data_untrusted: bytes) -> ErrorResponse:
    """Return an error; its message is made fit for one line of a terminal."""
    fields = read_object(data_untrusted, {"code", "message"})
    code, message = read_text(fields, "code"), read_text(fields, "message")
    if not _CODE.fullmatch(code):
        raise MessageError("code: 1 to 40 of a-z _")
    return ErrorResponse(code, "".join(c if c.isprintable() else " " for c in message)[:300])


def read_object(
    data_untrusted: bytes, keys: set[str], most: int = LARGEST_BODY
) -> dict[str, object]:
    """Return the JSON object that ``data`` is, of exactly these keys and at most so many bytes."""
    if len(data_untrusted) > most:
        raise MessageError(f"more than {most} bytes")
    try:
        value: object = json.loads(data_untrusted, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise MessageError("not JSON, or a key twice") from None
    if not isinstance(value, dict) or value.keys() != keys:
        raise MessageError(f"an object of {', '.join(sorted(keys))}")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key twice")
    return fields


def read_text(fields: dict[str, object], key: str) -> str:
    """Return the text under ``key``."""
    value = fields[key]
    if not isinstance(value, str):
        raise MessageError(f"{key}: text")
    return value


def read_count(fields: dict[str, object], key: str) -> int:
    """Return the whole number under ``key``, from 0 on."""
    value = fields[key]
    if type(value) is not int or not 0 <= value <= LAST_COUNT:
        raise MessageError(f"{key}: a whole number from 0 to {LAST_COUNT}")
    return value


def read_texts(fields: dict[str, object], key: str, most: int) -> tuple[str, ...]:
    """Return the 1 to ``most`` texts under ``key``."""
    value = fields[key]
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise MessageError(f"{key}: a list of 1 to {most}")
    # All lists are of PEM blocks or addresses: ASCII, so that encoding them again cannot fail.
    if not all(isinstance(item, str) and item.isascii() for item in value):
        raise MessageError(f"{key}: a list of ASCII texts")
    return tuple(value)


def to_base64(data: bytes) -> str:
    """Return base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64(text_untrusted: str) -> bytes:
    """Return the bytes of base64url without padding."""
    try:
        return base64.b64decode(
            text_untrusted + "=" * (-len(text_untrusted) % 4), b"-_", validate=True
        )
    except (ValueError, binascii.Error):
        raise MessageError("base64url") from None
