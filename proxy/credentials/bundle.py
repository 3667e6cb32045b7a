"""The project's roots as a pod believes them: at first the pinned one alone, then what believed roots vouch for.

A bundle is taken by what it is, and not by who brings it, in this order:

1. its form and size (`ca.trust_bundle`), and that it is of our trust domain and of a higher version than ours,
2. a statement on its very bytes by a root that is not tainted in the bundle we hold.

So a root that is tainted changes nothing any more, and one that is gone is not even believed about itself.
"""

from collections.abc import Sequence

from cryptography import x509

from ca.messages import MessageError
from ca.trust_bundle import (
    Root,
    RootState,
    TrustBundle,
    Vouched,
    parse_trust_bundle,
    statement_uri,
)
from policy.certificate import UNREADABLE
from proxy.credentials.trust import Believed
from proxy.drops import Drop
from proxy.errors import Dropped


class HeldBundle:
    """The newest bundle that came, by whichever way."""

    def __init__(self, trust_domain: str, pinned: x509.Certificate) -> None:
        """Believe the pinned root, whose bundles are of any version."""
        root = Root(pinned, RootState.ACTIVE)
        self.bundle = TrustBundle(trust_domain, 0, (root,))
        self.hash = ""
        """Of the one held; empty before the first."""

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """Whom we believe: whoever's chain leads to one of them is what the chain says."""
        return self.bundle.trusted

    @property
    def authority(self) -> Believed:
        """Whose word counts on bundles, and under whom lists and the CA's service are believed; who issues is first.

        A tainted root is not among them: what its thief signs reaches nobody's trust but by a pod's certificate.
        """
        active = self.bundle.active
        others = (root for root in self.bundle.vouching if root != active)
        return Believed((active, *others), self.revoked_issuers)

    @property
    def revoked_issuers(self) -> frozenset[str]:
        """Issuers below the roots that are withdrawn, by SHA-256 of their certificate."""
        return frozenset(self.bundle.revoked_issuers)

    def offer(self, vouched_untrusted: Vouched) -> bool:
        """Hold what is newer and say whether it was; raise `Dropped` (BUNDLE) for what nobody vouches for."""
        if vouched_untrusted.hash == self.hash:
            return False
        try:
            bundle = parse_trust_bundle(vouched_untrusted.payload)
        except MessageError as error:
            raise Dropped(Drop.BUNDLE, str(error)) from None
        if bundle.trust_domain != self.bundle.trust_domain:
            raise Dropped(Drop.BUNDLE, f"of {bundle.trust_domain}")
        if bundle.version <= self.bundle.version:
            return False
        uri = statement_uri(bundle.trust_domain, vouched_untrusted.hash)
        if not any(self._is_statement(one, uri) for one in vouched_untrusted.statements):
            raise Dropped(Drop.BUNDLE, f"no root that counts vouches for version {bundle.version}")
        self.bundle, self.hash = bundle, vouched_untrusted.hash
        return True

    def _is_statement(self, pems: Sequence[str], uri: str) -> bool:
        try:
            verified = self.authority.verify(pems)
            extensions = verified[0].extensions
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (Dropped, *UNREADABLE):
            return False
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        return uris == [uri] and len(names) == 1 and not is_ca
