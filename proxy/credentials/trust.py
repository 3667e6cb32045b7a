"""Whom we believe, and the second judgement of chains that were good once: roots and revocations change under sessions.

The first judgement is OpenSSL's inside the handshake; `verify_again` asks the same verifier with the same flags.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from ca.trust_bundle import fingerprint
from proxy.credentials.certificate import UNREADABLE, PodCertificate
from proxy.drops import Drop
from proxy.errors import Dropped

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: validity is judged by our corrected clock, in `judge_chain`, for each
# certificate of the chain.
_NO_CHECK_TIME: Final = 0x200000


@dataclass(frozen=True, slots=True)
class Revocations:
    """What the project has withdrawn.

    Certificates of any place in a chain by serial, issuers by SHA-256 of their certificate; pods and service accounts
    by name: a peer is of our own namespace.
    """

    serials: frozenset[int] = frozenset()
    pods: frozenset[str] = frozenset()
    service_accounts: frozenset[str] = frozenset()
    issuers: frozenset[str] = frozenset()

    def check(self, chain: Sequence[x509.Certificate], peer: PodCertificate) -> None:
        """Raise `Dropped` (REVOKED) where the list names the pod or a certificate of its chain."""
        if peer.pod in self.pods:
            raise Dropped(Drop.REVOKED, f"pod {peer.pod}")
        if peer.identity.service_account in self.service_accounts:
            raise Dropped(Drop.REVOKED, f"service account {peer.identity.service_account}")
        for certificate in chain:
            if certificate.serial_number in self.serials:
                raise Dropped(Drop.REVOKED, f"certificate {certificate.serial_number:x}")
        self.check_issuers(chain)

    def check_issuers(self, chain: Iterable[x509.Certificate]) -> None:
        """Raise `Dropped` (REVOKED) where the list names an issuer of the chain."""
        if not self.issuers:
            return
        for certificate in chain:
            if fingerprint(certificate) in self.issuers:
                raise Dropped(Drop.REVOKED, f"issuer {fingerprint(certificate)}")


NONE_REVOKED: Final = Revocations()


@dataclass(frozen=True, slots=True)
class Believed:
    """Whose word counts: roots, of which the first is asked for by name, and issuers below them whose does not."""

    roots: tuple[x509.Certificate, ...]
    revoked_issuers: frozenset[str] = frozenset()
    """By SHA-256 of their certificate, hexadecimal."""

    def verify(self, chain_pem_untrusted: Sequence[str]) -> list[x509.Certificate]:
        """Return a chain (leaf first), verified but for its times, with its root; raise `Dropped`."""
        try:
            chain = [
                x509.load_pem_x509_certificate(pem.encode("ascii")).public_bytes(Encoding.DER)
                for pem in chain_pem_untrusted
            ]
        except UNREADABLE as error:
            raise Dropped(Drop.UNTRUSTED, str(error)) from None
        verified = verify_again(chain, self.roots)
        self.check(verified)
        return verified

    def check(self, chain: Iterable[x509.Certificate]) -> None:
        """Raise `Dropped` (REVOKED) where an issuer of a verified chain is withdrawn."""
        Revocations(issuers=self.revoked_issuers).check_issuers(chain)


def believe(store: crypto.X509Store, roots: Iterable[x509.Certificate]) -> None:
    """Make an OpenSSL store believe these roots and nothing else, strictly (RFC 5280), and leave times to us."""
    store.set_flags(crypto.X509StoreFlags.X509_STRICT | _NO_CHECK_TIME)
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))


def verify_again(
    chain_der: Sequence[bytes], roots: Iterable[x509.Certificate]
) -> list[x509.Certificate]:
    """Return a stored chain (leaf first), verified against other roots; raise `Dropped` (UNTRUSTED)."""
    try:
        chain = [x509.load_der_x509_certificate(der) for der in chain_der]
        store = crypto.X509Store()
        believe(store, roots)
        leaf, *others = (crypto.X509.from_cryptography(certificate) for certificate in chain)
        verified = crypto.X509StoreContext(store, leaf, others).get_verified_chain()
    except (crypto.X509StoreContextError, crypto.Error, *UNREADABLE) as error:
        # crypto.Error: a certificate that cryptography reads, and OpenSSL does not.
        raise Dropped(Drop.UNTRUSTED, str(error)) from None
    return [certificate.to_cryptography() for certificate in verified]
