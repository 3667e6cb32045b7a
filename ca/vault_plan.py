"""What Vault must hold for the CA, and nothing more.

A PKI mount with a root and a role for each kind, a KV mount with the CA's documents, and two policies: the server's,
which may sign and grant, and the operator's, which may say who joins and who is withdrawn.

`plan` says it, `differences` compares what stands with it, and `commands` writes it for people's hands. A role is as
narrow as its kind: the CA's process may run these three and no other, and Vault itself then signs no certificate of
another namespace, for another use, or that signs others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ca.certificates import root_name
from ca.documents import NAMESPACES, TOKENS, namespace_name
from ca.revocations import REVOCATIONS
from ca.signer import Kind
from ca.trust import BUNDLE
from ca.trust_bundle import statement_uri
from ca.vault_settings import VaultSettings
from policy.identity import ca_uri, lists_uri

ROLES: Final[Mapping[Kind, str]] = {kind: f"tencrypt-{kind}" for kind in Kind}
POLICY: Final = "tencrypt-ca"
OPERATOR: Final = "tencrypt-ca-operator"
ROOT_LIFE: Final = timedelta(days=3650)
LONGEST_SERVICE: Final = timedelta(hours=24)

Value = str | int | bool | list[str]
Fields = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that Vault must hold: where, what, and what it is for."""

    path: str
    fields: Fields
    why: str


@dataclass(frozen=True, slots=True)
class VaultPlan:
    """All of it, in the order in which it is made."""

    mount: Step
    root: Step
    roles: tuple[Step, ...]
    kv: Step
    kv_config: Step
    documents: tuple[Step, ...]
    """Written once: what they say later is the CA's affair."""
    policies: tuple[Step, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of it."""
        kept = (self.kv, self.kv_config, *self.documents)
        return (self.mount, self.root, *self.roles, *kept, *self.policies)


def plan(settings: VaultSettings, life: timedelta) -> VaultPlan:
    """Return what Vault must hold for pods' certificates of at most ``life``."""
    mount, kv = settings.pki_mount, settings.kv_mount
    return VaultPlan(
        Step(
            f"sys/mounts/{mount}",
            {"type": "pki", "max_lease_ttl": _seconds(ROOT_LIFE)},
            "a PKI engine of its own: no other role signs by its root",
        ),
        next_root(settings, 1),
        tuple(_roles(settings, life)),
        Step(
            f"sys/mounts/{kv}",
            {"type": "kv", "version": "2"},
            "a KV engine of its own for the CA's state",
        ),
        Step(
            f"{kv}/config",
            {"max_versions": 2, "cas_required": True},
            "no write without compare-and-swap",
        ),
        tuple(_documents(settings)),
        (
            Step(
                f"sys/policies/acl/{POLICY}",
                {"policy": _policy(mount, kv)},
                "what `tencrypt ca serve` may do: sign by the three roles, grant, and keep its own token",
            ),
            Step(
                f"sys/policies/acl/{OPERATOR}",
                {"policy": _operators_policy(mount, kv)},
                "what its owner may do: tokens, rotation of roots, revocation",
            ),
        ),
    )


def next_root(settings: VaultSettings, number: int) -> Step:
    """Return how the project's root of that number is made."""
    return Step(
        f"{settings.pki_mount}/root/generate/internal",
        {
            "issuer_name": f"tencrypt-{number}",
            "key_name": f"tencrypt-{number}",
            "common_name": root_name(number),
            "uri_sans": f"spiffe://{settings.trust_domain}",
            "exclude_cn_from_sans": True,
            "key_type": "ec",
            "key_bits": 256,
            "max_path_length": 1,
            "ttl": _seconds(ROOT_LIFE),
        },
        "the root, unless the engine has an issuer; its key never leaves Vault",
    )


def _documents(settings: VaultSettings) -> Iterator[Step]:
    kv = settings.kv_mount
    for namespace in settings.namespaces:
        why = "the record of a namespace: from now on its absence is damage"
        yield Step(f"{kv}/data/{namespace_name(namespace)}", {}, why)
    yield Step(f"{kv}/data/{REVOCATIONS}", {}, "who is withdrawn: nobody yet")


def _roles(settings: VaultSettings, life: timedelta) -> Iterator[Step]:
    trust_domain = settings.trust_domain
    pods: Fields = {
        "allowed_domains": [f"{namespace}.pod" for namespace in settings.namespaces],
        "allow_subdomains": True,
        "allow_ip_sans": True,
        "allowed_uri_sans": [
            f"spiffe://{trust_domain}/ns/{namespace}/sa/*" for namespace in settings.namespaces
        ],
        "server_flag": True,
        "client_flag": True,
        "max_ttl": _seconds(life),
    }
    server: Fields = {
        "allow_ip_sans": True,
        "allowed_uri_sans": [ca_uri(trust_domain)],
        "server_flag": True,
        "max_ttl": _seconds(LONGEST_SERVICE),
    }
    lists: Fields = {
        "allowed_uri_sans": [lists_uri(trust_domain)],
        "max_ttl": _seconds(LONGEST_SERVICE),
    }
    statements: Fields = {
        "allowed_uri_sans": [statement_uri(trust_domain, "*")],
        "max_ttl": _seconds(LONGEST_SERVICE),
    }
    for kind, own, why in (
        (Kind.POD, pods, "pods' certificates (X.509-SVID)"),
        (Kind.SERVER, server, "the certificate of `tencrypt ca serve` itself"),
        (Kind.LISTS, lists, "the key that signs rosters: no end of TLS"),
        (
            Kind.STATEMENT,
            statements,
            "a root's word on a bundle of roots: for the owner's hands, not the server's",
        ),
    ):
        yield Step(f"{settings.pki_mount}/roles/{ROLES[kind]}", _COMMON | own, why)


_COMMON: Final[Fields] = {
    "allowed_domains": [],
    "allow_subdomains": False,
    "allow_bare_domains": False,
    "allow_glob_domains": False,
    "allow_wildcard_certificates": False,
    "allow_any_name": False,
    "allow_localhost": False,
    "allow_ip_sans": False,
    "allowed_other_sans": [],
    "server_flag": False,
    "client_flag": False,
    "code_signing_flag": False,
    "email_protection_flag": False,
    "ext_key_usage": [],
    "key_type": "ec",
    "key_bits": 256,
    "key_usage": ["DigitalSignature"],
    "require_cn": False,
    "use_csr_common_name": False,
    "use_csr_sans": False,
    "basic_constraints_valid_for_non_ca": True,
    "not_before_duration": 300,
}
"""Names come from the CA's request and never from a CSR; ECDSA P-256; no subject."""


_ASKED: Final = ("csr", "uri_sans", "alt_names", "ip_sans", "exclude_cn_from_sans", "ttl")
"""What the CA gives to ``sign``, and may: `not_after` would go past a role's `max_ttl` in many versions of Vault."""


def _policy(mount: str, kv: str) -> str:
    return (
        f"{_signing(mount, Kind.POD, Kind.SERVER, Kind.LISTS)}"
        f"{_path(f'{kv}/data/{NAMESPACES}/+', 'read', 'update')}"
        f"{_path(f'{kv}/metadata/{NAMESPACES}/+', 'read')}"
        f"{_path(f'{kv}/data/{TOKENS}/+', 'read')}"
        f"{_path(f'{kv}/data/{BUNDLE}', 'read')}"
        f"{_path(f'{kv}/metadata/{BUNDLE}', 'read')}"
        f"{_path(f'{kv}/data/{REVOCATIONS}', 'read')}"
        f"{_path(f'{kv}/metadata/{REVOCATIONS}', 'read')}"
        'path "auth/token/lookup-self" { capabilities = ["read"] }\n'
        'path "auth/token/renew-self" { capabilities = ["update"] }\n'
    )


def _signing(mount: str, *kinds: Kind) -> str:
    # Whatever a role asks for, and under whichever root: which one signs stands in the bundle.
    asked = ", ".join(f'"{name}" = []' for name in _ASKED)
    return "".join(
        f'path "{mount}/issuer/+/sign/{ROLES[kind]}" {{\n  capabilities = ["update"]\n'
        f"  allowed_parameters = {{ {asked} }}\n}}\n"
        for kind in kinds
    )


def _operators_policy(mount: str, kv: str) -> str:
    return (
        f"{_signing(mount, Kind.STATEMENT)}"
        f"{_path(f'{kv}/data/{BUNDLE}', 'create', 'update', 'read')}"
        f"{_path(f'{kv}/metadata/{BUNDLE}', 'read')}"
        f"{_path(f'{kv}/data/{REVOCATIONS}', 'update', 'read')}"
        f"{_path(f'{mount}/root/generate/internal', 'update')}"
        f"{_path(f'{mount}/issuer/+', 'read', 'update')}"
        f"{_path(f'{kv}/data/{NAMESPACES}/+', 'read')}"
        f"{_path(f'{kv}/metadata/{NAMESPACES}', 'list')}"
        f"{_path(f'{kv}/data/{TOKENS}/+', 'create', 'update', 'read')}"
        f"{_path(f'{kv}/metadata/{TOKENS}', 'list')}"
        f"{_path(f'{kv}/metadata/{TOKENS}/+', 'delete')}"
    )


def _path(path: str, *capabilities: str) -> str:
    listed = ", ".join(f'"{one}"' for one in capabilities)
    return f'path "{path}" {{ capabilities = [{listed}] }}\n'


def differences(step: Step, found: Mapping[str, object] | None) -> list[str]:
    """Return what of a step does not stand so, a line each; ``found`` is what Vault has there, None for nothing."""
    if found is None:
        return [f"{step.path} is missing"]
    return [
        f"{step.path}: {name} is {_shown(found.get(name))}, and {_shown(wanted)} is wanted"
        for name, wanted in step.fields.items()
        if not _is_same(found.get(name), wanted)
    ]


def _is_same(found: object, wanted: Value) -> bool:
    if isinstance(wanted, list):
        return isinstance(found, list | None) and sorted(map(str, found or [])) == sorted(wanted)
    if isinstance(wanted, str) and isinstance(found, str):
        return found.strip() == wanted.strip()
    return found == wanted


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) or "empty" if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def commands(wanted: VaultPlan) -> str:
    """Return the same as commands of `vault`, or `bao`, with what each is for."""
    mount = wanted.mount
    name = mount.path.removeprefix("sys/mounts/")
    text = [
        f"# {mount.why}",
        f"vault secrets enable -path={name} -max-lease-ttl={mount.fields['max_lease_ttl']}s pki",
    ]
    for step in (wanted.root, *wanted.roles):
        fields = " \\\n    ".join(
            f"{key}={_argument(value)}" for key, value in sorted(step.fields.items())
        )
        text += ["", f"# {step.why}", f"vault write {step.path} \\\n    {fields}"]
    kv = wanted.kv.path.removeprefix("sys/mounts/")
    text += ["", f"# {wanted.kv.why}", f"vault secrets enable -path={kv} -version=2 kv", ""]
    config = " ".join(f"{key}={_argument(value)}" for key, value in wanted.kv_config.fields.items())
    # A new engine of version 2 is not ready at once.
    text += [
        f"# {wanted.kv_config.why}",
        f"until vault write {kv}/config {config}; do sleep 1; done",
    ]
    for step in wanted.documents:
        name = step.path.removeprefix(f"{kv}/data/")
        text += ["", f"# {step.why}", f"echo '{{}}' | vault kv put -cas=0 -mount={kv} {name} -"]
    for policy in wanted.policies:
        name = policy.path.rpartition("/")[2]
        text += ["", f"# {policy.why}", f"vault policy write {name} - <<'END'"]
        text += [f"{policy.fields['policy']}END"]
    return "\n".join(text)


def _argument(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = ",".join(value) if isinstance(value, list) else str(value)
    return f'"{text}"' if " " in text or "*" in text or not text else text


def _seconds(life: timedelta) -> int:
    return int(life.total_seconds())
