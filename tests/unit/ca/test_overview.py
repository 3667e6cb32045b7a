"""What `tencrypt ca show` says of leases."""

from datetime import timedelta

from support.authority import make_claims
from support.memory_ca import ISSUER, WALL

from ca.lease import Certified, Lease, lease_to
from ca.overview import Overview, draw, look, to_json

CLAIMS = make_claims()
ENDS = int(WALL.timestamp()) + 3600


def renewed() -> tuple[Lease, ...]:
    leases = lease_to((), CLAIMS, Certified("1", "k1", ENDS), 0)
    for number in (2, 3):
        issued = Certified(f"{number}", f"k{number}", ENDS)
        leases = lease_to(leases, CLAIMS, issued, 0, previous=f"k{number - 1}")
    return leases


def seen(seconds: int) -> Overview:
    return look("shop.example", ISSUER.root, (), renewed(), WALL + timedelta(seconds=seconds))


def test_renewed_lease_is_one_line_with_its_latest_certificate_and_how_often() -> None:
    lease = {
        "token_id": CLAIMS.id,
        "pod": "web-1",
        "namespace": "shop",
        "addresses": ["10.0.0.1", "fd00::1"],
        "serial": "3",
        "ends": ENDS,
        "renewals": 2,
    }
    assert to_json(seen(0))["leases"] == [lease]
    *_, header, row = draw(seen(0)).splitlines()
    assert header.split() == ["token", "pod", "ends", "renewed", "addresses"]
    assert row.split() == [
        *(CLAIMS.id, "shop/web-1", "2026-05-01", "13:00", "UTC", "2", "10.0.0.1", "fd00::1")
    ]


def test_lease_that_has_ended_holds_nothing_although_it_can_be_renewed() -> None:
    assert to_json(seen(3601))["leases"] == []
    assert draw(seen(3601)).endswith("addresses in use: none")
