"""What the CA's owner does to its records: a step of rotation in force, or an entry of revocation."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from ca.documents import Documents, StaleError, StateError
from ca.messages import MessageError
from ca.overview import read_leases
from ca.revocations import REVOCATIONS, RevocationList, read_revocations
from ca.revocations import to_json as revocations_to_json
from ca.rotation import GateError, RotationError, Standing, stand
from ca.signer import Signer
from ca.trust import BUNDLE, Step, TrustRecord, read_record, to_json, version_after, vouch_for
from ca.trust_bundle import TrustBundle, encode_bundle

ATTEMPTS: Final = 8

Decide = Callable[[TrustBundle, Standing, Iterable[str]], TrustBundle]
"""Gives the bundle that a step leads to, without regard to some pods; raises `RotationError`."""


@dataclass(frozen=True, slots=True)
class Forced:
    """Which pods a step does not wait for, and, where it waits for none, why."""

    without: tuple[str, ...] = ()
    reason: str = ""


def look(documents: Documents, wall: datetime) -> tuple[TrustRecord, Standing]:
    """Return the bundle on record, and where pods stand. Raises `StateError`."""
    record, _ = read_record(documents)
    leases = read_leases(documents)
    return record, stand(leases, record.vouched, wall.timestamp())


def take_back(documents: Documents) -> bool:
    """Forget what somebody proposed and did not finish; say whether there was anything."""
    record, version = read_record(documents)
    if not record.proposed:
        return False
    _write(documents, replace(record, proposed=b""), version)
    return True


def step(  # noqa: PLR0913 - a step in full
    documents: Documents,
    signer: Signer,
    what: str,
    decide: Decide,
    wall: datetime,
    *,
    forced: Forced = Forced(),
) -> TrustBundle:
    """Carry out a step, in the place of one that somebody has begun and not finished: who knows whether by its gates.

    Whatever fails, or interrupts, the bundle in force stays. Raises `RotationError`, `StateError` and `SignerError`.
    """
    found, version = read_record(documents)
    record = replace(found, proposed=b"")
    bundle, now = record.bundle, wall.timestamp()
    missing: tuple[str, ...] = ()

    def decided() -> TrustBundle:
        nonlocal missing
        standing = stand(read_leases(documents), record.vouched, now)
        try:
            return decide(bundle, standing, forced.without)
        except GateError as error:
            if not forced.reason:
                raise
            missing = error.missing
            return decide(bundle, standing, standing.live)

    after = decided()
    after = replace(after, version=version_after(bundle.version, wall))
    proposed = replace(record, proposed=encode_bundle(after))
    _write(documents, proposed, version)
    try:
        # Servers look at what is proposed after a lease is on record: whom they let go is seen here.
        decided()
        vouched = vouch_for(proposed, signer, wall)
    except BaseException:
        with contextlib.suppress(RotationError, StateError):
            _write(documents, record, version + 1)
        raise
    note = Step(int(now), what, forced.reason, (*forced.without, *missing))
    _write(documents, vouched.noting(note), version + 1)
    return after


def _write(documents: Documents, record: TrustRecord, version: int) -> None:
    try:
        documents.write(BUNDLE, to_json(record), version)
    except StaleError:
        raise RotationError("somebody else has changed the roots meanwhile: look again") from None


def change_revocations(
    documents: Documents, change: Callable[[RevocationList], RevocationList]
) -> bool:
    """Write what ``change`` makes of the list; say whether that differs. Raises `StateError`, `RotationError`."""
    for _ in range(ATTEMPTS):
        before, version = read_revocations(documents)
        try:
            after = change(before)
        except MessageError as error:
            raise RotationError(str(error)) from None
        if after is before:
            return False
        try:
            documents.write(REVOCATIONS, revocations_to_json(after), version)
        except StaleError:
            continue
        return True
    raise RotationError("others change the list all the time: look again")
