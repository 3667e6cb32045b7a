"""What a pod does to join, step by step, for tests that need no more of it."""

from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from ca.messages import SignResponse
from ca.trust_bundle import parse_trust_bundle, read_vouched
from proxy.credentials.credential import Credential, build_credential
from proxy.credentials.trust import Believed
from proxy.drivers import ca_client
from proxy.drivers.ca_client import Ca


async def obtain(ca: Ca, token: str, csr: bytes) -> SignResponse:
    """Ask by a token, going by the pinned root."""
    return await ca_client.obtain(ca, await ca_client.find_root(ca), token, csr)


async def renew(ca: Ca, credential: Credential, csr: bytes) -> SignResponse:
    """Ask by a credential."""
    return await ca_client.renew(ca, Believed(credential.roots), credential, csr)


def roots_of(answer: SignResponse) -> tuple[x509.Certificate, ...]:
    """Return the roots of the bundle in an answer."""
    return parse_trust_bundle(read_vouched(answer.trust).payload).trusted


def built(
    key: EllipticCurvePrivateKey,
    answer: SignResponse,
    roots: Iterable[x509.Certificate] | None = None,
) -> Credential:
    """Return what the pod has now."""
    trusted = roots_of(answer) if roots is None else tuple(roots)
    return build_credential(key, "".join(answer.chain).encode(), trusted)
