"""Which rosters a pod believes: the CA's own for its namespace, good now, and never an older one."""

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address

import pytest
from support.pki import START, Leaf
from support.pki import Authority as Forger
from support.rosters import DAY, UNVOUCHED, Lists, make_roster

from ca.lists import CONTEXT, Envelope, Roster, encode_envelope, encode_roster, parse_envelope
from ca.trust_bundle import fingerprint
from proxy.credentials.certificate import PodCertificate
from proxy.credentials.judge import judge_chain
from proxy.credentials.roster import EARLY, HeldRoster, verify_roster
from proxy.credentials.trust import Believed
from proxy.drops import Drop
from proxy.errors import Dropped

NOW = START.timestamp()
OURS, OTHERS = Lists(NOW), Lists(NOW)
ROOTS = Believed((OURS.issuer.root,))
OWN: PodCertificate = Forger().issue(Leaf()).own
ROSTER = make_roster(NOW)


def refusal(
    envelope: bytes,
    *,
    wall: float = NOW,
    former: Roster | None = None,
    roots: Believed = ROOTS,
) -> str:
    with pytest.raises(Dropped) as refused:
        verify_roster(envelope, roots, OWN, wall, former)
    assert refused.value.reason is Drop.ROSTER
    return refused.value.detail


def test_cas_roster_is_believed_and_says_who_is_where() -> None:
    assert verify_roster(OURS.sign(ROSTER), ROOTS, OWN, NOW) == ROSTER
    assert ROSTER.entries[0].addresses == (ip_address("10.0.0.1"),)


def test_pods_certificate_signs_no_roster() -> None:
    assert "not named" in refusal(OURS.sign(ROSTER, [OURS.pod()]))


def test_ca_servers_certificate_signs_no_roster() -> None:
    assert "not named" in refusal(OURS.sign(ROSTER, [OURS.server()]))


def test_root_itself_signs_no_roster() -> None:
    lists = Lists(NOW, key=OURS.key)
    lists.signing = OURS.key
    assert "a CA" in refusal(lists.sign(ROSTER, [OURS.issuer.root]))


def test_signer_of_another_root_is_refused_even_with_its_root_in_the_chain() -> None:
    refusal(OTHERS.sign(ROSTER))
    refusal(OTHERS.sign(ROSTER, [OTHERS.signer(), OTHERS.issuer.root]))
    assert verify_roster(OTHERS.sign(ROSTER), Believed((OTHERS.issuer.root,)), OWN, NOW) == ROSTER


def test_genuine_chain_beside_another_signers_signature_is_refused() -> None:
    assert "signature" in refusal(OTHERS.sign(ROSTER, [OURS.signer()]))


def test_signer_of_another_trust_domain_is_refused() -> None:
    bank = Lists(NOW, trust_domain="bank.example")
    assert "not named" in refusal(bank.sign(ROSTER), roots=Believed((bank.issuer.root,)))


@pytest.mark.parametrize("change", [{"trust_domain": "bank.example"}, {"namespace": "bank"}])
def test_roster_of_another_project_is_refused(change: dict[str, object]) -> None:
    assert "bank" in refusal(OURS.sign(replace(ROSTER, **change)))  # type: ignore[arg-type]


def test_altered_payload_is_refused() -> None:
    envelope = parse_envelope(OURS.sign(ROSTER))
    forged = encode_roster(replace(ROSTER, entries=ROSTER.entries[:1]))
    for payload in (forged, envelope.payload + b" ", b""):
        assert "signature" in refusal(encode_envelope(replace(envelope, payload=payload)))


def test_signature_made_for_something_else_is_refused() -> None:
    for context in (b"", CONTEXT[:-1], b"tencrypt roster v2\0"):
        assert "signature" in refusal(OURS.sign(ROSTER, context=context))


@pytest.mark.parametrize(
    ("begins", "good"),
    [
        (timedelta(), True),
        (-DAY, True),
        (-DAY - timedelta(seconds=1), False),
        (timedelta(minutes=6), False),
    ],
    ids=str,
)
def test_signer_counts_while_its_certificate_lasts(begins: timedelta, *, good: bool) -> None:
    envelope = OURS.sign(ROSTER, [OURS.signer(begins)])
    if good:
        assert verify_roster(envelope, ROOTS, OWN, NOW) == ROSTER
    else:
        assert "certificate_time" in refusal(envelope)


def test_roster_counts_from_a_minute_before_its_issue_until_its_time_is_over() -> None:
    envelope = OURS.sign(ROSTER)
    for wall in (NOW - EARLY, ROSTER.next - 1):
        assert verify_roster(envelope, ROOTS, OWN, wall) == ROSTER
    assert "from now" in refusal(envelope, wall=NOW - EARLY - 1)
    assert "over" in refusal(envelope, wall=ROSTER.next)


def test_older_roster_is_refused_and_a_newer_one_taken() -> None:
    for older in (replace(ROSTER, version=6), replace(ROSTER, version=6, issued=ROSTER.issued + 9)):
        assert "older" in refusal(OURS.sign(older), former=ROSTER)
    earlier = replace(ROSTER, issued=ROSTER.issued - 1, next=ROSTER.next - 1)
    assert "older" in refusal(OURS.sign(earlier), former=ROSTER)
    for newer in (
        ROSTER,
        replace(ROSTER, issued=ROSTER.issued + 1),
        replace(ROSTER, version=8, issued=ROSTER.issued - 9, next=ROSTER.next - 9),
    ):
        assert verify_roster(OURS.sign(newer), ROOTS, OWN, NOW, ROSTER) == newer


def test_list_that_is_to_be_good_for_ever_or_is_of_a_day_to_come_is_refused() -> None:
    assert "for 3601 s" in refusal(OURS.sign(replace(ROSTER, next=ROSTER.issued + 3601)))
    limit = int((NOW + 86_400) * 1000)
    assert "of a day to come" in refusal(OURS.sign(replace(ROSTER, version=limit + 1)))
    latest = replace(ROSTER, version=limit)
    assert verify_roster(OURS.sign(latest), ROOTS, OWN, NOW) == latest


def test_list_of_a_revoked_issuer_is_refused() -> None:
    issuer = frozenset({fingerprint(OURS.issuer.root)})
    assert "revoked" in refusal(OURS.sign(ROSTER), roots=replace(ROOTS, revoked_issuers=issuer))


def test_list_that_nobody_would_believe_any_more_keeps_no_other_out() -> None:
    both = Believed((OURS.issuer.root, OTHERS.issuer.root))
    held = HeldRoster()
    forged = OTHERS.sign(replace(ROSTER, version=ROSTER.version + 1000))
    assert held.offer(forged, lambda _: both, OWN, NOW) is not None
    with pytest.raises(Dropped, match="older"):
        held.offer(OURS.sign(ROSTER), lambda _: both, OWN, NOW)
    # Its root counts no more.
    assert held.offer(OURS.sign(ROSTER), lambda _: ROOTS, OWN, NOW) == ROSTER


def test_list_of_a_day_to_come_is_forgotten_once_our_clock_is_set() -> None:
    held, ahead = HeldRoster(), NOW + 2 * 86_400
    lists = Lists(ahead)
    both = Believed((OURS.issuer.root, lists.issuer.root))
    late = lists.sign(make_roster(ahead, version=int(ahead * 1000)))
    assert held.offer(late, lambda _: both, OWN, ahead) is not None
    assert held.offer(OURS.sign(ROSTER), lambda _: both, OWN, NOW) == ROSTER


@pytest.mark.parametrize("chain", [("",), ("no certificate",), ("-----BEGIN CERTIFICATE-----",)])
def test_chain_that_is_none_is_refused(chain: tuple[str, ...]) -> None:
    refusal(encode_envelope(Envelope(encode_roster(ROSTER), chain, b"x", UNVOUCHED)))


def test_list_signer_is_refused_as_a_peer() -> None:
    with pytest.raises(Dropped) as refused:
        judge_chain([OURS.signer(), OURS.issuer.root], OWN, None, NOW)
    assert refused.value.reason is Drop.CERTIFICATE_PROFILE


def test_newest_is_held_whatever_comes_later() -> None:
    held = HeldRoster()
    newer = OURS.sign(ROSTER)
    assert held.offer(newer, lambda _: ROOTS, OWN, NOW) == ROSTER
    assert held.offer(newer, lambda _: ROOTS, OWN, NOW) is None
    assert held.offer(OURS.sign(ROSTER), lambda _: ROOTS, OWN, NOW) is None, (
        "signed again, the same"
    )
    for bad in (OURS.sign(replace(ROSTER, version=6)), OTHERS.sign(ROSTER), b"", b"noise"):
        with pytest.raises(Dropped):
            held.offer(bad, lambda _: ROOTS, OWN, NOW)
    assert (held.roster, held.envelope, held.age_key) == (ROSTER, newer, ROSTER.age_key)
