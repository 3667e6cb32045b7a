"""What forbids: the bundle in force, and who is withdrawn, read together, after the record it is held against."""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509

from ca.documents import Documents
from ca.lists import Revoked
from ca.revocations import RevocationList, read_revocations
from ca.trust import Trust, read_trust

ReadCrl = Callable[[], frozenset[str]]
"""Gives the serials (hexadecimal) that a remote signer has withdrawn by itself; raises `SignerError`."""


def no_crl() -> frozenset[str]:
    """Return what a signer without a list of its own has withdrawn."""
    return frozenset()


@dataclass(frozen=True, slots=True)
class Facts:
    """The bundle, and who is withdrawn."""

    trust: Trust
    revoked: RevocationList
    crl: frozenset[str] = frozenset()

    @property
    def active(self) -> x509.Certificate:
        """The root that issues."""
        return self.trust.bundle.active

    def revoked_in(self, namespace: str) -> Revoked:
        """Return who is withdrawn as a namespace hears it."""
        return self.revoked.seen_by(namespace, self.crl)


def read_facts(documents: Documents, read_crl: ReadCrl = no_crl) -> Facts:
    """Read them; raises `StateError` and `SignerError`."""
    trust, (revoked, _) = read_trust(documents), read_revocations(documents)
    return Facts(trust, revoked, read_crl())
