"""Names of pods and services as SPIFFE ids; the one place that writes and parses them.

A pod is ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>`` (the form Istio and SPIRE use for
Kubernetes); the project's own services have ids of another form, which no pod is ever issued.
"""

import re
from dataclasses import dataclass
from typing import Final

MOST_ADDRESSES: Final = 16
"""Of one pod: a family each, on each of its networks."""

LONGEST_URI: Final = 2048
"""Bytes of a SPIFFE id (SPIFFE-ID standard, section 2.3)."""

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# Kubernetes bounds a subdomain's length, not that of its labels.
_SUBDOMAIN: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
)
_LONGEST_SUBDOMAIN: Final = 253
_POD_URI: Final = re.compile(r"spiffe://([^/]+)/ns/([^/]+)/sa/([^/]+)")


class IdentityError(ValueError):
    """A name or SPIFFE id is not of the accepted form; the text says what is."""


def check_trust_domain(text: str) -> str:
    """Return a trust domain (SPIFFE-ID, section 2.1) or raise `IdentityError`."""
    if not _TRUST_DOMAIN.fullmatch(text):
        raise IdentityError("a trust domain: 1 to 255 of a-z 0-9 . _ -")
    return text


def check_namespace(text: str) -> str:
    """Return a namespace (DNS-1123 label) or raise `IdentityError`."""
    if not _NAMESPACE.fullmatch(text):
        raise IdentityError("a namespace: 1 to 63 of a-z 0-9 -, letter or digit at both ends")
    return text


def check_service_account(text: str) -> str:
    """Return a service account's name (DNS-1123 subdomain) or raise `IdentityError`."""
    return _check_subdomain(text, "a service account's name")


def check_pod_name(text: str) -> str:
    """Return a pod's name (DNS-1123 subdomain) or raise `IdentityError`."""
    return _check_subdomain(text, "a pod's name")


def _check_subdomain(text: str, what: str) -> str:
    if len(text) > _LONGEST_SUBDOMAIN or not _SUBDOMAIN.fullmatch(text):
        raise IdentityError(f"{what}: up to 253 of a-z 0-9 - ., letter or digit around each dot")
    return text


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """Whom a pod's certificate is for: authorisation sees this and not the single pod."""

    trust_domain: str
    namespace: str
    service_account: str

    @property
    def uri(self) -> str:
        """The SPIFFE id."""
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def parse_pod_uri(uri_untrusted: str) -> PodIdentity:
    """Return the pod's identity that a SPIFFE id names; raise `IdentityError` for any other text."""
    match = _POD_URI.fullmatch(uri_untrusted) if len(uri_untrusted) <= LONGEST_URI else None
    if match is None:
        raise IdentityError("a pod's id: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")
    trust_domain, namespace, service_account = match.groups()
    return PodIdentity(
        check_trust_domain(trust_domain),
        check_namespace(namespace),
        check_service_account(service_account),
    )


def ca_uri(trust_domain: str) -> str:
    """Return the id of the project's CA service, which clients pin."""
    return f"spiffe://{trust_domain}/tencrypt/ca"


def lists_uri(trust_domain: str) -> str:
    """Return the id of those that sign the project's lists, and do nothing else."""
    return f"spiffe://{trust_domain}/tencrypt/lists"


def policy_uri(trust_domain: str) -> str:
    """Return the id of the project's policy service, which clients pin."""
    return f"spiffe://{trust_domain}/tencrypt/policy"


def pod_dns_name(pod: str, namespace: str) -> str:
    """Return the DNS name by which a certificate names the single pod."""
    return f"{pod}.{namespace}.pod"
