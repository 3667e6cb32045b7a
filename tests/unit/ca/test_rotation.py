"""The steps of a root's life, and who stands in the way of each."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from support.authority import DAY, make_claims, make_csr_pem
from support.memory_ca import ISSUER, WALL, Memory, ask
from typing_extensions import override
from unit.ca.test_own_issuer import Made, make

from ca.certificates import Issuer, KeySigner, make_root
from ca.documents import StateError
from ca.facts import read_facts
from ca.lease import Certified, Lease, lease_to
from ca.messages import SignRequest, encode
from ca.namespace import Namespace
from ca.owner import Decide, Forced, look, step, take_back
from ca.rotation import (
    GateError,
    RotationError,
    Standing,
    activate,
    prepare,
    revoke,
    revoke_issuer,
    rollback,
    stand,
    taint,
)
from ca.signer import SignerAwayError, SignerError, Wanted, check_signed
from ca.trust import read_record, to_json
from ca.trust_bundle import (
    Root,
    RootState,
    TrustBundle,
    Vouched,
    encode_bundle,
    fingerprint,
    parse_trust_bundle,
)
from proxy.credentials.bundle import HeldBundle
from proxy.errors import Dropped

NOW = WALL.timestamp()
MINUTE = timedelta(minutes=1)


def new_root(number: int) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    return Issuer(make_root(key, "shop.example", WALL, 3650 * DAY, number), key)


SECOND, THIRD = new_root(2), new_root(3)
KEYS = {one.root: one for one in (ISSUER, SECOND, THIRD)}
SIGNER = KeySigner(ISSUER, find=KEYS.get)
FIRST = TrustBundle("shop.example", 1, (Root(ISSUER.root, RootState.ACTIVE),))
NOBODY = Standing(frozenset(), frozenset(), {})


def states(bundle: TrustBundle) -> list[str]:
    return [root.state.value for root in bundle.roots]


def standing(*missing: str, under: dict[str, frozenset[str]] | None = None) -> Standing:
    live = frozenset({"shop/web-1", "shop/web-2"})
    return Standing(live, live - set(missing), under or {})


PREPARED = prepare(FIRST, SECOND.root)
ACTIVATED = activate(PREPARED, NOBODY, ())


def test_a_root_goes_from_next_to_active_to_previous_to_nothing() -> None:
    assert states(PREPARED) == ["active", "next"]
    assert states(ACTIVATED) == ["previous", "active"]
    assert states(taint(ACTIVATED, fingerprint(ISSUER.root))) == ["tainted", "active"]
    after = revoke(ACTIVATED, fingerprint(ISSUER.root)[:12], NOBODY, ())
    assert after.trusted == (SECOND.root,)
    assert [one.version for one in (FIRST, PREPARED, ACTIVATED, after)] == [1, 2, 3, 4]


def test_rollback_takes_a_next_root_out_and_an_active_one_back() -> None:
    assert rollback(PREPARED, NOBODY, ()).trusted == (ISSUER.root,)
    back = rollback(ACTIVATED, NOBODY, ())
    assert states(back) == ["active", "next"]
    assert rollback(back, NOBODY, ()).trusted == (ISSUER.root,)


NO_STEPS: dict[str, Callable[[], object]] = {
    "a second next": lambda: prepare(PREPARED, THIRD.root),
    "the same root": lambda: prepare(FIRST, ISSUER.root),
    "nothing to activate": lambda: activate(FIRST, NOBODY, ()),
    "nothing to go back to": lambda: rollback(FIRST, NOBODY, ()),
    "the root that issues": lambda: revoke(FIRST, fingerprint(ISSUER.root), NOBODY, ()),
    "a root that issues is not tainted": lambda: taint(FIRST, fingerprint(ISSUER.root)),
    "an unknown root": lambda: taint(ACTIVATED, "ffff"),
    "no root in particular": lambda: taint(ACTIVATED, ""),
    "a root as an issuer": lambda: revoke_issuer(FIRST, fingerprint(ISSUER.root), NOBODY),
}


@pytest.mark.parametrize("tried", NO_STEPS.values(), ids=NO_STEPS)
def test_what_is_no_step_from_here_is_refused(tried: Callable[[], object]) -> None:
    with pytest.raises(RotationError):
        tried()


def test_pods_that_do_not_go_by_the_bundle_stand_in_the_way_by_name() -> None:
    steps: list[Callable[[Standing], TrustBundle]] = [
        lambda where: activate(PREPARED, where, ()),
        lambda where: rollback(PREPARED, where, ()),
        lambda where: rollback(ACTIVATED, where, ()),
        lambda where: revoke(ACTIVATED, fingerprint(ISSUER.root), where, ()),
    ]
    for tried in steps:
        with pytest.raises(GateError, match="1 pod do not go by the present roots") as error:
            tried(standing("shop/web-2"))
        assert error.value.missing == ("shop/web-2",)
        tried(standing())
    assert states(activate(PREPARED, standing("shop/web-2"), ["shop/web-2"])) == states(ACTIVATED)


def test_pods_under_a_root_stand_in_its_way() -> None:
    under = {fingerprint(ISSUER.root): frozenset({"shop/web-1"})}
    with pytest.raises(GateError, match="have certificates under root") as error:
        revoke(ACTIVATED, fingerprint(ISSUER.root), standing(under=under), ())
    assert error.value.missing == ("shop/web-1",)


def lease(pod: str, ends: float, acknowledged: str, root: str = "r") -> Lease:
    claims = make_claims(pod.encode().hex().ljust(16, "0")[:16], pod=pod)
    (made,) = lease_to((), claims, Certified("1", "k", int(ends), root), NOW)
    return replace(made, bundle=acknowledged)


def test_a_pod_is_live_until_its_certificate_has_ended() -> None:
    vouched = Vouched(b"a bundle")
    leases = [
        lease("a", NOW - 1, ""),
        lease("b", NOW, vouched.hash),
        lease("c", NOW + 9, "other", "s"),
    ]
    found = stand(leases, vouched, NOW)
    assert found.live == {"shop/b", "shop/c"}
    assert found.missing == {"shop/c"}
    assert found.under == {"r": {"shop/b"}, "s": {"shop/c"}}


def put(documents: Memory, *leases: Lease) -> None:
    documents.put(Namespace().changed(NOW, leases))


def test_a_step_is_vouched_for_by_each_root_that_counts_and_pods_take_it() -> None:
    documents = Memory()
    by_pin = {root: HeldBundle("shop.example", root) for root in KEYS}
    step(documents, SIGNER, "prepare", lambda b, *_: prepare(b, SECOND.root), WALL)
    step(documents, SIGNER, "activate", activate, WALL)
    for root in (ISSUER.root, SECOND.root):
        assert by_pin[root].offer(read_record(documents)[0].vouched)
        assert by_pin[root].bundle.active == SECOND.root
    with pytest.raises(Dropped, match="no root that counts vouches"):
        by_pin[THIRD.root].offer(read_record(documents)[0].vouched)
    former = fingerprint(ISSUER.root)
    step(documents, SIGNER, "taint", lambda b, *_: taint(b, former), WALL)
    follower, pinned = by_pin[ISSUER.root], HeldBundle("shop.example", ISSUER.root)
    assert follower.offer(read_record(documents)[0].vouched)
    with pytest.raises(Dropped):  # a tainted root's word counts no more, not even for itself
        pinned.offer(read_record(documents)[0].vouched)


def test_a_tainted_roots_thief_changes_nothing_for_who_knows() -> None:
    documents = Memory()
    step(documents, SIGNER, "prepare", lambda b, *_: prepare(b, SECOND.root), WALL)
    step(documents, SIGNER, "activate", activate, WALL)
    step(documents, SIGNER, "taint", lambda b, *_: taint(b, fingerprint(ISSUER.root)), WALL)
    held = HeldBundle("shop.example", SECOND.root)
    held.offer(read_record(documents)[0].vouched)
    thiefs = Memory()
    for number in range(6):  # of a higher version, by the former root alone
        step(thiefs, SIGNER, f"{number}", lambda b, *_: replace(b, version=b.version + 1), WALL)
    with pytest.raises(Dropped):
        held.offer(read_record(thiefs)[0].vouched)
    assert held.bundle.active == SECOND.root


def test_an_older_bundle_is_not_taken_although_it_was_vouched_for() -> None:
    documents = Memory()
    old = read_record(documents)[0].vouched
    step(documents, SIGNER, "prepare", lambda b, *_: prepare(b, SECOND.root), WALL)
    held = HeldBundle("shop.example", ISSUER.root)
    assert held.offer(read_record(documents)[0].vouched)
    assert not held.offer(old)
    assert held.roots == (ISSUER.root, SECOND.root)


def test_a_statement_on_another_bundle_is_worth_nothing() -> None:
    documents = Memory()
    vouched = read_record(documents)[0].vouched
    changed = vouched.payload.replace(b'"version":1', b'"version":9')
    assert parse_trust_bundle(changed).version > parse_trust_bundle(vouched.payload).version
    with pytest.raises(Dropped):
        HeldBundle("shop.example", ISSUER.root).offer(replace(vouched, payload=changed))


def test_a_gate_changes_nothing_and_force_is_on_record_with_its_reason_and_who_was_missing() -> (
    None
):
    documents = Memory()
    put(documents, lease("web-1", NOW + 60, "an older bundle"))
    step(documents, SIGNER, "prepare", lambda b, *_: prepare(b, SECOND.root), WALL)
    before = documents.read("bundle")
    with pytest.raises(GateError):
        step(documents, SIGNER, "activate", activate, WALL)
    assert documents.read("bundle") == before
    step(documents, SIGNER, "activate", activate, WALL, forced=Forced(reason="it is stuck"))
    last = read_record(documents)[0].steps[-1]
    assert (last.what, last.reason, last.missing) == ("activate", "it is stuck", ("shop/web-1",))


def test_two_owners_who_step_at_once_are_one_step() -> None:
    documents = Memory()

    def rival() -> None:
        step(documents, SIGNER, "prepare", lambda b, *_: prepare(b, THIRD.root), WALL)

    documents.meanwhile.append(rival)
    with pytest.raises(RotationError, match="somebody else"):
        step(documents, SIGNER, "prepare", lambda b, *_: prepare(b, SECOND.root), WALL)
    assert read_record(documents)[0].bundle.trusted == (ISSUER.root, THIRD.root)


class Failing(KeySigner):
    """Signs nothing."""

    def __init__(self, failure: BaseException) -> None:
        super().__init__(ISSUER)
        self._failure = failure

    @override
    def sign(self, *_: object) -> tuple[x509.Certificate, ...]:
        raise self._failure


class Elsewhere(KeySigner):
    """Signs by a clock of its own, and is judged as Vault is."""

    @override
    def sign(
        self, root: x509.Certificate, wanted: Wanted, wall: datetime, life: timedelta
    ) -> tuple[x509.Certificate, ...]:
        chain = super().sign(root, wanted, WALL, life)
        check_signed(wanted, chain, root, wall, life)
        return chain


def to_prepare(root: x509.Certificate) -> Decide:
    return lambda bundle, *_: prepare(bundle, root)


@pytest.mark.parametrize("failure", [SignerAwayError("away"), KeyboardInterrupt()], ids=repr)
def test_a_step_that_stops_half_way_is_taken_back(failure: BaseException) -> None:
    documents = Memory()
    before = read_record(documents)[0]
    with pytest.raises(type(failure)):
        step(documents, Failing(failure), "prepare", to_prepare(SECOND.root), WALL)
    assert read_record(documents)[0] == before
    step(documents, SIGNER, "prepare", to_prepare(THIRD.root), WALL)
    assert read_record(documents)[0].bundle.trusted == (ISSUER.root, THIRD.root)


def test_a_step_whose_owner_died_half_way_is_not_carried_out_by_the_next() -> None:
    """Its gates may have been failed, or never tried."""
    documents = Memory()
    record, version = read_record(documents)
    stuck = replace(record, proposed=encode_bundle(prepare(record.bundle, SECOND.root)))
    documents.write("bundle", to_json(stuck), version)
    step(documents, SIGNER, "prepare", to_prepare(THIRD.root), WALL)
    after = read_record(documents)[0]
    assert after.bundle.trusted == (ISSUER.root, THIRD.root)
    assert not after.proposed
    documents.write("bundle", to_json(stuck), documents.read("bundle").version)
    assert take_back(documents)
    assert not read_record(documents)[0].proposed
    assert not take_back(documents)


def test_an_owner_whose_clock_is_ahead_changes_nothing() -> None:
    """It would take live leases for ended ones, and pass its gates."""
    documents = Memory()
    before = read_record(documents)[0]
    with pytest.raises(SignerError, match="the signer's clock"):
        step(documents, Elsewhere(ISSUER), "prepare", to_prepare(SECOND.root), WALL + 8 * MINUTE)
    assert read_record(documents)[0] == before
    step(documents, Elsewhere(ISSUER), "again", lambda b, *_: b, WALL + MINUTE)


def test_versions_pass_those_of_before_a_restore() -> None:
    documents = Memory()
    copy = documents.read("bundle").content
    step(documents, SIGNER, "prepare", to_prepare(SECOND.root), WALL)
    held = HeldBundle("shop.example", ISSUER.root)
    assert held.offer(read_record(documents)[0].vouched)
    documents.write("bundle", copy, documents.read("bundle").version)  # a restore
    step(documents, SIGNER, "prepare", to_prepare(THIRD.root), WALL + MINUTE)
    assert held.offer(read_record(documents)[0].vouched)
    assert held.roots == (ISSUER.root, THIRD.root)


def test_a_certificate_granted_while_its_root_is_taken_out_does_not_leave() -> None:
    """Whichever is first on record, one of the two sees the other."""
    claims = make_claims(addresses=(ip_address("10.0.0.1"),))
    body = encode(SignRequest(make_csr_pem()))
    documents = Memory(claims)
    step(documents, SIGNER, "prepare", lambda b, *_: prepare(b, SECOND.root), WALL)
    step(documents, SIGNER, "activate", activate, WALL)
    step(documents, SIGNER, "back", rollback, WALL)  # the second is `next` again
    step(documents, SIGNER, "again", activate, WALL)
    first = fingerprint(ISSUER.root)

    def out() -> None:
        step(documents, SIGNER, "revoke", lambda b, s, w: revoke(b, first, s, w), WALL)

    # A slow server: it has read that the first root issues, and is about to write the lease.
    slow = Memory(claims)
    slow.documents = documents.documents
    documents.meanwhile.append(out)
    issued = ask(documents, documents.records[claims.id], body, WALL, signer=SIGNER)
    assert issued.lease.root == fingerprint(SECOND.root)
    assert read_facts(documents).trust.bundle.trusted == (SECOND.root,)


def test_where_pods_stand_is_shown_of_all_namespaces() -> None:
    documents = Memory()
    record, found = look(documents, WALL)
    assert (record.bundle.roots, found.live) == (FIRST.roots, frozenset())
    put(documents, lease("web-1", NOW + 60, record.vouched.hash))
    assert look(documents, WALL + timedelta(seconds=1))[1].missing == frozenset()


def test_a_damaged_bundle_is_an_error() -> None:
    documents = Memory()
    documents.documents["bundle"] = replace(documents.read("bundle"), content={})
    with pytest.raises(StateError, match="bundle: damaged"):
        look(documents, WALL)


def below(root: Issuer) -> Issuer:
    """Return an intermediate that a root has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    middle = make("shop", Made(root.root, root.key), key=key, path_length=0)
    return Issuer(root.root, key, (middle.certificate,))


def test_a_revoked_issuers_word_counts_no_more() -> None:
    middle = below(ISSUER)
    signer, documents = KeySigner(middle, "shop.example"), Memory()
    held = HeldBundle("shop.example", ISSUER.root)
    gone = fingerprint(middle.between[0])
    step(documents, SIGNER, "issuer", lambda b, s, _: revoke_issuer(b, gone, s), WALL)
    assert held.offer(read_record(documents)[0].vouched)
    assert held.authority.revoked_issuers == {gone}
    thiefs = Memory()
    for number in range(3):  # bundles of its own, of higher versions
        step(thiefs, signer, f"{number}", lambda b, *_: replace(b, version=b.version + 1), WALL)
    with pytest.raises(Dropped, match="no root that counts"):
        held.offer(read_record(thiefs)[0].vouched)
    control = HeldBundle("shop.example", ISSUER.root)
    assert control.offer(read_record(thiefs)[0].vouched)


def test_the_issuer_that_issues_cannot_be_revoked() -> None:
    middle = below(ISSUER)
    signer, documents = KeySigner(middle, "shop.example"), Memory()
    step(documents, signer, "again", lambda b, *_: replace(b, version=b.version + 1), WALL)
    gone = fingerprint(middle.between[0])
    with pytest.raises(RotationError, match="this issuer issues"):
        step(documents, signer, "issuer", lambda b, s, _: revoke_issuer(b, gone, s), WALL)


def test_a_tainted_root_signs_no_list() -> None:
    documents = Memory()
    step(documents, SIGNER, "prepare", lambda b, *_: prepare(b, SECOND.root), WALL)
    step(documents, SIGNER, "activate", activate, WALL)
    held = HeldBundle("shop.example", SECOND.root)
    held.offer(read_record(documents)[0].vouched)
    before = held.authority.roots
    assert before == (SECOND.root, ISSUER.root)
    step(documents, SIGNER, "taint", lambda b, *_: taint(b, fingerprint(ISSUER.root)), WALL)
    held.offer(read_record(documents)[0].vouched)
    assert held.authority.roots == (SECOND.root,)
    assert held.roots == (ISSUER.root, SECOND.root)  # pods' certificates under it are good
