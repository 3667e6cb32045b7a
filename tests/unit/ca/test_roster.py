"""What a roster lists, when its version rises, who signs it, and what a pod that stops takes from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.authority import DAY, make_claims
from support.memory_ca import ISSUER, SIGNER, WALL, Memory
from typing_extensions import override

from ca.certificates import sign_leaf
from ca.lease import Certified, Lease, lease_to
from ca.lists import Roster, parse_envelope, parse_roster
from ca.messages import JoinClaims
from ca.refusal import Refusal, Refused
from ca.release import release
from ca.renew import Caller, identify
from ca.roster import LONGEST_USE, ListSigner, Rosters, entries_of
from ca.signer import Wanted, for_lists
from policy.certificate import UNREADABLE, check_list_signer, read_pod_names

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
NOW = int(WALL.timestamp())
ONE = make_claims("a" * 16, pod="web-1", addresses=(ip_address("10.0.0.1"),))
TWO = make_claims("b" * 16, pod="web-2", addresses=(ip_address("10.0.0.2"),))
BANK = make_claims("c" * 16, namespace="bank", addresses=(ip_address("10.0.0.3"),))


class Records(Memory):
    """Leases and versions; a restart keeps them, a restored backup brings back what they were."""

    def __init__(self) -> None:
        super().__init__(ONE, TWO, BANK)
        self.versions: dict[str, int] = {}

    def roster_versions(self) -> Mapping[str, int]:
        return self.versions

    def put_roster_versions(self, versions: Mapping[str, int]) -> None:
        if self.is_full:
            raise OSError("No space left on device")
        self.versions = dict(versions)

    def hold(self, claims: JoinClaims, ends: int = NOW + 3600, key: str = "k") -> None:
        self.put_leases(lease_to(self.leases(), claims, Certified("1", key, ends), NOW))


@pytest.fixture
def records() -> Records:
    made = Records()
    made.hold(TWO)
    made.hold(ONE)
    return made


def signed(rosters: Rosters, wall: datetime = WALL, namespace: str = "shop") -> Roster:
    """Sign, and return what the envelope says."""
    roster = parse_roster(parse_envelope(rosters.sign(namespace, wall).envelope).payload)
    assert roster == rosters.sign(namespace, wall).roster
    return roster


def new(records: Records, life: timedelta = DAY) -> Rosters:
    return Rosters(SIGNER, records, life)


def test_roster_lists_the_live_pods_of_its_namespace_sorted(records: Records) -> None:
    records.hold(BANK)
    roster = signed(new(records))
    assert [(e.pod, e.service_account, str(e.addresses[0])) for e in roster.entries] == [
        ("web-1", "web", "10.0.0.1"),
        ("web-2", "web", "10.0.0.2"),
    ]
    assert (roster.trust_domain, roster.namespace) == ("shop.example", "shop")
    assert [e.pod for e in signed(new(records), namespace="bank").entries] == [BANK.pod]


def test_pod_whose_certificate_has_ended_is_not_listed(records: Records) -> None:
    assert entries_of(records.leases(), "shop", NOW + 3600) != ()
    assert entries_of(records.leases(), "shop", NOW + 3601) == ()


@pytest.mark.parametrize(
    ("life", "use"), [(DAY, LONGEST_USE), (timedelta(minutes=10), timedelta(minutes=10))]
)
def test_roster_may_be_used_for_a_certificates_life_and_an_hour_at_most(
    records: Records, life: timedelta, use: timedelta
) -> None:
    roster = signed(new(records, life))
    assert (roster.issued, roster.next) == (NOW, NOW + use.total_seconds())


def test_version_stays_while_nobody_comes_or_goes_and_the_signature_is_renewed(
    records: Records,
) -> None:
    rosters = new(records)
    first, second = signed(rosters), signed(rosters, WALL + 60 * SECOND)
    assert second == replace(first, issued=first.issued + 60, next=first.next + 60)


def test_version_rises_when_a_pod_comes_goes_or_moves(records: Records) -> None:
    rosters = new(records)
    versions = [signed(rosters).version]
    lacking = tuple(one for one in records.leases() if one.pod != "web-2")
    moved = replace(TWO, addresses=(ip_address("10.0.0.9"),))
    changes: list[Callable[[], None]] = [
        lambda: records.put_leases(lacking),
        lambda: records.hold(moved),
    ]
    for change in changes:
        assert not rosters.has_news("shop", WALL)
        change()
        assert rosters.has_news("shop", WALL)
        versions.append(signed(rosters).version)
    assert versions == sorted(set(versions))


def test_end_that_moves_waits_for_the_next_signing(records: Records) -> None:
    rosters = new(records)
    first = signed(rosters)
    records.hold(ONE, ends=NOW + 7200)
    assert not rosters.has_news("shop", WALL)
    second = signed(rosters, WALL + 60 * SECOND)
    assert second.version > first.version
    assert second.entries[0].ends == NOW + 7200


def test_pod_whose_certificate_ends_leaves_with_the_next_signing(records: Records) -> None:
    rosters = new(records)
    first = signed(rosters)
    second = signed(rosters, WALL + HOUR + SECOND)
    assert second.version > first.version
    assert second.entries == ()


def test_version_never_falls_over_a_restart_a_backup_or_a_clock_that_is_set_back(
    records: Records,
) -> None:
    backup = dict(records.versions)
    seen = [signed(new(records)).version]
    seen.append(signed(new(records), WALL - HOUR).version)  # restarted, and the clock set back
    records.versions = backup
    seen.append(signed(new(records), WALL + SECOND).version)
    assert seen == sorted(set(seen))


def test_clock_that_is_set_back_makes_a_version_that_pods_take(records: Records) -> None:
    rosters = new(records)
    first, second = signed(rosters), signed(rosters, WALL - HOUR)
    assert second.issued < first.issued
    assert second.age_key > first.age_key


def test_version_is_on_record_before_anybody_sees_it(records: Records) -> None:
    rosters = new(records)
    before = signed(rosters)
    records.put_leases(())
    records.is_full = True
    with pytest.raises(OSError, match="No space"):
        rosters.sign("shop", WALL)
    latest = rosters.latest("shop")
    assert latest is not None
    assert latest.roster == before


def test_signer_is_replaced_at_half_its_life(records: Records) -> None:
    rosters = new(records)
    signers = []
    for hours in (0, 11, 13, 24):
        signed(rosters, WALL + hours * HOUR)
        signers.append(rosters.signer)
    assert signers[0] is signers[1]
    assert signers[1] is not signers[2]
    assert signers[2] is signers[3]


def test_list_signer_is_no_pod_and_no_caller_of_the_ca() -> None:
    certificate = ListSigner(SIGNER, WALL).certificate
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
        check_list_signer(ListSigner(SIGNER, WALL).certificate, "bank.example")


def caller(key: str) -> Caller:
    return Caller(ONE.identity, ONE.pod, "1", key, WALL + HOUR)


def test_pod_that_stops_leaves_the_roster_and_its_addresses_are_free(records: Records) -> None:
    records.hold(ONE, key="mine")
    gone = release(caller("mine"), records)
    assert (gone.pod, gone.addresses) == (ONE.pod, ONE.addresses)
    assert [lease.pod for lease in records.leases()] == ["web-2"]


@pytest.mark.parametrize("key", ["before", "never"])
def test_only_the_latest_key_gives_addresses_back(records: Records, key: str) -> None:
    (lease,) = (one for one in records.leases() if one.pod == ONE.pod)
    held: tuple[Lease, ...] = (replace(lease, key="latest", previous="before"),)
    records.put_leases(held)
    with pytest.raises(Refused) as refused:
        release(caller(key), records)
    assert refused.value.reason is Refusal.SUPERSEDED
    assert records.leases() == held
