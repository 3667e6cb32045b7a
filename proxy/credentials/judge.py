"""Do we talk to this peer? The one place that decides it, for both ends of a handshake."""

from collections.abc import Sequence

from cryptography import x509

from proxy.credentials.certificate import PodCertificate, parse_pod_certificate
from proxy.credentials.trust import NONE_REVOKED, Revocations
from proxy.drops import Drop
from proxy.errors import Dropped


def judge_chain(  # noqa: PLR0913 - what decides
    chain_untrusted: Sequence[x509.Certificate],
    own: PodCertificate,
    called: bytes | None,
    wall: float,
    revoked: Revocations = NONE_REVOKED,
    *,
    may_be_own: bool = False,
) -> PodCertificate:
    """Return the peer that ``chain`` (leaf first) names, or raise `Dropped` with the reason.

    ``called`` is the packed address that we called (None at the responder); ``wall`` is Unix seconds by the
    local clock as corrected by the CA; ``may_be_own`` leaves open whether it is ourselves. Signatures, key usage of
    issuers and the peer's possession of the key are OpenSSL's part.
    """
    if not chain_untrusted:
        raise Dropped(Drop.NO_CERTIFICATE)
    peer = parse_pod_certificate(chain_untrusted[0])
    check_times(chain_untrusted, wall)
    _check_project(peer, own)
    revoked.check(chain_untrusted, peer)
    if not may_be_own:
        _check_not_ourselves(peer, own)
    if called is not None:
        _check_called(peer, called)
    return peer


def check_times(chain: Sequence[x509.Certificate], wall: float) -> None:
    """Raise `Dropped` (CERTIFICATE_TIME) where a certificate of the chain is not good at ``wall``, Unix seconds."""
    for certificate in chain:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begin.timestamp() <= wall <= end.timestamp():
            raise Dropped(Drop.CERTIFICATE_TIME, f"valid from {begin:%F %T} to {end:%F %T} UTC")


def _check_project(peer: PodCertificate, own: PodCertificate) -> None:
    ours, theirs = own.identity, peer.identity
    if (theirs.trust_domain, theirs.namespace) != (ours.trust_domain, ours.namespace):
        raise Dropped(Drop.FOREIGN_PROJECT, theirs.uri)


def _check_not_ourselves(peer: PodCertificate, own: PodCertificate) -> None:
    # Who may speak for one of our addresses could take over flows that are ours: hairpins stay local.
    if peer.fingerprint == own.fingerprint or peer.addresses & own.addresses:
        raise Dropped(Drop.OWN_ADDRESS, peer.pod)


def _check_called(peer: PodCertificate, called: bytes) -> None:
    if called not in peer.addresses:
        raise Dropped(Drop.ADDRESS_NOT_NAMED, f"answered by {peer.pod}")
