"""What comes to the CA from Vault, from files and from people's hands: settings, answers, chains, copies."""

import io
import json
import tarfile
from collections.abc import Iterable
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from support.authority import approved, make_claims
from support.memory_ca import ISSUER, SIGNER, WALL

from ca.certificates import sign_leaf
from ca.drivers.backup import read_members
from ca.drivers.vault_signer import read_chain
from ca.lease import Certified, lease_to
from ca.namespace import Namespace, parse, to_json
from ca.own_issuer import read_own_issuer
from ca.revocations import Entry, Kind, RevocationList
from ca.revocations import parse as parse_revocations
from ca.revocations import to_json as revocations_to_json
from ca.signer import check_signed, for_pod
from ca.trust import first_record, vouch_for
from ca.trust_bundle import read_vouched
from ca.vault_settings import parse_vault_settings
from policy.certificate import UNREADABLE
from proxy.credentials.bundle import HeldBundle

HOUR = timedelta(hours=1)
WANTED = for_pod(approved(make_claims()))
LEAF = sign_leaf(ISSUER, WANTED, WALL, HOUR)
ROOT_PEM = ISSUER.root.public_bytes(Encoding.PEM).decode()
SETTINGS = """trust_domain = "shop.example"
namespaces = ["shop"]
vault_addresses = ["https://vault.example:8200"]
vault_auth = "kubernetes"
vault_role = "tencrypt-ca"
"""


def vault_settings(text: str) -> None:
    parse_vault_settings(text, {}, "ca.toml")


def signed(data: bytes) -> None:
    try:
        leaf = x509.load_der_x509_certificate(data)
    except UNREADABLE:
        return
    check_signed(WANTED, [leaf], ISSUER.root, WALL, HOUR)


def signed_seeds() -> Iterable[bytes]:
    return [LEAF.public_bytes(Encoding.DER)]


def answered(data: bytes) -> None:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(answer, dict):
        read_chain(answer, (ISSUER.root,))


def answer_seeds() -> Iterable[bytes]:
    leaf = LEAF.public_bytes(Encoding.PEM).decode()
    return [
        json.dumps({"data": {"certificate": leaf, "ca_chain": [ROOT_PEM]}}).encode(),
        json.dumps({"data": {"certificate": leaf, "issuing_ca": ROOT_PEM}}).encode(),
    ]


def own_issuer(data: bytes) -> None:
    read_own_issuer(data, data, b"passphrase", WALL)


def copied(data: bytes) -> None:
    read_members(data)


def copy_seeds() -> Iterable[bytes]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("root.pem", "tokens/0123456789abcdef.json"):
            member = tarfile.TarInfo(name)
            member.size = len(ROOT_PEM)
            archive.addfile(member, io.BytesIO(ROOT_PEM.encode()))
    return [packed.getvalue()]


def record(data_untrusted: bytes) -> None:
    """Read a namespace's record, and write what was read."""
    content = json.loads(data_untrusted)
    if isinstance(content, dict):
        read = parse(content)
        assert parse(to_json(read)) == read
        read.changed(1.5).entries()


def record_seeds() -> list[bytes]:
    claims = make_claims()
    leases = lease_to((), claims, Certified("1f", "k", 100), 0)
    return [json.dumps(to_json(Namespace().changed(1, leases, {claims.id: (1, 2)}))).encode()]


RECORD = vouch_for(first_record("shop.example", ISSUER.root, WALL), SIGNER, WALL)


def trust_seeds() -> list[bytes]:
    return [RECORD.vouched.payload]


def vouched(data_untrusted: bytes) -> None:
    """Offer what anybody may send to a pod that has its pinned root alone; only what the root vouched for is taken."""
    offered = read_vouched(json.loads(data_untrusted))
    assert not HeldBundle("shop.example", ISSUER.root).offer(offered) or (
        offered.payload == RECORD.vouched.payload
    )


def vouched_seeds() -> list[bytes]:
    return [json.dumps(RECORD.vouched.to_json()).encode()]


def revocations(data_untrusted: bytes) -> None:
    """Read the list on record, and say what a namespace hears of it."""
    content = json.loads(data_untrusted)
    if isinstance(content, dict):
        parse_revocations(content).seen_by("shop")


def revocations_seeds() -> list[bytes]:
    entry = Entry(Kind.POD, "shop", "web-1", 7, "stolen")
    return [json.dumps(revocations_to_json(RevocationList((entry,)))).encode()]
