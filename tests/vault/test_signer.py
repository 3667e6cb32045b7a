"""Certificates by a real Vault: what was asked for to the letter, or an error that names the field."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto
from support.authority import DAY, approved, make_claims
from support.openbao import BaoError, OpenBao

from ca.certificates import make_root
from ca.drivers.vault import Vault, VaultRefusedError
from ca.drivers.vault_signer import VaultSigner, read_issuer, serials_of
from ca.signer import SignerAwayError, SignerError, Wanted, for_lists, for_pod, for_server, make_csr
from ca.vault_plan import plan
from ca.vault_settings import VaultSettings
from policy.certificate import check_list_signer, read_pod_names

KEY = ec.generate_private_key(ec.SECP256R1())
SERVER = for_server(KEY.public_key(), make_claims().addresses, "shop.example", make_csr(KEY))
LISTS = for_lists(KEY.public_key(), "shop.example", make_csr(KEY))
X509_STRICT = 0x20


def wall() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - Vault goes by the real clock


FOREIGN_ROOT = make_root(KEY, "shop.example", wall(), DAY)


def pod(namespace: str = "shop") -> Wanted:
    return for_pod(approved(make_claims(namespace=namespace)))


@pytest.fixture
def signer(vault: Vault, prepared: VaultSettings) -> VaultSigner:
    return VaultSigner(vault, prepared)


@pytest.fixture
def root(vault: Vault, prepared: VaultSettings) -> x509.Certificate:
    return read_issuer(vault, prepared.pki_mount, "default")[-1]


def is_strictly_valid(signer: VaultSigner, root: x509.Certificate, wanted: Wanted) -> bool:
    chain = signer.sign(root, wanted, wall(), DAY)
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(root))
    store.set_flags(X509_STRICT)
    above = [crypto.X509.from_cryptography(one) for one in chain[1:]]
    crypto.X509StoreContext(
        store, crypto.X509.from_cryptography(chain[0]), above
    ).verify_certificate()
    return True


def test_each_kind_is_signed_and_stands_strict_judgement(
    signer: VaultSigner, root: x509.Certificate
) -> None:
    for wanted in (pod(), SERVER, LISTS):
        assert is_strictly_valid(signer, root, wanted)
    names = read_pod_names(signer.sign(root, pod(), wall(), DAY)[0])
    assert (names.pod, names.identity.uri) == ("web-1", "spiffe://shop.example/ns/shop/sa/web")
    check_list_signer(signer.sign(root, LISTS, wall(), DAY)[0], "shop.example")


def test_vault_itself_refuses_another_namespace(
    signer: VaultSigner, root: x509.Certificate
) -> None:
    with pytest.raises(SignerError, match=r"tencrypt-pod: alt_names: .*web-1\.bank\.pod"):
        signer.sign(root, pod("bank"), wall(), DAY)


FORBIDDEN = [
    ("POST", "tencrypt-pki/root/generate/internal"),
    ("POST", "tencrypt-pki/roles/tencrypt-pod"),
    ("POST", "tencrypt-pki/issue/tencrypt-pod"),
    ("POST", "tencrypt-pki/sign-verbatim"),
    ("POST", "tencrypt-pki/root/sign-intermediate"),
    ("POST", "tencrypt-pki/revoke"),
    ("GET", "tencrypt-pki/roles/tencrypt-pod"),
    ("GET", "sys/mounts"),
    ("POST", "auth/token/create"),
    ("GET", "sys/policies/acl/tencrypt-ca"),
]


@pytest.mark.parametrize(("method", "path"), FORBIDDEN)
def test_the_ca_may_do_nothing_else(vault: Vault, method: str, path: str) -> None:
    with pytest.raises(VaultRefusedError, match=f"^{path}: permission denied") as refused:
        vault.ask(method, path, {})
    assert refused.value.status == 403


@pytest.mark.parametrize("field", ["not_after", "not_before_duration", "other_sans", "user_ids"])
def test_the_ca_may_ask_for_nothing_that_a_role_does_not_bound(
    vault: Vault, signer: VaultSigner, root: x509.Certificate, field: str
) -> None:
    """With `not_after` a replica that was taken over had certificates until the root's end, whatever `max_ttl` says."""
    asked: dict[str, object] = {"csr": SERVER.csr, "uri_sans": SERVER.uri, "ttl": 60}
    path = f"tencrypt-pki/issuer/{signer._issuer_of(root)}/sign/tencrypt-server"
    assert vault.write(path, asked)["data"]["certificate"]
    with pytest.raises(VaultRefusedError, match="permission denied"):
        vault.write(path, {**asked, field: "2036-01-01T00:00:00Z"})


NARROW = {
    "no such domain": ({"allowed_domains": ["bank.pod"]}, "alt_names"),
    "no subdomains": ({"allow_subdomains": False}, "alt_names"),
    "no addresses": ({"allow_ip_sans": False}, "ip_sans"),
    "another identity": ({"allowed_uri_sans": ["spiffe://shop.example/ns/bank/*"]}, "uri_sans"),
    "a name is needed": ({"require_cn": True}, "require_cn"),
    "a shorter life": ({"max_ttl": "1h"}, "ttl"),
    "not for clients": ({"client_flag": False}, "ext_key_usage"),
    "another key": ({"key_type": "rsa", "key_bits": 2048}, "key_type"),
}
WIDE = {
    "code signing": ({"code_signing_flag": True}, "ext_key_usage"),
    "a purpose of its own": ({"ext_key_usage": ["TimeStamping"]}, "ext_key_usage"),
    "no key usage": ({"key_usage": []}, "certificate"),
    "keys that sign certificates": (
        {"key_usage": ["DigitalSignature", "CertSign"]},
        "key_usage",
    ),
    "a subject": ({"organization": ["shop"]}, "subject"),
}


@pytest.mark.parametrize(
    ("changes", "field"), [*NARROW.values(), *WIDE.values()], ids=[*NARROW, *WIDE]
)
def test_a_role_that_is_not_as_planned_is_told_by_its_field(
    bao: OpenBao,
    signer: VaultSigner,
    root: x509.Certificate,
    changes: dict[str, object],
    field: str,
) -> None:
    role = plan(signer._settings, DAY).roles[0]
    bao.write(role.path, {**role.fields, **changes})
    with pytest.raises(SignerError, match=f"^tencrypt-pki/sign/tencrypt-pod: {field}: ") as refused:
        signer.sign(root, pod(), wall(), DAY)
    assert not isinstance(refused.value, SignerAwayError)


def test_a_role_that_is_gone_is_told(
    bao: OpenBao, signer: VaultSigner, root: x509.Certificate
) -> None:
    bao.delete("tencrypt-pki/roles/tencrypt-pod")
    with pytest.raises(SignerError, match="tencrypt-pod: role: unknown role"):
        signer.sign(root, pod(), wall(), DAY)


def test_an_intermediate_signs_below_a_root_elsewhere(
    bao: OpenBao, prepared: VaultSettings, vault: Vault
) -> None:
    bao.write("sys/mounts/company", {"type": "pki"})
    made = bao.write("company/root/generate/internal", {"common_name": "company", "key_type": "ec"})
    root = made["data"]["certificate"]
    asked = bao.write(
        "tencrypt-pki/intermediate/generate/internal", {"common_name": "shop", "key_type": "ec"}
    )
    signed = bao.write(
        "company/root/sign-intermediate", {"csr": asked["data"]["csr"], "max_path_length": 0}
    )
    both = bao.write(
        "tencrypt-pki/issuers/import/cert",
        {"pem_bundle": f"{signed['data']['certificate']}\n{root}"},
    )
    middle = next(one for one, key in both["data"]["mapping"].items() if key)
    bao.write("tencrypt-pki/config/issuers", {"default": middle})
    signer = VaultSigner(vault, prepared)
    above = x509.load_pem_x509_certificate(root.encode())
    assert is_strictly_valid(signer, above, pod())
    assert len(signer.sign(above, pod(), wall(), DAY)) == 2


def test_an_intermediate_without_its_root_is_told(
    bao: OpenBao, prepared: VaultSettings, vault: Vault
) -> None:
    bao.write("sys/mounts/company", {"type": "pki"})
    bao.write("company/root/generate/internal", {"common_name": "company", "key_type": "ec"})
    asked = bao.write(
        "tencrypt-pki/intermediate/generate/internal", {"common_name": "shop", "key_type": "ec"}
    )
    signed = bao.write("company/root/sign-intermediate", {"csr": asked["data"]["csr"]})
    made = bao.write(
        "tencrypt-pki/issuers/import/cert", {"pem_bundle": signed["data"]["certificate"]}
    )
    bao.write("tencrypt-pki/config/issuers", {"default": made["data"]["imported_issuers"][0]})
    with pytest.raises(SignerError, match="its chain ends at no root: import the root"):
        read_issuer(vault, prepared.pki_mount, "default")


def test_an_engine_without_issuer_is_told(bao: OpenBao, prepared: VaultSettings) -> None:
    bao.delete("tencrypt-pki/root")
    clock = iter(range(0, 1000, 5))
    hurried = Vault(prepared, lambda: float(next(clock)), lambda _: None)
    with pytest.raises(SignerError, match="default issuer"):
        read_issuer(hurried, prepared.pki_mount, "default")


def test_a_root_is_not_signed_for_without_a_csr(
    signer: VaultSigner, root: x509.Certificate
) -> None:
    bare = for_lists(KEY.public_key(), "shop.example")
    with pytest.raises(SignerError, match="tencrypt-lists"):
        signer.sign(root, bare, wall(), DAY)


@pytest.mark.usefixtures("prepared")
def test_a_token_of_the_policy_is_no_roots(bao: OpenBao) -> None:
    """The tests above prove nothing if a token of the policy could do all."""
    token = bao.token("tencrypt-ca")
    with pytest.raises(BaoError, match="403"):
        bao.write("sys/mounts/more", {"type": "pki"}, token=token)


def test_what_vault_revokes_by_itself_is_read_and_nobody_elses_list_is(
    bao: OpenBao, signer: VaultSigner, root: x509.Certificate
) -> None:
    assert signer.read_crl() == frozenset()
    leaf = signer.sign(root, pod(), wall(), DAY)[0]
    raw = f"{leaf.serial_number:x}"
    digits = raw.rjust(len(raw) + len(raw) % 2, "0")
    colons = ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
    bao.write("tencrypt-pki/revoke", {"serial_number": colons})
    assert signer.read_crl() == {raw}
    path = f"tencrypt-pki/issuer/{signer._issuer_of(root)}/crl"
    answer = bao.read(path)
    assert serials_of(path, answer, root) == {raw}
    with pytest.raises(SignerError, match="not signed by its issuer"):
        serials_of(path, answer, FOREIGN_ROOT)
    with pytest.raises(SignerError, match="not a list of revoked"):
        serials_of(path, {"data": {"crl": "none"}}, root)
