"""A peer's certificate as the proxy keeps it: whom it names, and when and how it may be known.

That a root of ours signed it is verified by OpenSSL; that its bearer holds the key, by the handshake; that we want
to talk to it, by `proxy.credentials.judge`.
"""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from policy.certificate import UNREADABLE, read_pod_names
from policy.identity import PodIdentity
from proxy.drops import Drop
from proxy.errors import Dropped

__all__ = ["UNREADABLE", "PodCertificate", "parse_pod_certificate"]


_MOST_READ: Final = 1024
"""Certificates whose reading is remembered, 3 MB at most; all of them led to a root of ours."""


@dataclass(frozen=True, slots=True)
class PodCertificate:
    """What a pod's certificate says; times in Unix seconds, addresses packed (4 or 16 bytes)."""

    identity: PodIdentity
    pod: str
    addresses: frozenset[bytes]
    serial: int
    not_before: float
    not_after: float
    fingerprint: bytes

    def address_texts(self) -> list[str]:
        """Return the addresses as people write them, IPv4 first."""
        return [str(ip_address(a)) for a in sorted(self.addresses, key=lambda a: (len(a), a))]


@lru_cache(maxsize=_MOST_READ)
def parse_pod_certificate(certificate_untrusted: x509.Certificate) -> PodCertificate:
    """Return what the certificate says; raise `Dropped` (CERTIFICATE_PROFILE) where it is not a pod's.

    It depends on the certificate's bytes alone, and is asked several times a handshake: answers are remembered.
    """
    try:
        names = read_pod_names(certificate_untrusted)
        return PodCertificate(
            identity=names.identity,
            pod=names.pod,
            addresses=names.addresses,
            serial=certificate_untrusted.serial_number,
            not_before=certificate_untrusted.not_valid_before_utc.timestamp(),
            not_after=certificate_untrusted.not_valid_after_utc.timestamp(),
            fingerprint=certificate_untrusted.fingerprint(hashes.SHA256()),
        )
    except UNREADABLE as error:
        raise Dropped(Drop.CERTIFICATE_PROFILE, str(error)) from error
