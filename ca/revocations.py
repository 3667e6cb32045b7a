"""Who is withdrawn: what the CA's owner has on record, and what it means for a namespace and for a request."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Final

from ca.documents import Documents, JsonObject, read_as
from ca.lists import MOST_REVOKED, Revoked
from ca.messages import MessageError, read_count, read_text
from ca.refusal import Refusal, Refused

REVOCATIONS: Final = "revocations"
"""Name of the document."""


class Kind(StrEnum):
    """What an entry withdraws."""

    CERTIFICATE = "certificate"
    POD = "pod"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate by its serial (hexadecimal), or a pod or service account of a namespace, by name.

    ``since`` in Unix seconds. A certificate's entry is forgotten at ``ends``, when it has ended; 0: never.
    """

    kind: Kind
    namespace: str
    name: str
    since: int
    reason: str = ""
    ends: int = 0

    @property
    def what(self) -> tuple[Kind, str, str]:
        """What is withdrawn."""
        return self.kind, self.namespace, self.name


@dataclass(frozen=True, slots=True)
class RevocationList:
    """All that is withdrawn, the latest last."""

    entries: tuple[Entry, ...] = ()

    def adding(self, entry: Entry) -> "RevocationList":
        """Return it with an entry more, as it is where that is withdrawn already; raises `MessageError` where full."""
        if any(one.what == entry.what for one in self.entries):
            return self
        kept = [one for one in self.entries if not one.ends or one.ends >= entry.since]
        if len(kept) >= MOST_REVOKED:
            raise MessageError(f"a list holds {MOST_REVOKED} entries")
        return replace(self, entries=(*kept, entry))

    def lifting(self, what: tuple[Kind, str, str]) -> "RevocationList":
        """Return it without what is withdrawn no more; as it is where that was not."""
        kept = tuple(one for one in self.entries if one.what != what)
        return self if len(kept) == len(self.entries) else replace(self, entries=kept)

    def seen_by(self, namespace: str, crl: Iterable[str] = ()) -> Revoked:
        """Return what the pods of a namespace hear, with the serials of the signer's own list, sorted."""

        def named(kind: Kind) -> tuple[str, ...]:
            return tuple(
                sorted(
                    one.name
                    for one in self.entries
                    if one.kind is kind and one.namespace in {namespace, ""}
                )
            )

        serials = {*named(Kind.CERTIFICATE), *crl}
        return Revoked(tuple(sorted(serials)), named(Kind.POD), named(Kind.IDENTITY))


def check_not_revoked(
    revoked: Revoked, pod: str, service_account: str, serials: Iterable[str] = ()
) -> None:
    """Raise `Refused` where a pod, or one of the certificates by which it asks, is withdrawn."""
    if pod in revoked.pods:
        raise Refused(Refusal.REVOKED, f"pod {pod} is withdrawn")
    if service_account in revoked.service_accounts:
        raise Refused(Refusal.REVOKED, f"service account {service_account} is withdrawn")
    for serial in serials:
        if serial in revoked.serials:
            raise Refused(Refusal.REVOKED, f"certificate {serial} is withdrawn")


def digest(revoked: Revoked) -> str:
    """Return what differs between any two."""
    return hashlib.sha256(repr(asdict(revoked)).encode()).hexdigest()


def read_revocations(documents: Documents) -> tuple[RevocationList, int]:
    """Return what is on record, and the document's version; raises `StateError`."""
    return read_as(documents, REVOCATIONS, parse)


def to_json(revoked: RevocationList) -> JsonObject:
    """Return the document's content."""
    return {"entries": [asdict(entry) for entry in revoked.entries]}


def parse(content: JsonObject) -> RevocationList:
    """Return what a document says, nobody for none; raises `MessageError`."""
    if not content:
        return RevocationList()
    entries = content.get("entries")
    if not isinstance(entries, list):
        raise MessageError("entries: a list")
    return RevocationList(tuple(map(_entry, entries)))


def _entry(value: object) -> Entry:
    if not isinstance(value, dict):
        raise MessageError("an entry: an object")
    try:
        kind = read_text(value, "kind")
        if kind not in set(Kind):
            raise MessageError(f"kind: {', '.join(Kind)}")
        return Entry(
            Kind(kind),
            read_text(value, "namespace"),
            read_text(value, "name"),
            read_count(value, "since"),
            read_text(value, "reason"),
            read_count(value, "ends"),
        )
    except KeyError as error:
        raise MessageError(f"an entry without {error}") from None
