"""The CA without files: a signer and a store for tests of what the CA decides."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typing_extensions import override

from ca.certificates import Issuer, KeySigner, make_root
from ca.documents import (
    TOKENS,
    Document,
    Documents,
    JsonObject,
    StaleError,
    StateError,
    namespace_name,
)
from ca.grant import Asked, Office, grant
from ca.issue import Issued, TokenRecord, authenticate, judge
from ca.lease import Lease
from ca.messages import JoinClaims, encode_token, token_hash
from ca.namespace import Namespace, parse, to_json
from ca.overview import read_leases
from ca.profile import ApprovedRequest
from ca.renew import Caller
from ca.signer import Signer, Wanted, for_pod
from ca.trust import Trust, begin, read_trust
from policy.identity import parse_pod_uri

DAY = timedelta(days=1)
WALL = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECRET = bytes(32)
_KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = Issuer(make_root(_KEY, "shop.example", WALL, timedelta(days=3650)), _KEY)
SIGNER = KeySigner(ISSUER)
"""The embedded backend's, without its files."""


class GoneWrong(KeySigner):
    """A signer that writes other claims than those that were judged."""

    def __init__(self, instead: Mapping[str, object]) -> None:
        """Write these instead."""
        super().__init__(ISSUER)
        self._instead = dict(instead)

    @override
    def sign(
        self, root: x509.Certificate, wanted: Wanted, wall: datetime, life: timedelta
    ) -> tuple[x509.Certificate, ...]:
        identity = parse_pod_uri(wanted.uri)
        claims = JoinClaims(
            id="0123456789abcdef",
            trust_domain=identity.trust_domain,
            pod=wanted.dns[0].removesuffix(f".{identity.namespace}.pod"),
            namespace=identity.namespace,
            service_account=identity.service_account,
            addresses=wanted.addresses,
            expires=1,
        )
        false = replace(claims, **self._instead)  # type: ignore[arg-type]  # fields of claims
        return super().sign(root, for_pod(ApprovedRequest(wanted.public_key, false)), wall, life)


class Memory(Documents):
    """Documents that are forgotten at the end, can be full, and can be written by others meanwhile."""

    def __init__(self, *claims: JoinClaims) -> None:
        self.records = {
            each.id: TokenRecord(token_hash(encode_token(each, SECRET)), each) for each in claims
        }
        self.documents: dict[str, Document] = {}
        self.is_full = False
        self.meanwhile: list[Callable[[], object]] = []
        """Each is done once, between a read and the write that follows it."""
        begin(self, SIGNER, ISSUER.root, WALL)

    @property
    def trust(self) -> Trust:
        """The bundle in force."""
        return read_trust(self)

    @override
    def read(self, name: str) -> Document:
        folder, _, rest = name.partition("/")
        if folder == TOKENS:
            record = self.records.get(rest)
            return Document(record.to_json(), 1) if record else Document({}, 0)
        return self.documents.get(name, Document({}, 0))

    @override
    def write(self, name: str, content: JsonObject, version: int) -> None:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        if self.is_full:
            raise StateError("No space left on device")
        if self.read(name).version != version:
            raise StaleError(name)
        self.documents[name] = Document(json.loads(json.dumps(content)), version + 1)

    @override
    def state(self, name: str) -> object:
        return self.read(name).version

    @override
    def names(self, folder: str) -> list[str]:
        return sorted(name for name in self.documents if name.startswith(f"{folder}/"))

    @property
    def held(self) -> tuple[Lease, ...]:
        """The leases of all namespaces."""
        return read_leases(self)

    def record(self, namespace: str = "shop") -> Namespace:
        """Return what is on record of a namespace."""
        return parse(self.read(namespace_name(namespace)).content)

    def put(self, record: Namespace, namespace: str = "shop") -> None:
        """Write a namespace's record, whatever was there."""
        name = namespace_name(namespace)
        self.documents[name] = Document(to_json(record), self.read(name).version + 1)


def office(documents: Documents, signer: Signer = SIGNER, life: timedelta = DAY) -> Office:
    """Return who grants by these."""
    return Office(documents, signer, life)


def ask(
    documents: Documents,
    by: TokenRecord | Caller,
    body: bytes,
    wall: datetime,
    *,
    signer: Signer = SIGNER,
    life: timedelta = DAY,
) -> Issued:
    """Ask for one certificate; raises `Refused`, `SignerError` and `StateError`."""
    if isinstance(by, Caller):
        proven, namespace = judge(body, by.key), by.identity.namespace
    else:
        proven, namespace = judge(body), by.claims.namespace
    (outcome,) = grant([Asked(proven, by)], namespace, office(documents, signer, life), wall)
    if isinstance(outcome, Issued):
        return outcome
    raise outcome


def join(documents: Documents, token: str, body: bytes, wall: datetime) -> Issued:
    """Ask for a certificate by a token; raises `Refused`."""
    find = office(documents).find_token
    return ask(documents, authenticate(f"Bearer {token}", find, wall), body, wall)
