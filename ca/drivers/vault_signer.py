"""Certificates by Vault's PKI engine: a role for each kind, by the issuer that is under the root that shall sign."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typing_extensions import override

from ca.drivers.vault import Json, Vault, VaultRefusedError
from ca.signer import Signer, SignerAwayError, SignerError, Wanted, check_signed
from ca.trust_bundle import fingerprint
from ca.vault_plan import ROLES, Step
from ca.vault_settings import VaultSettings

_MOST_CERTIFICATES: Final = 8

# What Vault says of a request that a role does not allow, and the field that it speaks of.
_FIELDS: Final = (
    ("URI Subject Alternative Name", "uri_sans"),
    ("IP Subject Alternative Name", "ip_sans"),
    ("subject alternate name", "alt_names"),
    ("common name", "common_name"),
    ("common_name", "require_cn"),
    ("key type", "key_type"),
    ("role requires keys of type", "key_type"),
    ("key usage", "key_usage"),
    ("unknown role", "role"),
    ("cannot satisfy request, as TTL", "ttl"),
)


class VaultSigner(Signer):
    """Signs by the roles of `ca.vault_plan`; what comes back is judged before anybody has it."""

    def __init__(self, vault: Vault, settings: VaultSettings) -> None:
        """Sign by the engine of the settings; which issuer is under which root is asked when needed."""
        self._vault, self._settings = vault, settings
        self._issuers: dict[x509.Certificate, tuple[str, x509.Certificate]] = {}
        """By root: the engine's name of the issuer, and its certificate."""

    @property
    @override
    def trust_domain(self) -> str:
        return self._settings.trust_domain

    @override
    def sign(
        self, root: x509.Certificate, wanted: Wanted, wall: datetime, life: timedelta
    ) -> tuple[x509.Certificate, ...]:
        mount, role = self._settings.pki_mount, ROLES[wanted.kind]
        path = f"{mount}/issuer/{self._issuer_of(root)}/sign/{role}"
        fields = {
            "csr": wanted.csr,
            "uri_sans": wanted.uri,
            "alt_names": ",".join(wanted.dns),
            "ip_sans": ",".join(map(str, wanted.addresses)),
            "exclude_cn_from_sans": True,
            "ttl": int(life.total_seconds()),
        }
        told = f"{mount}/sign/{role}"
        try:
            answer = self._vault.write(path, fields)
        except VaultRefusedError as error:
            raise SignerError(_with_field(told, str(error).replace(path, told))) from None
        try:
            chain = read_chain(answer, (root,))
            check_signed(wanted, chain, root, wall, life)
        except SignerError as error:
            raise SignerError(f"{told}: {error}") from None
        return chain

    def _issuer_of(self, root: x509.Certificate) -> str:
        if root not in self._issuers:
            self._look()
        if root not in self._issuers:
            mount = self._settings.pki_mount
            raise SignerError(f"{mount}/issuers: none is under root {fingerprint(root)}")
        return self._issuers[root][0]

    def read_crl(self) -> frozenset[str]:
        """Return the serials (hexadecimal) on the engine's lists of revoked certificates (RFC 5280 section 5)."""
        if not self._issuers:
            self._look()
        serials: set[str] = set()
        for name, certificate in self._issuers.values():
            path = f"{self._settings.pki_mount}/issuer/{name}/crl"
            answer = self._vault.read(path)
            if answer is not None:
                serials |= serials_of(path, answer, certificate)
        return frozenset(serials)

    def _look(self) -> None:
        """Learn the engine's issuers by the root in which each ends.

        Of several the engine's default one counts most (a root may be there without its key), then the root itself.
        """
        found: dict[x509.Certificate, tuple[int, str, x509.Certificate]] = {}
        first = self._chain("default")
        for name in self._vault.names(f"{self._settings.pki_mount}/issuers"):
            chain = self._chain(name)
            if chain:
                rank = 2 * (chain[0] == first[0] if first else False) + (chain[0] == chain[-1])
                if chain[-1] not in found or found[chain[-1]][0] < rank:
                    found[chain[-1]] = rank, name, chain[0]
        self._issuers = {root: (name, one) for root, (_, name, one) in found.items()}

    def _chain(self, name: str) -> tuple[x509.Certificate, ...]:
        """Return an issuer's chain; none where its root is not here: it is none of ours then."""
        try:
            return read_issuer(self._vault, self._settings.pki_mount, name)
        except SignerAwayError:
            raise
        except SignerError:
            return ()


def read_issuer(vault: Vault, mount: str, name: str) -> tuple[x509.Certificate, ...]:
    """Return an issuer's chain, its own certificate first and its root last; raises `SignerError`."""
    path = f"{mount}/issuer/{name}/json"
    found = vault.read(path)
    if found is None:
        raise SignerError(f"{path}: the engine has no issuer: `tencrypt ca vault-setup` makes one")
    data = found.get("data")
    chain = _certificates(path, data.get("ca_chain") if isinstance(data, dict) else None)
    if chain[-1].subject != chain[-1].issuer:
        raise SignerError(f"{path}: its chain ends at no root: import the root beside the issuer")
    return chain


def serials_of(path: str, answer_untrusted: Json, issuer: x509.Certificate) -> set[str]:
    """Return what an issuer's list of revoked certificates names; raises `SignerError` where it is not the issuer's."""
    data = answer_untrusted.get("data")
    try:
        text = data.get("crl") if isinstance(data, dict) else None
        crl = x509.load_pem_x509_crl(str(text).encode())
        key = issuer.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise SignerError(f"{path}: its issuer's key is neither ECDSA nor RSA")
        is_ours = crl.issuer == issuer.subject and crl.is_signature_valid(key)
        serials = {f"{one.serial_number:x}" for one in crl}
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignerError(f"{path}: not a list of revoked certificates: {error}") from None
    if not is_ours:
        raise SignerError(f"{path}: not signed by its issuer")
    return serials


def make_root(vault: Vault, step: Step) -> x509.Certificate:
    """Have the engine make another root; raises `SignerError`."""
    data = vault.write(step.path, step.fields).get("data")
    return _certificates(step.path, [data.get("certificate")] if isinstance(data, dict) else None)[
        0
    ]


def read_chain(
    answer_untrusted: Json, roots: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Return the chain of an answer, leaf first, without roots; raises `SignerError`."""
    data = answer_untrusted.get("data")
    if not isinstance(data, dict):
        raise SignerError("data: no certificate")
    leaf = _certificates("certificate", [data.get("certificate")])
    above = _certificates("ca_chain", data.get("ca_chain") or [data.get("issuing_ca")])
    return (*leaf, *(one for one in above if one not in roots))


def _certificates(where: str, pems_untrusted: object) -> tuple[x509.Certificate, ...]:
    if not isinstance(pems_untrusted, list) or not 1 <= len(pems_untrusted) <= _MOST_CERTIFICATES:
        raise SignerError(f"{where}: no chain of certificates")
    try:
        return tuple(x509.load_pem_x509_certificate(str(pem).encode()) for pem in pems_untrusted)
    except (ValueError, x509.InvalidVersion):
        raise SignerError(f"{where}: not certificates in PEM") from None


def _with_field(path: str, said: str) -> str:
    field = next((field for words, field in _FIELDS if words.lower() in said.lower()), None)
    return said if field is None else said.replace(f"{path}: ", f"{path}: {field}: ", 1)
