"""Certificates by Vault's PKI engine: a role for each kind, and the engine's default issuer."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from typing_extensions import override

from ca.drivers.vault import Json, Vault, VaultRefusedError
from ca.signer import Signer, SignerError, Wanted, check_signed
from ca.vault_plan import ROLES
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

    def __init__(
        self, vault: Vault, settings: VaultSettings, roots: tuple[x509.Certificate, ...]
    ) -> None:
        """Sign under ``roots``; made by `open_signer`."""
        self._vault, self._settings, self._roots = vault, settings, roots

    @property
    @override
    def trust_domain(self) -> str:
        return self._settings.trust_domain

    @property
    @override
    def roots(self) -> tuple[x509.Certificate, ...]:
        return self._roots

    @override
    def sign(self, wanted: Wanted, wall: datetime, life: timedelta) -> tuple[x509.Certificate, ...]:
        path = f"{self._settings.pki_mount}/sign/{ROLES[wanted.kind]}"
        fields = {
            "csr": wanted.csr,
            "uri_sans": wanted.uri,
            "alt_names": ",".join(wanted.dns),
            "ip_sans": ",".join(map(str, wanted.addresses)),
            "exclude_cn_from_sans": True,
            "ttl": int(life.total_seconds()),
        }
        try:
            answer = self._vault.write(path, fields)
        except VaultRefusedError as error:
            raise SignerError(_with_field(path, str(error))) from None
        try:
            chain = read_chain(answer, self._roots)
            check_signed(wanted, chain, self._roots, wall, life)
        except SignerError as error:
            raise SignerError(f"{path}: {error}") from None
        return chain


def open_signer(vault: Vault, settings: VaultSettings) -> VaultSigner:
    """Return the signer of the engine's default issuer, with the root in which its chain ends; raises `SignerError`."""
    path = f"{settings.pki_mount}/issuer/default/json"
    found = vault.read(path)
    if found is None:
        raise SignerError(f"{path}: the engine has no issuer: `tencrypt ca vault-setup` makes one")
    data = found.get("data")
    chain = _certificates(path, data.get("ca_chain") if isinstance(data, dict) else None)
    roots = tuple(one for one in chain if one.subject == one.issuer)
    if len(roots) != 1:
        raise SignerError(f"{path}: its chain ends at no root: import the root beside the issuer")
    return VaultSigner(vault, settings, roots)


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
