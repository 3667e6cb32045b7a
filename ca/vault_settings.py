"""How the CA finds Vault or OpenBao, and proves itself there; each key is named and explained once."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from policy.identity import check_namespace, check_trust_domain
from policy.settings_parse import checked, one_of, path, text, texts
from policy.settings_source import Key, SettingsError, Source, list_from_environment

_ADDRESS: Final = re.compile(r"https://[A-Za-z0-9.\-\[\]:]{1,255}")
_MOUNT: Final = re.compile(r"[A-Za-z0-9_-]{1,60}(/[A-Za-z0-9_-]{1,60}){0,4}")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MOST_ADDRESSES: Final = 8
_MOST_NAMESPACES: Final = 100


class Auth(StrEnum):
    """How the CA proves itself to Vault."""

    KUBERNETES = "kubernetes"
    APPROLE = "approle"
    JWT = "jwt"
    CERT = "cert"
    TOKEN = "token"  # noqa: S105 - a word


def _addresses(value: object) -> tuple[str, ...]:
    found = tuple(one.rstrip("/") for one in texts(value))
    if not 1 <= len(found) <= _MOST_ADDRESSES or not all(map(_ADDRESS.fullmatch, found)):
        raise ValueError
    return found


def _namespaces(value: object) -> tuple[str, ...]:
    found = tuple(map(check_namespace, texts(value)))
    if not 1 <= len(found) == len(set(found)) <= _MOST_NAMESPACES:
        raise ValueError
    return found


def _matches(pattern: re.Pattern[str]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        found = text(value).strip("/")
        if not pattern.fullmatch(found):
            raise ValueError
        return found

    return parse


TRUST_DOMAIN: Final = Key(
    "trust_domain",
    "whose certificates are signed",
    "a SPIFFE trust domain, as shop.example",
    checked(check_trust_domain),
)
NAMESPACES: Final[Key[tuple[str, ...]]] = Key(
    "namespaces",
    "whose pods may have certificates: Vault's role names them, and signs for no other",
    'a list of namespaces, as ["shop"]',
    _namespaces,
    from_environment=list_from_environment,
)
ADDRESSES: Final[Key[tuple[str, ...]]] = Key(
    "vault_addresses",
    "where Vault answers; the next is asked where one does not",
    'a list of 1 to 8 HTTPS addresses, as ["https://vault.example:8200"]',
    _addresses,
    from_environment=list_from_environment,
)
CA_FILE: Final[Key[str | None]] = Key(
    "vault_ca_file",
    "the roots of Vault's own certificate (PEM); the machine's if left out",
    "an absolute path",
    path,
    default=None,
)
NAMESPACE: Final[Key[str]] = Key(
    "vault_namespace",
    "Vault's namespace (Enterprise, OpenBao)",
    "a path, as team/shop",
    _matches(_MOUNT),
    default="",
)
PKI_MOUNT: Final[Key[str]] = Key(
    "vault_pki_mount",
    "where the PKI engine is",
    "a path, as tencrypt-pki",
    _matches(_MOUNT),
    default="tencrypt-pki",
)
KV_MOUNT: Final[Key[str]] = Key(
    "vault_kv_mount",
    "where the KV engine (version 2) is that holds the CA's state",
    "a path, as tencrypt-kv",
    _matches(_MOUNT),
    default="tencrypt-kv",
)
AUTH: Final = Key(
    "vault_auth",
    "how the CA proves itself; a token that a person made ends one day, and then so does the CA",
    ", ".join(Auth),
    lambda value: Auth(one_of(*Auth)(value)),
)
AUTH_MOUNT: Final[Key[str]] = Key(
    "vault_auth_mount",
    "where that method is; its own name if left out",
    "a path, as kubernetes",
    _matches(_MOUNT),
    default="",
)
ROLE: Final[Key[str]] = Key(
    "vault_role",
    "the role of kubernetes, jwt or cert; the role_id of approle",
    "a name, as tencrypt-ca",
    _matches(_NAME),
    default="",
)
SECRET_FILE: Final[Key[str | None]] = Key(
    "vault_secret_file",
    "approle's secret_id, the token, or the JWT of jwt and kubernetes",
    "an absolute path of a file that not all users can read",
    path,
    default=None,
)
CERT_FILE: Final[Key[str | None]] = Key(
    "vault_cert_file",
    "cert's certificate and chain (PEM)",
    "an absolute path",
    path,
    default=None,
)
KEY_FILE: Final[Key[str | None]] = Key(
    "vault_key_file",
    "cert's key (PEM)",
    "an absolute path of a file that not all users can read",
    path,
    default=None,
)
KEYS: Final[tuple[Key[object], ...]] = (
    TRUST_DOMAIN, NAMESPACES, ADDRESSES, CA_FILE, NAMESPACE, PKI_MOUNT, KV_MOUNT, AUTH, AUTH_MOUNT, ROLE, SECRET_FILE,
    CERT_FILE, KEY_FILE,
)  # fmt: skip

SERVICE_ACCOUNT_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path

_NEEDS: Final[Mapping[Auth, tuple[Key[str | None] | Key[str], ...]]] = {
    Auth.KUBERNETES: (ROLE,),
    Auth.APPROLE: (ROLE, SECRET_FILE),
    Auth.JWT: (ROLE, SECRET_FILE),
    Auth.CERT: (CERT_FILE, KEY_FILE),
    Auth.TOKEN: (SECRET_FILE,),
}


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """What the keys above say; paths are absolute."""

    trust_domain: str
    namespaces: tuple[str, ...]
    addresses: tuple[str, ...]
    ca_file: str | None
    namespace: str
    pki_mount: str
    kv_mount: str
    auth: Auth
    auth_mount: str
    role: str
    secret_file: str | None
    cert_file: str | None
    key_file: str | None


def parse_vault_settings(
    text_untrusted: str, environment: Mapping[str, str], file_name: str | None
) -> VaultSettings:
    """Return what a file's text (TOML) and the environment say; raises `SettingsError`."""
    source = Source(text_untrusted, environment, file_name, KEYS)
    auth = source.get(AUTH)
    settings = VaultSettings(
        trust_domain=source.get(TRUST_DOMAIN),
        namespaces=source.get(NAMESPACES),
        addresses=source.get(ADDRESSES),
        ca_file=source.get(CA_FILE),
        namespace=source.get(NAMESPACE),
        pki_mount=source.get(PKI_MOUNT),
        kv_mount=source.get(KV_MOUNT),
        auth=auth,
        auth_mount=source.get(AUTH_MOUNT) or auth.value,
        role=source.get(ROLE),
        secret_file=source.get(SECRET_FILE)
        or (SERVICE_ACCOUNT_TOKEN if auth is Auth.KUBERNETES else None),
        cert_file=source.get(CERT_FILE),
        key_file=source.get(KEY_FILE),
    )
    for key in _NEEDS[auth]:
        if not source.get(key):
            raise SettingsError(f"{source.missing(key)}; {AUTH.name} = {auth.value} needs it")
    return settings


def to_text(settings: VaultSettings) -> str:
    """Return the settings as a file (TOML), the environment's too."""
    values = {
        TRUST_DOMAIN: settings.trust_domain,
        NAMESPACES: list(settings.namespaces),
        ADDRESSES: list(settings.addresses),
        CA_FILE: settings.ca_file,
        NAMESPACE: settings.namespace,
        PKI_MOUNT: settings.pki_mount,
        KV_MOUNT: settings.kv_mount,
        AUTH: settings.auth.value,
        AUTH_MOUNT: settings.auth_mount,
        ROLE: settings.role,
        SECRET_FILE: settings.secret_file,
        CERT_FILE: settings.cert_file,
        KEY_FILE: settings.key_file,
    }
    # JSON's texts and lists are TOML's, but for characters that no value here may have.
    return "".join(f"{key.name} = {json.dumps(value)}\n" for key, value in values.items() if value)
