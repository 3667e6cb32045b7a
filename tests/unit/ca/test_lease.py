"""Who holds which addresses, and how long."""

from ipaddress import ip_address

from support.authority import make_claims

from ca.lease import RENEWABLE_SECONDS, Certified, Lease, holder_of_addresses, lease_to, live_leases

ONE, TWO, SIX = ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("fd00::1")
MINE = make_claims("a" * 16, addresses=(ONE, SIX))
THEIRS = make_claims("b" * 16, addresses=(TWO, SIX))


def hold(ends: int = 100) -> tuple[Lease, ...]:
    return lease_to((), MINE, Certified("1", "k1", ends), wall=0)


def test_address_of_another_tokens_lease_is_held() -> None:
    assert holder_of_addresses(hold(), THEIRS, wall=50) == (SIX, hold()[0])


def test_token_does_not_stand_in_its_own_way() -> None:
    assert holder_of_addresses(hold(), MINE, wall=50) is None


def test_addresses_that_nobody_holds_are_free() -> None:
    other = make_claims("b" * 16, addresses=(TWO,))
    assert holder_of_addresses(hold(), other, wall=50) is None


def test_lease_holds_through_the_certificates_last_second_and_no_longer() -> None:
    assert holder_of_addresses(hold(), THEIRS, wall=100) is not None
    assert holder_of_addresses(hold(), THEIRS, wall=100.01) is None
    assert live_leases(hold(), wall=100.01) == ()


def test_renewed_lease_takes_the_place_of_the_earlier_one() -> None:
    (lease,) = lease_to(hold(), MINE, Certified("2", "k2", 200), wall=50)
    assert (lease.serial, lease.ends) == ("2", 200)


def test_lease_lasts_as_long_as_the_longest_certificate_under_it() -> None:
    (lease,) = lease_to(hold(ends=300), MINE, Certified("2", "k2", 200), wall=50)
    assert (lease.serial, lease.ends) == ("2", 300)


def test_others_leases_stay_until_they_can_no_longer_be_renewed() -> None:
    other, issued = make_claims("b" * 16, addresses=(TWO,)), Certified("2", "k2", 200)

    def kept(wall: float) -> list[str]:
        return [lease.token_id for lease in lease_to(hold(), other, issued, wall)]

    assert kept(100 + RENEWABLE_SECONDS) == ["a" * 16, "b" * 16]
    assert kept(100.01 + RENEWABLE_SECONDS) == ["b" * 16]


def test_lease_knows_the_latest_key_and_that_by_which_it_was_asked_for() -> None:
    (first,) = hold()
    (second,) = lease_to((first,), MINE, Certified("2", "k2", 200), 50, previous="k1")
    (third,) = lease_to((second,), MINE, Certified("3", "k3", 300), 150, previous="k2")
    assert [(each.key, each.previous, each.renewals) for each in (first, second, third)] == [
        ("k1", "", 0),
        ("k2", "k1", 1),
        ("k3", "k2", 2),
    ]


def test_token_begins_a_lease_anew() -> None:
    renewed = lease_to(hold(), MINE, Certified("2", "k2", 200), 50, previous="k1")
    (joined,) = lease_to(renewed, MINE, Certified("3", "k3", 300), 150)
    assert (joined.key, joined.previous, joined.renewals) == ("k3", "", 0)
