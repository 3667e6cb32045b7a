"""A cookie proves an address, a port, a handshake, a moment, and this process."""

import pytest

from proxy.session.cookie import COOKIE_LIFE, COOKIE_SIZE, CookieJar

HERE = ("10.0.0.1", 15443)


@pytest.fixture
def jar() -> CookieJar:
    return CookieJar(b"s" * 32)


def test_cookie_is_good_for_whom_it_was_baked(jar: CookieJar) -> None:
    cookie = jar.bake(HERE, 5, 1000.7)
    assert len(cookie) == COOKIE_SIZE
    assert jar.is_good(cookie, HERE, 5, 1000.7 + COOKIE_LIFE)


@pytest.mark.parametrize(
    ("endpoint", "handshake_id", "now"),
    [
        (("10.0.0.2", 15443), 5, 1000.0),
        (("10.0.0.1", 15444), 5, 1000.0),
        (HERE, 6, 1000.0),
        (HERE, 5, 1000.0 + COOKIE_LIFE + 1.5),
        (HERE, 5, 998.0),
    ],
)
def test_cookie_serves_nobody_else(
    jar: CookieJar, endpoint: tuple[str, int], handshake_id: int, now: float
) -> None:
    assert not jar.is_good(jar.bake(HERE, 5, 1000.0), endpoint, handshake_id, now)


def test_cookie_of_another_process_is_refused(jar: CookieJar) -> None:
    assert not CookieJar(b"t" * 32).is_good(jar.bake(HERE, 5, 1000.0), HERE, 5, 1000.0)


def test_cookie_with_a_newer_stamp_is_refused(jar: CookieJar) -> None:
    cookie = jar.bake(HERE, 5, 1000.0)
    forged = (1009).to_bytes(4, "big") + cookie[4:]
    assert not jar.is_good(forged, HERE, 5, 1010.0)
