"""What `tencrypt status` says of the certificate and its renewals."""

import pytest

from proxy.session.profile import DEFAULT_PROFILE
from proxy.status import JsonObject, draw


def status(remaining: int, renewal: JsonObject) -> JsonObject:
    return {
        "pod": {"name": "web-1", "identity": "spiffe://a/ns/b/sa/c", "addresses": ["10.0.0.1"]},
        "certificate": {"serial": "1f", "remaining_seconds": remaining, "renewal": renewal},
        "tls": {
            "suites": list(DEFAULT_PROFILE.suites),
            "groups": list(DEFAULT_PROFILE.groups),
        },
        "offloads": {"tso": True, "uso": True, "gso": True, "gro": True},
        "sessions": [],
        "drops": {},
    }


GOOD: JsonObject = {"renewals": 2, "next_seconds": 3600, "failures": 0, "last_error": None}
FAILED: JsonObject = GOOD | {"next_seconds": 42, "failures": 3, "last_error": "no answer in 10 s"}


def test_people_hear_of_renewals_only_where_they_fail() -> None:
    assert draw(status(7200, GOOD)).splitlines()[1:3] == ["certificate 1f, 2h00m left", ""]
    assert draw(status(7200, FAILED)).splitlines()[1:4] == [
        "certificate 1f, 2h00m left",
        "renewal failed (3 in a row), again in 0m42s: no answer in 10 s",
        "",
    ]


def test_people_hear_of_offloads_that_are_not_in_use() -> None:
    off = status(7200, GOOD) | {"offloads": {"tso": True, "uso": False, "gso": True, "gro": False}}
    assert draw(off).splitlines()[2] == "without offloads: uso, gro"


def test_ended_certificate_has_nothing_left() -> None:
    assert draw(status(-5, FAILED)).splitlines()[1] == "certificate 1f, none left"


@pytest.mark.parametrize("renewal", [None, [], "x", {}, {"failures": 1}])
def test_status_without_its_parts_is_no_status(renewal: JsonObject) -> None:
    with pytest.raises((KeyError, TypeError)):
        draw(status(7200, renewal))
