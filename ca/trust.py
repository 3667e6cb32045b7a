"""The bundle on record: the one in force, and one that is proposed and not vouched for yet.

A change is first written as proposed, which claims its version; then each root that counts vouches for it; then it is
written as the one in force. Who finds a proposed one takes it back: nobody knows whether its gates were passed.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from ca.documents import Documents, JsonObject, read_as
from ca.messages import MessageError, from_base64, read_count, read_text, to_base64
from ca.signer import Signer, SignerAwayError, SignerError, for_statement, make_csr, pems
from ca.trust_bundle import (
    Root,
    RootState,
    TrustBundle,
    Vouched,
    encode_bundle,
    parse_trust_bundle,
    read_vouched,
)

BUNDLE: Final = "bundle"
"""Name of the document."""

MOST_STEPS: Final = 64
STATEMENT_LIFE: Final = timedelta(minutes=2)
"""Pods do not look at it. An owner whose clock is further ahead of the signer's gets no statement: nothing changes."""


@dataclass(frozen=True, slots=True)
class Step:
    """What was done to the bundle: when (Unix seconds), what, the reason where it was forced, and who was missing."""

    time: int
    what: str
    reason: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustRecord:
    """What is on record."""

    vouched: Vouched
    proposed: bytes = b""
    steps: tuple[Step, ...] = ()

    @property
    def bundle(self) -> TrustBundle:
        """The bundle in force; raises `MessageError` where it is damaged."""
        return parse_trust_bundle(self.vouched.payload)

    def noting(self, step: Step) -> "TrustRecord":
        """Return it with a step more; the oldest are forgotten."""
        return replace(self, steps=(*self.steps, step)[-MOST_STEPS:])


@dataclass(frozen=True, slots=True)
class Trust:
    """The bundle in force as servers go by it, each part read once."""

    vouched: Vouched
    bundle: TrustBundle
    steps: tuple[Step, ...] = ()
    proposed: TrustBundle | None = None

    @property
    def hash(self) -> str:
        """The bundle's."""
        return self.vouched.hash

    def may_issue(self, root: x509.Certificate) -> bool:
        """Say whether a certificate under a root may leave: not where somebody is about to take the root out."""
        others = () if self.proposed is None else (self.proposed,)
        return all(root in one.trusted for one in (self.bundle, *others))


def read_record(documents: Documents) -> tuple[TrustRecord, int]:
    """Return what is on record, and the document's version; raises `StateError`."""
    return read_as(documents, BUNDLE, parse_record)


def read_trust(documents: Documents) -> Trust:
    """Return the bundle in force; raises `StateError`."""
    return read_as(documents, BUNDLE, _trust)[0]


def _trust(content: JsonObject) -> Trust:
    record = parse_record(content)
    proposed = parse_trust_bundle(record.proposed) if record.proposed else None
    return Trust(record.vouched, record.bundle, record.steps, proposed)


def to_json(record: TrustRecord) -> JsonObject:
    """Return the document's content."""
    return {
        "vouched": record.vouched.to_json(),
        "proposed": to_base64(record.proposed),
        "steps": [
            {
                "time": step.time,
                "what": step.what,
                "reason": step.reason,
                "missing": list(step.missing),
            }
            for step in record.steps
        ],
    }


def parse_record(content: JsonObject) -> TrustRecord:
    """Return what a document says; raises `MessageError`."""
    if content.keys() != {"vouched", "proposed", "steps"}:
        raise MessageError("an object of proposed, steps, vouched")
    steps = content["steps"]
    if not isinstance(steps, list):
        raise MessageError("steps: a list")
    return TrustRecord(
        read_vouched(content["vouched"]),
        from_base64(read_text(content, "proposed")),
        tuple(map(_step, steps)),
    )


def _step(value: object) -> Step:
    if not isinstance(value, dict) or not isinstance(value.get("missing"), list):
        raise MessageError("steps: objects")
    try:
        return Step(
            read_count(value, "time"),
            read_text(value, "what"),
            read_text(value, "reason"),
            tuple(str(one) for one in value["missing"]),
        )
    except KeyError as error:
        raise MessageError(f"a step without {error}") from None


def version_after(version: int, wall: datetime) -> int:
    """Return the version of the next bundle: Unix milliseconds, so that a record that was restored passes pods' own."""
    return max(version + 1, int(wall.timestamp() * 1000))


def first_record(trust_domain: str, root: x509.Certificate, wall: datetime) -> TrustRecord:
    """Return the record of a new project, whose one root has yet to vouch for it."""
    root_of_all = Root(root, RootState.ACTIVE)
    bundle = TrustBundle(trust_domain, version_after(0, wall), (root_of_all,))
    return TrustRecord(Vouched(b""), encode_bundle(bundle))


def begin(documents: Documents, signer: Signer, root: x509.Certificate, wall: datetime) -> None:
    """Write the bundle of a new project. Raises `SignerError`, `StateError`, and `StaleError` where there is one."""
    record = vouch_for(first_record(signer.trust_domain, root, wall), signer, wall)
    documents.write(BUNDLE, to_json(record.noting(Step(int(wall.timestamp()), "begun"))), 0)


def vouch_for(record: TrustRecord, signer: Signer, wall: datetime) -> TrustRecord:
    """Return the record with what was proposed in force, and a statement of each root whose word counts.

    A root whose key is lost says nothing: pods that are pinned to it will need another pin. Raises `SignerError` where
    the one that issues cannot be asked, or any cannot be asked now.
    """
    payload = record.proposed
    bundle, digest = parse_trust_bundle(payload), Vouched(payload).hash
    statements = []
    for root in bundle.vouching:
        key = ec.generate_private_key(ec.SECP256R1())
        wanted = for_statement(key.public_key(), bundle.trust_domain, digest, make_csr(key))
        try:
            statements.append(pems(signer.sign(root, wanted, wall, STATEMENT_LIFE)))
        except SignerAwayError:
            raise
        except SignerError:
            if root == bundle.active:
                raise
    return replace(record, vouched=Vouched(payload, tuple(statements)), proposed=b"")
