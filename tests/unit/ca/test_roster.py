"""What a roster lists, when its version rises, who signs it, and what a pod that stops takes from it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.authority import DAY, make_claims
from support.memory_ca import ISSUER, SIGNER, WALL, Memory
from typing_extensions import override

from ca.certificates import sign_leaf
from ca.facts import read_facts
from ca.lease import Certified, lease_to
from ca.lists import Roster, parse_envelope, parse_roster
from ca.messages import JoinClaims
from ca.namespace import Namespace
from ca.refusal import Refusal, Refused
from ca.release import release
from ca.renew import Caller, identify
from ca.roster import ListSigner, Rosters
from ca.signer import Wanted, for_lists
from policy.certificate import UNREADABLE, check_list_signer, read_pod_names

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
NOW = int(WALL.timestamp())
ONE = make_claims("a" * 16, pod="web-1", addresses=(ip_address("10.0.0.1"),))
TWO = make_claims("b" * 16, pod="web-2", addresses=(ip_address("10.0.0.2"),))
BANK = make_claims("c" * 16, namespace="bank", addresses=(ip_address("10.0.0.3"),))


class Records(Memory):
    """What is on record; a restart keeps it, a restored backup brings back what it was."""

    def __init__(self) -> None:
        super().__init__(ONE, TWO, BANK)

    def hold(self, claims: JoinClaims, ends: int = NOW + 3600, key: str = "k") -> None:
        record = self.record(claims.namespace)
        leases = lease_to(record.leases, claims, Certified("1", key, ends), NOW)
        self.put(record.changed(NOW, leases), claims.namespace)


@pytest.fixture
def records() -> Records:
    made = Records()
    made.hold(TWO)
    made.hold(ONE)
    return made


def signed(
    rosters: Rosters, records: Records, wall: datetime = WALL, namespace: str = "shop"
) -> Roster:
    """Sign what is on record, and return what the envelope says."""
    record = rosters.due(namespace, records.record(namespace), read_facts(records), wall)
    records.put(record, namespace)
    made = rosters.sign(namespace, record, read_facts(records), wall)
    assert parse_roster(parse_envelope(made.envelope).payload) == made.roster
    return made.roster


def new(life: timedelta = DAY) -> Rosters:
    return Rosters(SIGNER, life)


def test_roster_lists_the_live_pods_of_its_namespace_sorted(records: Records) -> None:
    records.hold(BANK)
    roster = signed(new(), records)
    assert [(e.pod, e.service_account, str(e.addresses[0])) for e in roster.entries] == [
        ("web-1", "web", "10.0.0.1"),
        ("web-2", "web", "10.0.0.2"),
    ]
    assert (roster.trust_domain, roster.namespace) == ("shop.example", "shop")
    assert [e.pod for e in signed(new(), records, namespace="bank").entries] == [BANK.pod]


def test_pod_is_listed_through_its_certificates_last_second_and_no_longer(records: Records) -> None:
    record = records.record()
    assert not record.is_due(NOW + 3600)
    assert len(record.changed(NOW + 3600).entries()) == 2
    assert record.is_due(NOW + 3600.5)
    assert record.changed(NOW + 3600.5).entries() == ()


@pytest.mark.parametrize(
    ("life", "use"), [(DAY, HOUR), (timedelta(minutes=10), timedelta(minutes=10))]
)
def test_roster_may_be_used_for_a_certificates_life_and_an_hour_at_most(
    records: Records, life: timedelta, use: timedelta
) -> None:
    roster = signed(new(life), records)
    assert (roster.issued, roster.next) == (NOW, NOW + use.total_seconds())


def test_version_stays_while_nobody_comes_or_goes_and_the_signature_is_renewed(
    records: Records,
) -> None:
    rosters = new()
    first, second = signed(rosters, records), signed(rosters, records, WALL + 60 * SECOND)
    assert second == replace(first, issued=first.issued + 60, next=first.next + 60)


def test_two_servers_sign_one_version_of_one_record(records: Records) -> None:
    assert signed(new(), records) == signed(new(), records)


def test_version_rises_when_a_pod_comes_goes_or_moves(records: Records) -> None:
    rosters = new()
    versions = [signed(rosters, records).version]
    moved = replace(TWO, addresses=(ip_address("10.0.0.9"),))
    three = make_claims("d" * 16, pod="web-3", addresses=(ip_address("10.0.0.4"),))

    def go() -> None:
        record = records.record()
        records.put(record.changed(NOW, (one for one in record.leases if one.pod != "web-2")))

    for change in (partial(records.hold, moved), partial(records.hold, three), go):
        change()
        versions.append(signed(rosters, records).version)
    assert versions == sorted(set(versions))


def test_end_that_moves_is_in_the_next_signature_of_the_same_version(records: Records) -> None:
    rosters = new()
    first = signed(rosters, records)
    records.hold(ONE, ends=NOW + 7200)
    second = signed(rosters, records, WALL + 60 * SECOND)
    assert second.age_key == (first.version, first.issued + 60)
    assert second.entries[0].ends == NOW + 7200


def test_pod_whose_certificate_ends_leaves_with_the_next_signing(records: Records) -> None:
    rosters = new()
    first = signed(rosters, records)
    second = signed(rosters, records, WALL + HOUR + SECOND)
    assert second.version > first.version
    assert second.entries == ()


def test_version_never_falls_over_a_restart_a_backup_or_a_clock_that_is_set_back(
    records: Records,
) -> None:
    backup, rosters = records.record(), new()
    seen = [signed(rosters, records).version]
    seen.append(signed(new(), records, WALL - HOUR).version)  # restarted, and the clock set back
    records.put(backup.raised(WALL.timestamp() + 1))  # as a copy is restored
    seen.append(signed(rosters, records, WALL + SECOND).version)
    records.hold(TWO, ends=NOW + 7200, key="another")
    records.put(Namespace())
    seen.append(signed(rosters, records, WALL + SECOND).version)
    assert seen == sorted(set(seen))


def test_clock_that_is_set_back_makes_a_version_that_pods_take(records: Records) -> None:
    rosters = new()
    first, second = signed(rosters, records), signed(rosters, records, WALL - HOUR)
    assert second.issued < first.issued
    assert second.age_key > first.age_key


def test_clock_that_was_ahead_for_a_while_unlists_nobody_who_lives(records: Records) -> None:
    ahead = records.record().changed(NOW + 5000)
    assert ahead.entries() == ()
    assert len(ahead.changed(NOW).entries()) == 2
    assert ahead.changed(NOW + 4990).entries() == ()  # another server's clock lags a little


def test_signer_is_replaced_at_half_its_life(records: Records) -> None:
    rosters = new()
    signers = []
    for hours in (0, 11, 13, 24):
        signed(rosters, records, WALL + hours * HOUR)
        signers.append(rosters.signer)
    assert signers[0] is signers[1]
    assert signers[1] is not signers[2]
    assert signers[2] is signers[3]


def test_list_signer_is_no_pod_and_no_caller_of_the_ca() -> None:
    certificate = ListSigner(SIGNER, ISSUER.root, WALL).certificate
    check_list_signer(certificate, "shop.example")
    with pytest.raises(UNREADABLE):
        read_pod_names(certificate)
    with pytest.raises(Refused) as refused:
        identify(certificate.public_bytes(Encoding.DER), "shop.example", WALL)
    assert refused.value.reason is Refusal.NOT_A_POD


LISTS = x509.UniformResourceIdentifier("spiffe://shop.example/tencrypt/lists")
CA = x509.UniformResourceIdentifier("spiffe://shop.example/tencrypt/ca")
SERVERS = (ExtendedKeyUsageOID.SERVER_AUTH,)
WRONG: dict[str, tuple[list[x509.GeneralName], tuple[x509.ObjectIdentifier, ...]]] = {
    "the CA service's name": ([CA], ()),
    "two names": ([LISTS, LISTS], ()),
    "a pod's name too": ([LISTS, x509.DNSName("web-1.shop.pod")], ()),
    "an address too": ([LISTS, x509.IPAddress(ip_address("10.0.0.1"))], ()),
    "for servers": ([LISTS], SERVERS),
    "for clients": ([LISTS], (ExtendedKeyUsageOID.CLIENT_AUTH,)),
}


@dataclass(frozen=True, slots=True)
class Named(Wanted):
    """A certificate of any names."""

    others: tuple[x509.GeneralName, ...] = ()

    @property
    @override
    def names(self) -> list[x509.GeneralName]:
        return list(self.others)


@pytest.mark.parametrize(("names", "purposes"), WRONG.values(), ids=WRONG)
def test_certificate_that_is_nearly_a_list_signers_is_none(
    names: list[x509.GeneralName], purposes: tuple[x509.ObjectIdentifier, ...]
) -> None:
    def certify(of: list[x509.GeneralName], purposes: tuple[x509.ObjectIdentifier, ...]) -> None:
        good = for_lists(ISSUER.key.public_key(), "shop.example")
        wanted = Named(good.kind, good.public_key, "", "", purposes=purposes, others=tuple(of))
        check_list_signer(sign_leaf(ISSUER, wanted, WALL, DAY), "shop.example")

    certify([LISTS], ())
    with pytest.raises(UNREADABLE):
        certify(names, purposes)


def test_root_and_another_trust_domains_signer_are_no_list_signers() -> None:
    with pytest.raises(UNREADABLE):
        check_list_signer(ISSUER.root, "shop.example")
    with pytest.raises(UNREADABLE):
        check_list_signer(ListSigner(SIGNER, ISSUER.root, WALL).certificate, "bank.example")


def caller(key: str) -> Caller:
    return Caller(ONE.identity, ONE.pod, "1", key, WALL + HOUR)


def test_pod_that_stops_leaves_the_roster_and_its_addresses_are_free(records: Records) -> None:
    records.hold(ONE, key="mine")
    before = records.record()
    after, gone = release(caller("mine"), before, NOW)
    assert (gone.pod, gone.addresses) == (ONE.pod, ONE.addresses)
    assert [lease.pod for lease in after.leases] == ["web-2"]
    assert after.version > before.version


@pytest.mark.parametrize("key", ["before", "never"])
def test_only_the_latest_key_gives_addresses_back(records: Records, key: str) -> None:
    (lease,) = (one for one in records.held if one.pod == ONE.pod)
    record = Namespace((replace(lease, key="latest", previous="before"),))
    with pytest.raises(Refused) as refused:
        release(caller(key), record, NOW)
    assert refused.value.reason is Refusal.SUPERSEDED


def test_version_of_a_day_to_come_falls_to_now_for_pods_would_refuse_it(records: Records) -> None:
    ahead = records.record().raised(NOW + 400 * 86_400)  # a clock that was wrong, or a thief's hand
    records.put(ahead)
    rosters = new()
    first = signed(rosters, records)
    assert first.version == NOW * 1000
    assert signed(rosters, records, WALL + SECOND).version == first.version
    records.put(replace(records.record(), version=(1 << 63) - 1))
    assert signed(rosters, records, WALL + 2 * SECOND).version == (NOW + 2) * 1000
    within = records.record().raised(NOW + 3600)
    records.put(within)
    assert signed(rosters, records, WALL + 3 * SECOND).version >= within.version


def test_version_passes_what_a_pod_says_to_have_and_no_other_clocks(records: Records) -> None:
    rosters = new()
    before = signed(rosters, records).version
    rosters.claim("shop", before + 5000, WALL)
    rosters.claim("shop", (1 << 63) - 1, WALL)
    rosters.claim("shop", 7, WALL)
    assert signed(rosters, records, WALL + SECOND).version == before + 5001
    assert signed(rosters, records, WALL + 2 * SECOND).version == before + 5001
