"""What `tencrypt ca show` says of a CA: plain data for programs, tables for people."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.documents import NAMESPACES, Documents, read_as
from ca.issue import TokenRecord
from ca.lease import Lease, live_leases
from ca.messages import Address, JoinClaims, root_fingerprint
from ca.namespace import parse

JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class Overview:
    """The root, and what of tokens and leases is still good."""

    trust_domain: str
    root: x509.Certificate
    tokens: tuple[JoinClaims, ...]
    leases: tuple[Lease, ...]


def read_leases(documents: Documents) -> tuple[Lease, ...]:
    """Return the leases of all namespaces; raises `ca.documents.StateError`."""
    found: list[Lease] = []
    for name in documents.names(NAMESPACES):
        found += read_as(documents, name, parse)[0].leases
    return tuple(found)


def look(
    trust_domain: str,
    root: x509.Certificate,
    tokens: Iterable[TokenRecord],
    leases: Iterable[Lease],
    wall: datetime,
) -> Overview:
    """Return what is good at ``wall``."""
    now = wall.timestamp()
    return Overview(
        trust_domain,
        root,
        tuple(token.claims for token in tokens if token.claims.expires > now),
        live_leases(leases, now),
    )


def to_json(overview: Overview) -> JsonObject:
    """Return it for programs; times in Unix seconds."""
    root = overview.root
    return {
        "trust_domain": overview.trust_domain,
        "root": {
            "subject": root.subject.rfc4514_string(),
            "fingerprint": _fingerprint(root),
            "not_before": int(root.not_valid_before_utc.timestamp()),
            "not_after": int(root.not_valid_after_utc.timestamp()),
        },
        "tokens": [
            asdict(each) | {"addresses": _texts(each.addresses)} for each in overview.tokens
        ],
        "leases": [_lease_json(each) for each in overview.leases],
    }


def _lease_json(lease: Lease) -> JsonObject:
    return {
        "token_id": lease.token_id,
        "pod": lease.pod,
        "namespace": lease.namespace,
        "addresses": _texts(lease.addresses),
        "serial": lease.serial,
        "ends": lease.ends,
        "renewals": lease.renewals,
    }


def draw(overview: Overview) -> str:
    """Return it for a terminal."""
    root = overview.root
    begins, ends = root.not_valid_before_utc, root.not_valid_after_utc
    tokens = [
        (t.id, f"{t.namespace}/{t.pod}", _time(t.expires), " ".join(_texts(t.addresses)))
        for t in overview.tokens
    ]
    leases = [
        (
            held.token_id,
            f"{held.namespace}/{held.pod}",
            _time(held.ends),
            str(held.renewals),
            " ".join(_texts(held.addresses)),
        )
        for held in overview.leases
    ]
    lines = [
        f"trust domain  {overview.trust_domain}",
        f"root          {root.subject.rfc4514_string()}",
        f"fingerprint   {_fingerprint(root)}",
        f"valid         {begins:%Y-%m-%d} to {ends:%Y-%m-%d}",
        "",
        *table("live join tokens", ("token", "pod", "expires", "addresses"), tokens),
        "",
        *table("addresses in use", ("token", "pod", "ends", "renewed", "addresses"), leases),
    ]
    return "\n".join(lines)


def _fingerprint(root: x509.Certificate) -> str:
    return root_fingerprint(root.public_bytes(Encoding.DER))


def _texts(addresses: Iterable[Address]) -> list[str]:
    return [str(address) for address in addresses]


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a table's lines."""
    if not rows:
        return [f"{title}: none"]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    padded = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        for row in (header, *rows)
    )
    return [f"{title}:", *(f"  {line.rstrip()}" for line in padded)]
