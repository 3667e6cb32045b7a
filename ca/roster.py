"""The roster of each namespace, of the leases that are live, and its signature.

**Versions never fall**, for pods take no older one. A new one is at least the Unix time in milliseconds, and more
than the last, which is on record before anybody sees it: where an old backup of the records comes back the clock
is ahead of it, where the clock was set back the record is ahead of that. (Both at once would fall behind.)

**What makes a new version.** That a pod comes, goes or changes its addresses (`Rosters.has_news`), at once. That a
certificate ends later than the last roster said, at the next signing: each renewal would otherwise send the whole
list to every pod.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ca.issue import Store
from ca.lease import Lease, live_leases
from ca.lists import (
    CONTEXT,
    Envelope,
    Roster,
    RosterEntry,
    encode_envelope,
    encode_roster,
)
from ca.signer import Signer, for_lists, make_csr

SIGNER_LIFE: Final = timedelta(hours=24)
"""Life of the list signer's certificate, whose key is replaced at half of it."""

LONGEST_USE: Final = timedelta(hours=1)
"""How long a roster may be used at most, however long certificates live: a pod that joined later is not on it."""


class RosterStore(Store, Protocol):
    """What is on record, and the last version of each namespace's roster."""

    def roster_versions(self) -> Mapping[str, int]:
        """Return the last version by namespace; those that had none are missing."""

    def put_roster_versions(self, versions: Mapping[str, int]) -> None:
        """Put these in the place of all earlier ones, durably."""


@dataclass(frozen=True, slots=True)
class SignedRoster:
    """A roster and the envelope in which it travels."""

    roster: Roster
    envelope: bytes


def entries_of(leases: Iterable[Lease], namespace: str, wall: float) -> tuple[RosterEntry, ...]:
    """Return the namespace's live leases as a roster lists them, sorted."""
    entries = (
        RosterEntry(lease.pod, lease.service_account, lease.addresses, lease.ends)
        for lease in live_leases(leases, wall)
        if lease.namespace == namespace
    )
    return tuple(sorted(entries, key=lambda one: (one.pod, [a.packed for a in one.addresses])))


class ListSigner:
    """A key in memory that signs lists, and its certificate."""

    def __init__(self, signer: Signer, wall: datetime) -> None:
        """Make a key, and have it certified for `SIGNER_LIFE`; raises `SignerError`."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        wanted = for_lists(self._key.public_key(), signer.trust_domain, make_csr(self._key))
        self._chain = signer.sign(wanted, wall, SIGNER_LIFE)

    @property
    def certificate(self) -> x509.Certificate:
        """The key's."""
        return self._chain[0]

    def is_fresh(self, wall: datetime) -> bool:
        """Say whether the first half of the certificate's life lasts."""
        begins, ends = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        return begins <= wall < begins + (ends - begins) / 2

    def sign(self, payload: bytes) -> bytes:
        """Return the payload's envelope; raises `ca.messages.MessageError` where it is too large."""
        chain = tuple(one.public_bytes(Encoding.PEM).decode("ascii") for one in self._chain)
        signature = self._key.sign(CONTEXT + payload, ec.ECDSA(hashes.SHA256()))
        return encode_envelope(Envelope(payload, chain, signature))


class Rosters:
    """The latest roster of each namespace that was asked for."""

    def __init__(self, signer: Signer, store: RosterStore, life: timedelta) -> None:
        """Have a list signer certified by ``signer``; ``life`` is that of pods' certificates."""
        self._certifier, self._store = signer, store
        self.use = min(life, LONGEST_USE)
        """How long a roster may be used from its issue on."""
        self._trust_domain = signer.trust_domain
        self._latest: dict[str, SignedRoster] = {}
        self._signer: ListSigner | None = None

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Those of which there is a roster."""
        return tuple(self._latest)

    @property
    def signer(self) -> x509.Certificate | None:
        """The list signer's certificate; None before the first signature."""
        return self._signer.certificate if self._signer else None

    def latest(self, namespace: str) -> SignedRoster | None:
        """Return what was signed last, if anything."""
        return self._latest.get(namespace)

    def has_news(self, namespace: str, wall: datetime) -> bool:
        """Say whether pods or addresses differ from the latest roster's; that an end moved is no news."""
        latest = self._latest[namespace].roster.entries
        entries = entries_of(self._store.leases(), namespace, wall.timestamp())
        return _without_ends(entries) != _without_ends(latest)

    def sign(self, namespace: str, wall: datetime) -> SignedRoster:
        """Sign the roster of what is live at ``wall``.

        Raises what the store and the signer raise, and `ca.messages.MessageError` where it would be too large: the
        latest stays what it was.
        """
        entries = entries_of(self._store.leases(), namespace, wall.timestamp())
        issued = int(wall.timestamp())
        roster = Roster(
            self._trust_domain,
            namespace,
            self._version(namespace, entries, wall),
            issued,
            issued + max(1, int(self.use.total_seconds())),
            entries,
        )
        if self._signer is None or not self._signer.is_fresh(wall):
            self._signer = ListSigner(self._certifier, wall)
        signed = SignedRoster(roster, self._signer.sign(encode_roster(roster)))
        self._latest[namespace] = signed
        return signed

    def _version(self, namespace: str, entries: tuple[RosterEntry, ...], wall: datetime) -> int:
        signed = self._latest.get(namespace)
        # A clock that was set back makes a version, too: of one version pods take what was signed later.
        was_set_back = signed is not None and signed.roster.issued > wall.timestamp()
        if signed is not None and signed.roster.entries == entries and not was_set_back:
            return signed.roster.version
        versions = self._store.roster_versions()
        version = max(versions.get(namespace, 0) + 1, int(wall.timestamp() * 1000))
        self._store.put_roster_versions({**versions, namespace: version})
        return version


def _without_ends(entries: Iterable[RosterEntry]) -> list[RosterEntry]:
    return [replace(entry, ends=0) for entry in entries]
