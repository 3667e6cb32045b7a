"""From requests of a namespace's pods to their certificates, by one write for all that wait.

1. The namespace's document is read, and all requests are judged by it, one after another: what the first takes
   the second finds held.
2. The signer signs what the tokens' records say, side by side.
3. The leases are written in the place of what was read. Where somebody else wrote meanwhile, all is judged again.
4. What forbids is read: a revocation, or a root that went, is on record before it looks at leases, and here leases
   are on record before it is looked at. So one of the two sees the other.
5. Certificates leave.

So no certificate leaves that is not on record, and no two servers grant one address.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from cryptography import x509

from ca.documents import Documents, StaleError, StateAwayError, namespace_name, read_as
from ca.facts import Facts, ReadCrl, no_crl, read_facts
from ca.issue import Issued, TokenRecord, find_token, key_hash, text_of
from ca.lease import Certified, Lease, holder_of_addresses, lease_to
from ca.lists import Revoked
from ca.messages import JoinClaims, SignResponse
from ca.namespace import Namespace, parse, to_json
from ca.profile import ApprovedRequest, ProvenKey
from ca.refusal import Refusal, Refused
from ca.renew import Caller, entitled, require_lease
from ca.revocations import check_not_revoked
from ca.signer import Signer, SignerAwayError, SignerError, for_pod, pems
from ca.trust_bundle import fingerprint

T = TypeVar("T")

ATTEMPTS: Final = 16
"""At one write; each that fails means that another server's did not."""


class SideBySide(Protocol):
    """Does several things that block, at once or one after another; gives results in their order."""

    def __call__(self, things: Sequence[Callable[[], T]]) -> list[T]:
        """Do them; none raises."""


def in_turn(things: Sequence[Callable[[], T]]) -> list[T]:
    """Do one after another."""
    return [thing() for thing in things]


@dataclass(frozen=True, slots=True)
class Asked:
    """A certificate for this key is asked for, by a token or by the key of an earlier certificate."""

    proven: ProvenKey
    by: TokenRecord | Caller


Outcome = Issued | Refused | SignerError


@dataclass(frozen=True, slots=True)
class Office:
    """Who grants: where the records are, who signs, for how long."""

    documents: Documents
    signer: Signer
    life: timedelta
    side_by_side: SideBySide = in_turn
    read_crl: ReadCrl = no_crl

    def find_token(self, token_id: str) -> TokenRecord | None:
        """Return what is on record of a token; raises `StateError`."""
        return find_token(self.documents, token_id)

    def facts(self) -> Facts:
        """Return what forbids, as it is now; raises `StateError` and `SignerError`."""
        return read_facts(self.documents, self.read_crl)

    def read(self, namespace: str) -> tuple[Namespace, int]:
        """Return what is on record of a namespace, and its version there; raises `StateError`."""
        return read_as(self.documents, namespace_name(namespace), parse)

    def change(
        self, namespace: str, change: Callable[[Namespace], Namespace]
    ) -> tuple[Namespace, Namespace]:
        """Write what ``change`` makes of the latest record; return that and what was written.

        It is called again where somebody else wrote meanwhile; what it raises is raised. Raises `StateError`.
        """
        for _ in range(ATTEMPTS):
            before, version = self.read(namespace)
            after = change(before)
            if after is before:
                return before, after
            try:
                self.documents.write(namespace_name(namespace), to_json(after), version)
            except StaleError:
                continue
            return before, after
        raise StateAwayError(
            f"{namespace_name(namespace)}: others wrote it {ATTEMPTS} times in a row"
        )


def grant(asked: Sequence[Asked], namespace: str, office: Office, wall: datetime) -> list[Outcome]:
    """Return what comes of each request, all of pods of one namespace; raises `StateError`."""
    desk = _Desk(asked, namespace, office, wall)
    office.change(namespace, desk.decide)
    return desk.outcomes(office.facts())


@dataclass(frozen=True, slots=True)
class _Granted:
    """What is on record now, and leaves where nothing forbids it."""

    chain: tuple[str, ...]
    root: x509.Certificate
    lease: Lease


class _Desk:
    """One batch, judged anew for each state of the record that it meets."""

    def __init__(
        self, asked: Sequence[Asked], namespace: str, office: Office, wall: datetime
    ) -> None:
        self._asked, self._namespace, self._office, self._wall = asked, namespace, office, wall
        # Those of a root that issues no more are asked for again.
        self._signed: dict[
            tuple[int, JoinClaims, x509.Certificate], Sequence[x509.Certificate] | SignerError
        ] = {}
        self._outcomes: dict[int, _Granted | Refused | SignerError] = {}
        self._tokens: dict[str, TokenRecord | None] = {}

    def outcomes(self, facts: Facts) -> list[Outcome]:
        """Return what comes of each request, by what forbids after the leases are on record."""
        return [
            self._last_word(self._outcomes[number], facts) for number in range(len(self._asked))
        ]

    def _last_word(self, outcome: _Granted | Refused | SignerError, facts: Facts) -> Outcome:
        if not isinstance(outcome, _Granted):
            return outcome
        lease = outcome.lease
        if not facts.trust.may_issue(outcome.root):
            return SignerAwayError("the roots have changed meanwhile: ask again")
        try:
            _check(lease, facts.revoked_in(self._namespace))
        except Refused as refused:
            return refused
        trust, now = facts.trust.vouched.to_json(), self._wall.timestamp()
        return Issued(SignResponse(outcome.chain, trust, now), lease)

    def decide(self, before: Namespace) -> Namespace:
        """Return the record with the leases of those whose requests are granted."""
        self._outcomes.clear()
        facts = self._office.facts()
        self._root, self._revoked = facts.active, facts.revoked_in(self._namespace)
        entitled_to: dict[int, JoinClaims] = {}
        after = before
        for number, one in enumerate(self._asked):
            try:
                entitled_to[number], after = self._judge(one, after)
            except Refused as refused:
                self._outcomes[number] = refused
        self._sign(entitled_to)
        return self._record(before, entitled_to)

    def _judge(self, one: Asked, now: Namespace) -> tuple[JoinClaims, Namespace]:
        """Return what is granted, and the record as if it were."""
        joins, serials = now.joins, ("", "")
        if isinstance(one.by, TokenRecord):
            claims = one.by.claims
            joins = _count_join(one.by, key_hash(one.proven.public_key), now, self._wall)
        else:
            mine = require_lease(one.by, now.leases)
            claims = entitled(one.by, mine, self._find_token)
            # Of the two by which a pod may renew either may be withdrawn, and the other shown.
            serials = one.by.serial, mine.serial
        check_not_revoked(self._revoked, claims.pod, claims.service_account, serials)
        held = holder_of_addresses(now.leases, claims, self._wall.timestamp())
        if held is not None:
            address, lease = held
            until = text_of(lease.ends)
            raise Refused(
                Refusal.ADDRESS_HELD,
                f"{address} is held until {until} by pod {lease.pod}, which joined with another token",
                claims,
            )
        if self._root.not_valid_after_utc <= self._wall:
            raise Refused(Refusal.ROOT_ENDED, "the CA's root has ended", claims)
        ends = int((self._wall + self._office.life).timestamp())
        return claims, replace(
            now, leases=self._leases(now.leases, one, claims, "", ends), joins=joins
        )

    def _find_token(self, token_id: str) -> TokenRecord | None:
        if token_id not in self._tokens:
            self._tokens[token_id] = self._office.find_token(token_id)
        return self._tokens[token_id]

    def _sign(self, entitled_to: Mapping[int, JoinClaims]) -> None:
        office, root = self._office, self._root
        # What was signed for a former state of the record is as good, where it says the same.
        wanted = [pair for pair in entitled_to.items() if (*pair, root) not in self._signed]

        def sign(number: int, claims: JoinClaims) -> Sequence[x509.Certificate] | SignerError:
            try:
                proven = self._asked[number].proven
                approved = ApprovedRequest(proven.public_key, claims, proven.csr)
                return office.signer.sign(root, for_pod(approved), self._wall, office.life)
            except SignerError as error:
                return error

        chains = office.side_by_side([_bind(sign, *pair) for pair in wanted])
        self._signed.update(
            ((*pair, root), chain) for pair, chain in zip(wanted, chains, strict=True)
        )

    def _record(self, before: Namespace, entitled_to: Mapping[int, JoinClaims]) -> Namespace:
        leases, joins = before.leases, before.joins
        for number, claims in entitled_to.items():
            chain, one = self._signed[number, claims, self._root], self._asked[number]
            if isinstance(chain, SignerError):
                self._outcomes[number] = chain
                continue
            if isinstance(one.by, TokenRecord):
                now = replace(before, leases=leases, joins=joins)
                joins = _count_join(one.by, key_hash(one.proven.public_key), now, self._wall)
            ends = int(chain[0].not_valid_after_utc.timestamp())
            leases = self._leases(leases, one, claims, f"{chain[0].serial_number:x}", ends)
            self._outcomes[number] = _Granted(pems(chain), self._root, leases[-1])
        if leases is before.leases:
            return before
        return before.changed(self._wall.timestamp(), leases, joins)

    def _leases(
        self, leases: Iterable[Lease], one: Asked, claims: JoinClaims, serial: str, ends: int
    ) -> tuple[Lease, ...]:
        certified = Certified(
            serial, key_hash(one.proven.public_key), ends, fingerprint(self._root)
        )
        by_key = one.by.key if isinstance(one.by, Caller) else ""
        return lease_to(leases, claims, certified, self._wall.timestamp(), by_key)


def _check(lease: Lease, revoked: Revoked) -> None:
    serials = (lease.serial,)
    check_not_revoked(revoked, lease.pod, lease.service_account, serials)


def _count_join(
    token: TokenRecord, key: str, now: Namespace, wall: datetime
) -> Mapping[str, tuple[int, int]]:
    """Return how often tokens were used, with this time; raise `Refused` where it is spent."""
    if not token.uses:
        return now.joins
    used, _ = now.joins.get(token.claims.id, (0, 0))
    if any(lease.token_id == token.claims.id and lease.key == key for lease in now.leases):
        return now.joins  # the answer was lost, and the pod asks for the same key again
    if used >= token.uses:
        message = f"the token was made for {token.uses} uses, and they are over"
        raise Refused(Refusal.SPENT_TOKEN, message, token.claims)
    kept = {each: counted for each, counted in now.joins.items() if counted[1] > wall.timestamp()}
    return kept | {token.claims.id: (used + 1, token.claims.expires)}


def _bind(
    sign: Callable[[int, JoinClaims], Sequence[x509.Certificate] | SignerError],
    number: int,
    claims: JoinClaims,
) -> Callable[[], Sequence[x509.Certificate] | SignerError]:
    return lambda: sign(number, claims)
