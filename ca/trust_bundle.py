"""The project's roots as one document, and how a root vouches for it: what CA, operator and pods stand on.

::

    bundle     {"trust_domain", "version", "roots": [{"certificate": PEM, "state"}, ...],
                "revoked_issuers": [SHA256, ...]}
    vouched    {"bundle": BASE64URL of its bytes, "statements": [[PEM, ...], ...]}

A *statement* is a certificate by a root whose one name is `statement_uri` of SHA-256 of the bundle's bytes: Vault's PKI
signs certificates and nothing else. Its times are not looked at. Beside `ca.messages` and `ca.lists` this is what
`proxy` sees; parsing is as strict, and raises `MessageError` alone.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.messages import (
    LAST_COUNT,
    MOST_CERTIFICATES,
    MessageError,
    from_base64,
    read_count,
    read_object,
    read_text,
    read_texts,
    to_base64,
)
from policy.certificate import UNREADABLE
from policy.identity import IdentityError, check_trust_domain

MOST_ROOTS: Final = 4
MOST_ISSUERS: Final = 64
LARGEST_BUNDLE: Final = 16_384
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class RootState(StrEnum):
    """What a root is good for; one that is in no bundle is good for nothing."""

    NEXT = "next"
    """Trusted, and issues nothing yet."""
    ACTIVE = "active"
    """Trusted, and issues; exactly one."""
    PREVIOUS = "previous"
    """Trusted, and issues nothing any more."""
    TAINTED = "tainted"
    """As previous, and it vouches for nothing any more."""


@dataclass(frozen=True, slots=True)
class Root:
    """A root of the project, and its state."""

    certificate: x509.Certificate
    state: RootState

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, hexadecimal."""
        return fingerprint(self.certificate)


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """Roots in the order in which they were made, and issuers below them that are withdrawn, by `fingerprint`."""

    trust_domain: str
    version: int
    roots: tuple[Root, ...]
    revoked_issuers: tuple[str, ...] = ()

    @property
    def active(self) -> x509.Certificate:
        """The root that issues."""
        return next(root.certificate for root in self.roots if root.state is RootState.ACTIVE)

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """All of them: who is not trusted is not in a bundle."""
        return tuple(root.certificate for root in self.roots)

    @property
    def vouching(self) -> tuple[x509.Certificate, ...]:
        """Those whose word on bundles counts, and under which the CA's service shows itself."""
        return tuple(root.certificate for root in self.roots if root.state is not RootState.TAINTED)


@dataclass(frozen=True, slots=True)
class Vouched:
    """A bundle's bytes, and statements about them: chains in PEM, leaf first, without roots."""

    payload: bytes
    statements: tuple[tuple[str, ...], ...] = ()

    @property
    def hash(self) -> str:
        """What statements and acknowledgements name."""
        return hashlib.sha256(self.payload).hexdigest()

    def to_json(self) -> dict[str, object]:
        """Return it as it travels, and as it is kept."""
        return {
            "bundle": to_base64(self.payload),
            "statements": [list(one) for one in self.statements],
        }


def fingerprint(certificate: x509.Certificate) -> str:
    """Return SHA-256 of a certificate, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def statement_uri(trust_domain: str, bundle_hash: str) -> str:
    """Return the one name of a statement on the bundle of that hash."""
    return f"spiffe://{trust_domain}/tencrypt/statement/{bundle_hash}"


def encode_bundle(bundle: TrustBundle) -> bytes:
    """Return a bundle's bytes; a document of `parse_bundle`'s rules, or it raises `MessageError`."""
    fields = {
        "trust_domain": bundle.trust_domain,
        "version": bundle.version,
        "roots": [
            {
                "certificate": root.certificate.public_bytes(Encoding.PEM).decode("ascii"),
                "state": root.state.value,
            }
            for root in bundle.roots
        ],
        "revoked_issuers": list(bundle.revoked_issuers),
    }
    payload = json.dumps(fields, separators=(",", ":")).encode()
    parse_trust_bundle(payload)
    return payload


def parse_trust_bundle(payload_untrusted: bytes) -> TrustBundle:
    """Return what a bundle's bytes say; who vouches for it is for the caller to judge."""
    keys = {"trust_domain", "version", "roots", "revoked_issuers"}
    fields = read_object(payload_untrusted, keys, LARGEST_BUNDLE)
    roots, issuers = fields["roots"], fields["revoked_issuers"]
    if not isinstance(roots, list) or not 1 <= len(roots) <= MOST_ROOTS:
        raise MessageError(f"roots: a list of 1 to {MOST_ROOTS}")
    if not isinstance(issuers, list) or len(issuers) > MOST_ISSUERS:
        raise MessageError(f"revoked_issuers: a list of at most {MOST_ISSUERS}")
    if not all(isinstance(one, str) and _SHA256.fullmatch(one) for one in issuers):
        raise MessageError("revoked_issuers: SHA-256 each")
    try:
        trust_domain = check_trust_domain(read_text(fields, "trust_domain"))
    except IdentityError as error:
        raise MessageError(str(error)) from None
    bundle = TrustBundle(
        trust_domain, read_count(fields, "version"), tuple(map(_root, roots)), tuple(issuers)
    )
    _check_roots(bundle.roots)
    if not 0 < bundle.version < LAST_COUNT:
        raise MessageError("version: from 1 on")
    return bundle


def _root(value: object) -> Root:
    if not isinstance(value, dict) or value.keys() != {"certificate", "state"}:
        raise MessageError("a root: an object of certificate, state")
    state = read_text(value, "state")
    if state not in set(RootState):
        raise MessageError(f"state: {', '.join(RootState)}")
    try:
        certificate = x509.load_pem_x509_certificate(read_text(value, "certificate").encode())
        certificate.public_key()
    except UNREADABLE:
        raise MessageError("certificate: PEM") from None
    return Root(certificate, RootState(state))


def _check_roots(roots: Iterable[Root]) -> None:
    states = [root.state for root in roots]
    if states.count(RootState.ACTIVE) != 1 or states.count(RootState.NEXT) > 1:
        raise MessageError("roots: one is active, and one at most is next")
    keys = {
        root.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for root in roots
    }
    if len(keys) != len(states):
        raise MessageError("roots: each with a key of its own")


def read_vouched(value_untrusted: object) -> Vouched:
    """Return what travelled: a JSON object that was read before."""
    value = value_untrusted
    if not isinstance(value, dict) or value.keys() != {"bundle", "statements"}:
        raise MessageError("a bundle: an object of bundle, statements")
    statements = value["statements"]
    if not isinstance(statements, list) or len(statements) > MOST_ROOTS:
        raise MessageError(f"statements: a list of at most {MOST_ROOTS}")
    return Vouched(
        from_base64(read_text(value, "bundle")),
        tuple(read_texts({"statement": one}, "statement", MOST_CERTIFICATES) for one in statements),
    )
