"""A pod's certificate, read strictly: the X.509-SVID profile of the project CA and nothing else.

This reads what a certificate *says*. That a root of ours signed it is verified by OpenSSL; that its bearer
holds the key, by the handshake; that we want to talk to it, by `proxy.credentials.judge`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from policy.identity import PodIdentity, check_pod_name, parse_pod_uri, pod_dns_name
from proxy.drops import Drop
from proxy.errors import Dropped

MOST_ADDRESSES = 16

UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises on certificates that are none, or are not read: no two of one family."""


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


def parse_pod_certificate(certificate_untrusted: x509.Certificate) -> PodCertificate:
    """Return what the certificate says; raise `Dropped` (CERTIFICATE_PROFILE) where it is not a pod's."""
    try:
        return _read(certificate_untrusted)
    except UNREADABLE as error:
        raise Dropped(Drop.CERTIFICATE_PROFILE, str(error)) from error


def _read(certificate: x509.Certificate) -> PodCertificate:
    extensions = certificate.extensions
    _check_usage(extensions)
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    dns = names.get_values_for_type(x509.DNSName)
    ips = names.get_values_for_type(x509.IPAddress)
    if len(uris) != 1 or len(dns) != 1 or len(names) != 2 + len(ips):
        raise ValueError("a pod has one URI, one DNS name and its addresses")
    identity = parse_pod_uri(uris[0])
    pod = check_pod_name(dns[0].removesuffix(f".{identity.namespace}.pod"))
    if dns[0] != pod_dns_name(pod, identity.namespace):
        raise ValueError("the DNS name is not that of a pod of the identity's namespace")
    return PodCertificate(
        identity=identity,
        pod=pod,
        addresses=_addresses(ips),
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        fingerprint=certificate.fingerprint(hashes.SHA256()),
    )


def _check_usage(extensions: x509.Extensions) -> None:
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise ValueError("a CA's certificate")
    if not extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
        raise ValueError("the key may not sign")
    purposes = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH} <= purposes:
        raise ValueError("not for both ends of TLS")


def _addresses(ips: Sequence[object]) -> frozenset[bytes]:
    packed = set()
    for ip in ips:
        if not isinstance(ip, IPv4Address | IPv6Address):
            raise ValueError("a network is not an address")  # noqa: TRY004 - one exception for a bad profile
        if ip.is_multicast or ip.is_loopback or ip.is_link_local or ip.is_unspecified:
            raise ValueError(f"{ip} is not a pod's address")
        packed.add(ip.packed)
    if not 1 <= len(packed) <= MOST_ADDRESSES:
        raise ValueError(f"{len(packed)} addresses")
    return frozenset(packed)
