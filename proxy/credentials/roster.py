"""The signed roster as a pod believes it: from the CA or from another pod, it is judged alone by what it is.

In this order, so that a stranger's bytes cost a chain and a signature, and are read no further:

1. the envelope's form and size (`ca.lists`), and the bundle of roots beside the list (`proxy.credentials.bundle`):
   a new one is taken although the list may be refused,
2. the signer's chain leads to a root of ours, each certificate of it is good now, and the first is a list
   signer's of our trust domain: no pod's and no server's is,
3. the signature over the payload's bytes,
4. the payload: trust domain and namespace are ours, it was not issued in the future, nor is its version of a day
   to come (a thief's would never be followed), it may still be used,
5. it is not older than the one we have: no former list can be put in its place.
"""

from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ca.lists import CONTEXT, FURTHEST, LONGEST_USE, Envelope, Roster, parse_envelope, parse_roster
from ca.messages import MessageError
from ca.trust_bundle import Vouched
from policy.certificate import UNREADABLE, check_list_signer
from proxy.credentials.certificate import PodCertificate
from proxy.credentials.judge import check_times
from proxy.credentials.trust import Believed
from proxy.drops import Drop
from proxy.errors import Dropped

__all__ = ["HeldRoster", "Roster", "verify_roster"]

EARLY: Final = 60
"""Seconds by which a roster may have been issued in the future: our clock follows the CA's at each renewal."""


def verify_roster(
    envelope_untrusted: bytes,
    believed: Believed,
    own: PodCertificate,
    wall: float,
    former: Roster | None = None,
) -> Roster:
    """Return the roster of our namespace that the envelope holds, or raise `Dropped` (ROSTER) with the reason.

    ``wall`` is Unix seconds by the local clock as corrected by the CA. One as old as ``former`` is taken: it is
    the same.
    """
    return _verify(_read(envelope_untrusted), believed, own, wall, former)


def _read(envelope_untrusted: bytes) -> Envelope:
    try:
        return parse_envelope(envelope_untrusted)
    except MessageError as error:
        raise Dropped(Drop.ROSTER, str(error)) from None


def _verify(
    envelope: Envelope,
    believed: Believed,
    own: PodCertificate,
    wall: float,
    former: Roster | None,
) -> Roster:
    trust_domain, namespace = own.identity.trust_domain, own.identity.namespace
    try:
        _verify_signature(envelope, believed, trust_domain, wall)
        roster = parse_roster(envelope.payload)
    except MessageError as error:
        raise Dropped(Drop.ROSTER, str(error)) from None
    if (roster.trust_domain, roster.namespace) != (trust_domain, namespace):
        raise Dropped(Drop.ROSTER, f"of {roster.namespace} in {roster.trust_domain}")
    if roster.issued > wall + EARLY:
        raise Dropped(Drop.ROSTER, f"issued {roster.issued - wall:.0f} s from now")
    _check_version(roster, wall)
    if roster.next > roster.issued + LONGEST_USE:
        raise Dropped(Drop.ROSTER, f"for {roster.next - roster.issued} s")
    if roster.next <= wall:
        raise Dropped(Drop.ROSTER, f"over for {wall - roster.next:.0f} s")
    if former is not None and roster.age_key < former.age_key:
        raise Dropped(Drop.ROSTER, f"version {roster.version} is older than {former.version}")
    return roster


def _check_version(roster: Roster, wall: float) -> None:
    if roster.version > (wall + FURTHEST) * 1000:
        raise Dropped(Drop.ROSTER, f"version {roster.version} is of a day to come")


def _verify_signature(
    envelope: Envelope, believed: Believed, trust_domain: str, wall: float
) -> None:
    try:
        verified = believed.verify(envelope.chain)
        check_times(verified, wall)
        check_list_signer(verified[0], trust_domain)
        _p256_key(verified[0]).verify(
            envelope.signature, CONTEXT + envelope.payload, ec.ECDSA(hashes.SHA256())
        )
    except InvalidSignature:
        raise Dropped(Drop.ROSTER, "the signature is not over this list") from None
    except UNREADABLE as error:
        raise Dropped(Drop.ROSTER, f"its signer: {error}") from None
    except Dropped as dropped:
        raise Dropped(Drop.ROSTER, f"its signer: {dropped}") from None


def _p256_key(signer: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("its key is not P-256")  # noqa: TRY004 - one exception for a bad profile
    return key


class HeldRoster:
    """The newest roster that came, by whichever way, and its envelope to pass on."""

    def __init__(self) -> None:
        """Begin with none."""
        self.roster: Roster | None = None
        self.envelope = b""
        self._believed: Believed | None = None

    @property
    def age_key(self) -> tuple[int, int]:
        """Version and time of issue; zeros without a roster."""
        return self.roster.age_key if self.roster else (0, 0)

    def offer(
        self,
        envelope_untrusted: bytes,
        believe: Callable[[Vouched], Believed],
        own: PodCertificate,
        wall: float,
    ) -> Roster | None:
        """``believe`` takes the bundle that comes with it, and says whose word counts then.

        Hold what is newer and return it, None for the one held already; raise `Dropped` (ROSTER, BUNDLE) for all else.
        """
        if envelope_untrusted == self.envelope:
            return None
        envelope = _read(envelope_untrusted)
        believed = believe(envelope.trust)
        self._reconsider(believed, own, wall)
        former = self.roster
        roster = _verify(envelope, believed, own, wall, former)
        if former is not None and roster.age_key == former.age_key:
            return None
        self.roster, self.envelope = roster, envelope_untrusted
        return roster

    def _reconsider(self, believed: Believed, own: PodCertificate, wall: float) -> None:
        """Forget the one held where nobody would believe it now: it must not keep out what comes after it.

        Its signer's root or issuer may count no more, and its version be of a day to come since our clock was set.
        """
        roster, former = self.roster, self._believed
        self._believed = believed
        if roster is None:
            return
        try:
            if believed != former:
                envelope = _read(self.envelope)
                _verify_signature(envelope, believed, own.identity.trust_domain, wall)
            _check_version(roster, wall)
        except Dropped:
            self.roster, self.envelope = None, b""
