"""The roster of each namespace as it is on record (`ca.namespace`), and its signature.

It is signed anew each minute, with the ends of certificates as they are then; its version is the record's.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ca.facts import Facts
from ca.lists import (
    CONTEXT,
    LONGEST_USE,
    Envelope,
    Roster,
    encode_envelope,
    encode_roster,
)
from ca.namespace import Namespace, is_beyond
from ca.revocations import digest
from ca.signer import Signer, for_lists, make_csr, pems
from ca.trust_bundle import Vouched

SIGNER_LIFE: Final = timedelta(hours=24)
"""Life of the list signer's certificate, whose key is replaced at half of it."""

_SKEW: Final = 60
"""Seconds by which servers' clocks may differ."""


@dataclass(frozen=True, slots=True)
class SignedRoster:
    """A roster and the envelope in which it travels."""

    roster: Roster
    envelope: bytes


class ListSigner:
    """A key in memory that signs lists, and its certificate."""

    def __init__(self, signer: Signer, root: x509.Certificate, wall: datetime) -> None:
        """Make a key, and have it certified under ``root`` for `SIGNER_LIFE`; raises `SignerError`."""
        self.root = root
        self._key = ec.generate_private_key(ec.SECP256R1())
        wanted = for_lists(self._key.public_key(), signer.trust_domain, make_csr(self._key))
        self._chain = signer.sign(root, wanted, wall, SIGNER_LIFE)

    @property
    def certificate(self) -> x509.Certificate:
        """The key's."""
        return self._chain[0]

    def is_fresh(self, wall: datetime) -> bool:
        """Say whether the first half of the certificate's life lasts."""
        begins, ends = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        return begins <= wall < begins + (ends - begins) / 2

    def sign(self, payload: bytes, trust: Vouched) -> bytes:
        """Return the payload's envelope, a bundle beside it; raises `ca.messages.MessageError` where too large."""
        chain = pems(self._chain)
        signature = self._key.sign(CONTEXT + payload, ec.ECDSA(hashes.SHA256()))
        return encode_envelope(Envelope(payload, chain, signature, trust))


class Rosters:
    """The latest roster of each namespace that was asked for."""

    def __init__(self, signer: Signer, life: timedelta) -> None:
        """Have a list signer certified by ``signer``; ``life`` is that of pods' certificates."""
        self._certifier = signer
        self.use = min(life, timedelta(seconds=LONGEST_USE))
        """How long a roster may be used from its issue on."""
        self._trust_domain = signer.trust_domain
        self._latest: dict[str, SignedRoster] = {}
        self._claimed: dict[str, int] = {}
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

    def claim(self, namespace: str, version: int, wall: datetime) -> None:
        """Note that a pod has a roster of this version: where ours is older, records were restored, or so it says."""
        if not is_beyond(version, wall.timestamp()):
            self._claimed[namespace] = max(version, self._claimed.get(namespace, 0))

    def due(self, namespace: str, record: Namespace, facts: Facts, wall: datetime) -> Namespace:
        """Return what is to be on record before it is signed: as a rule what is. ``facts`` were read after ``record``.

        What forbids is taken in with a version of its own: so no server that has read earlier takes it out again.
        Pods would not take its roster after an older copy of the record came back, or where the clock was set back (of
        one version they take what was signed later): its version rises.
        """
        now, latest = wall.timestamp(), self._latest.get(namespace)
        above = max(self._claimed.get(namespace, 0), latest.roster.version if latest else 1)
        was_set_back = (
            record.version > (now + _SKEW) * 1000 if latest is None else latest.roster.issued > now
        )
        is_stale = record.version < above or was_set_back or is_beyond(record.version, now)
        taken = facts.trust.hash, digest(facts.revoked_in(namespace))
        if (record.bundle, record.revoked) != taken:
            bundle, revoked = taken
            is_stale, record = True, replace(record.changed(now), bundle=bundle, revoked=revoked)
        if is_stale:
            return record.raised(now, above)
        return record.changed(now) if record.is_due(now) else record

    def sign(self, namespace: str, record: Namespace, facts: Facts, wall: datetime) -> SignedRoster:
        """Sign the roster of what is on record, and of the facts that it has taken in.

        Raises `SignerError`, and `ca.messages.MessageError` where it would be too large: the latest stays what it was.
        """
        issued = int(wall.timestamp())
        roster = Roster(
            self._trust_domain,
            namespace,
            record.version,
            issued,
            issued + max(1, int(self.use.total_seconds())),
            record.entries(),
            facts.trust.hash,
            facts.revoked_in(namespace),
        )
        signer = self._signer
        if signer is None or not signer.is_fresh(wall) or signer.root != facts.active:
            signer = self._signer = ListSigner(self._certifier, facts.active, wall)
        envelope = signer.sign(encode_roster(roster), facts.trust.vouched)
        signed = SignedRoster(roster, envelope)
        self._latest[namespace] = signed
        self._claimed.pop(namespace, None)
        return signed
