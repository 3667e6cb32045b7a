"""The signed roster: which pods of a namespace have a live certificate, and at which addresses.

::

    envelope   {"payload": BASE64URL, "chain": [PEM, ...], "signature": BASE64URL, "trust": VOUCHED}
    payload    {"trust_domain", "namespace", "version", "issued", "next", "entries": [ENTRY, ...],
                "bundle": SHA256, "revoked": {"serials", "pods", "service_accounts"}}
    ENTRY      {"pod", "service_account", "addresses", "ends"}

The signature (ECDSA with SHA-256, DER) is by the first certificate of the chain, a list signer's, over `CONTEXT`
and the payload's very bytes: nothing is written anew before it is verified. With it travels the project's bundle of
roots (`ca.trust_bundle`), for which roots vouch and no list signer; the payload names it by its hash. Beside
`ca.messages` this is what `proxy` sees; parsing is as strict, and raises `MessageError` alone.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ca.messages import (
    LAST_COUNT,
    LAST_SECOND,
    MOST_CERTIFICATES,
    Address,
    MessageError,
    check_addresses,
    from_base64,
    read_object,
    read_text,
    read_texts,
    to_base64,
)
from ca.trust_bundle import Vouched, read_vouched
from policy.identity import (
    MOST_ADDRESSES,
    IdentityError,
    check_namespace,
    check_pod_name,
    check_service_account,
    check_trust_domain,
)

CONTEXT: Final = b"tencrypt roster v1\0"
"""Stands before the payload where it is signed: such a signature is good for nothing else."""

LARGEST_ENVELOPE: Final = 1 << 20
"""Bytes: an entry takes some 130 to 170 in base64url, so 6,000 to 8,000 fit."""

MOST_ENTRIES: Final = 8192

LONGEST_USE: Final = 3600
"""Seconds for which a list may be used at most, whatever certificates live: a pod that joined later is not on it."""

FURTHEST: Final = 86_400
"""Seconds by which a version, in Unix milliseconds, may be in the future: where the CA's clock was set back."""

LAST_VERSION: Final = LAST_COUNT

_LARGEST_SIGNATURE: Final = 80
"""Bytes of ECDSA P-256 in DER, and some."""


MOST_REVOKED: Final = 4096
"""Of each kind."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SERIAL: Final = re.compile(r"[1-9a-f][0-9a-f]{0,39}")


@dataclass(frozen=True, slots=True)
class Revoked:
    """Who is withdrawn: certificates by serial (hexadecimal), pods and service accounts of the namespace by name."""

    serials: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()


NOBODY: Final = Revoked()


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """A pod with a live certificate, which ends at ``ends`` (Unix seconds).

    ``service_account`` is empty where the CA's record of the pod is older than rosters.
    """

    pod: str
    service_account: str
    addresses: tuple[Address, ...]
    ends: int


@dataclass(frozen=True, slots=True)
class Roster:
    """The pods of a namespace; ``issued``, and ``next`` until which it may be used, in Unix seconds.

    Another version has other entries. Of two rosters the one of the higher `age_key` is the newer.
    """

    trust_domain: str
    namespace: str
    version: int
    issued: int
    next: int
    entries: tuple[RosterEntry, ...]
    bundle: str
    revoked: Revoked = NOBODY

    @property
    def age_key(self) -> tuple[int, int]:
        """What orders rosters of one namespace: version, then when it was signed."""
        return self.version, self.issued


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its signature, the signer's chain (PEM, leaf first, without the root), and the bundle."""

    payload: bytes
    chain: tuple[str, ...]
    signature: bytes
    trust: Vouched


def encode_roster(roster: Roster) -> bytes:
    """Return the payload; raises `MessageError` where there are more entries than fit."""
    if len(roster.entries) > MOST_ENTRIES:
        raise MessageError(f"entries: at most {MOST_ENTRIES}")
    revoked = roster.revoked
    if max(map(len, (revoked.serials, revoked.pods, revoked.service_accounts))) > MOST_REVOKED:
        raise MessageError(f"revoked: at most {MOST_REVOKED} of each kind")
    fields = {
        "trust_domain": roster.trust_domain,
        "namespace": roster.namespace,
        "version": roster.version,
        "issued": roster.issued,
        "next": roster.next,
        "entries": [
            {
                "pod": entry.pod,
                "service_account": entry.service_account,
                "addresses": [str(address) for address in entry.addresses],
                "ends": entry.ends,
            }
            for entry in roster.entries
        ],
        "bundle": roster.bundle,
        "revoked": {
            "serials": list(revoked.serials),
            "pods": list(revoked.pods),
            "service_accounts": list(revoked.service_accounts),
        },
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def encode_envelope(envelope: Envelope) -> bytes:
    """Return the envelope as it travels; raises `MessageError` where it is larger than any may be."""
    fields = {
        "payload": to_base64(envelope.payload),
        "chain": envelope.chain,
        "signature": to_base64(envelope.signature),
        "trust": envelope.trust.to_json(),
    }
    encoded = json.dumps(fields, separators=(",", ":")).encode()
    if len(encoded) > LARGEST_ENVELOPE:
        raise MessageError(f"a roster of {len(encoded)} bytes: at most {LARGEST_ENVELOPE}")
    return encoded


def parse_envelope(data_untrusted: bytes) -> Envelope:
    """Return an envelope; nothing of it is verified, and its payload and certificates are of no known form yet."""
    keys = {"payload", "chain", "signature", "trust"}
    fields = read_object(data_untrusted, keys, LARGEST_ENVELOPE)
    signature = from_base64(read_text(fields, "signature"))
    if not 0 < len(signature) <= _LARGEST_SIGNATURE:
        raise MessageError(f"signature: 1 to {_LARGEST_SIGNATURE} bytes")
    return Envelope(
        from_base64(read_text(fields, "payload")),
        read_texts(fields, "chain", MOST_CERTIFICATES),
        signature,
        read_vouched(fields["trust"]),
    )


def parse_roster(payload_untrusted: bytes) -> Roster:
    """Return what a payload says; whose it is, and whether it is good now, is for the caller to judge."""
    fields = read_object(
        payload_untrusted,
        {"trust_domain", "namespace", "version", "issued", "next", "entries", "bundle", "revoked"},
        LARGEST_ENVELOPE,
    )
    entries = fields["entries"]
    if not isinstance(entries, list) or len(entries) > MOST_ENTRIES:
        raise MessageError(f"entries: a list of at most {MOST_ENTRIES}")
    try:
        return Roster(
            check_trust_domain(read_text(fields, "trust_domain")),
            check_namespace(read_text(fields, "namespace")),
            _number(fields, "version", LAST_VERSION),
            _number(fields, "issued", LAST_SECOND),
            _number(fields, "next", LAST_SECOND),
            tuple(_entry(each) for each in entries),
            _matching(fields["bundle"], "bundle", _SHA256),
            _revoked(fields["revoked"]),
        )
    except IdentityError as error:
        raise MessageError(str(error)) from None


def _entry(value: object) -> RosterEntry:
    if not isinstance(value, dict) or value.keys() != {
        "pod",
        "service_account",
        "addresses",
        "ends",
    }:
        raise MessageError("an entry: an object of addresses, ends, pod, service_account")
    account = read_text(value, "service_account")
    return RosterEntry(
        check_pod_name(read_text(value, "pod")),
        check_service_account(account) if account else "",
        _addresses(read_texts(value, "addresses", MOST_ADDRESSES)),
        _number(value, "ends", LAST_SECOND),
    )


def _revoked(value: object) -> Revoked:
    if not isinstance(value, dict) or value.keys() != {"serials", "pods", "service_accounts"}:
        raise MessageError("revoked: an object of pods, serials, service_accounts")
    for name, listed in value.items():
        if not isinstance(listed, list) or len(listed) > MOST_REVOKED:
            raise MessageError(f"{name}: a list of at most {MOST_REVOKED}")
    return Revoked(
        tuple(_matching(one, "serials", _SERIAL) for one in value["serials"]),
        tuple(check_pod_name(read_text({"pods": one}, "pods")) for one in value["pods"]),
        tuple(
            check_service_account(read_text({"service_accounts": one}, "service_accounts"))
            for one in value["service_accounts"]
        ),
    )


def _matching(value: object, name: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise MessageError(f"{name}: {pattern.pattern}")
    return value


# The greater part of reading a roster, of which the next differs by a pod or two.
_addresses = lru_cache(maxsize=MOST_ENTRIES)(check_addresses)


def _number(fields: dict[str, object], key: str, last: int) -> int:
    value = fields[key]
    if type(value) is not int or not 0 < value <= last:
        raise MessageError(f"{key}: a whole number from 1 to {last}")
    return value
