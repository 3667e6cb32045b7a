"""What a certificate of the project says, read strictly: a pod's (X.509-SVID), or a list signer's.

This reads what a certificate *says*. Who signed it, that its bearer holds the key, and that it is valid now are for
the caller to verify.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from policy.identity import (
    MOST_ADDRESSES,
    PodIdentity,
    check_pod_name,
    lists_uri,
    parse_pod_uri,
    pod_dns_name,
)

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
class PodNames:
    """Whose certificate it is: identity, pod, and packed addresses (4 or 16 bytes)."""

    identity: PodIdentity
    pod: str
    addresses: frozenset[bytes]


def read_pod_names(certificate_untrusted: x509.Certificate) -> PodNames:
    """Return whom the certificate names; raise one of `UNREADABLE` where it is not a pod's to the letter."""
    extensions = certificate_untrusted.extensions
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
    return PodNames(identity, pod, _addresses(ips))


def check_list_signer(certificate_untrusted: x509.Certificate, trust_domain: str) -> None:
    """Raise one of `UNREADABLE` where the certificate is not a list signer's of the trust domain to the letter.

    Its one name is `lists_uri`. It has no extended key usage, which each end of TLS between us asks for.
    """
    extensions = certificate_untrusted.extensions
    _check_signs(extensions)
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if uris != [lists_uri(trust_domain)] or len(names) != 1:
        raise ValueError(f"not named {lists_uri(trust_domain)} alone")
    if any(isinstance(each.value, x509.ExtendedKeyUsage) for each in extensions):
        raise ValueError("for other purposes")


def _check_signs(extensions: x509.Extensions) -> None:
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise ValueError("a CA's certificate")
    if not extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
        raise ValueError("the key may not sign")


def _check_usage(extensions: x509.Extensions) -> None:
    _check_signs(extensions)
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
