"""Limits on suites and groups: what may be asked for, and what two pods then agree on."""

from ipaddress import ip_address
from itertools import product

import pytest
from support.pki import START, Authority, Leaf

from proxy.credentials.credential import Credential
from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.keys import SUITES
from proxy.session.profile import DEFAULT_PROFILE, TlsProfile
from proxy.session.tls import TlsEnd, make_context

WALL = START.timestamp() + 60
B = "10.0.0.2"
HYBRID, P256, P384 = "X25519MLKEM768", "secp256r1", "secp384r1"
AES, CHACHA = "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"

GROUPS = [(HYBRID,), (P256,), (P384,), (HYBRID, P256), (HYBRID, P384), (HYBRID, P256, P384)]
REFUSED = {Drop.TLS_PARAMETERS, Drop.PEER_REFUSED}
Ends = tuple[Credential, Credential]


@pytest.fixture(scope="module")
def pods() -> Ends:
    authority = Authority()
    a, b = Leaf(pod="a", addresses=("10.0.0.1",)), Leaf(pod="b", addresses=(B,))
    return authority.issue(a), authority.issue(b)


def caller(pods: Ends, profile: TlsProfile) -> TlsEnd:
    context, called = make_context(pods[0], profile), ip_address(B).packed
    return TlsEnd(context, pods[0].own, called=called, wall=WALL, profile=profile)


def called(pods: Ends, profile: TlsProfile, openssl: TlsProfile | None = None) -> TlsEnd:
    context = make_context(pods[1], openssl or profile)
    return TlsEnd(context, pods[1].own, called=None, wall=WALL, profile=profile)


def talk(first: TlsEnd, second: TlsEnd) -> tuple[str | Drop | None, str | Drop | None]:
    """Let both talk to the end; of each end, what it agreed to or why it refused."""
    ends = (first, second)
    outcomes: list[str | Drop | None] = [None, None]
    data = b""
    for turn in range(8):
        at = turn % 2
        try:
            if outcomes[at] is None:
                proven = ends[at].step(data)
                outcomes[at] = f"{proven.suite} {proven.group}" if proven else None
            elif data and not isinstance(outcomes[at], Drop):
                ends[at].read_refusal(data)
        except Dropped as refused:
            outcomes[at] = refused.reason
        data = ends[at].outgoing()
    return outcomes[0], outcomes[1]


def test_default_is_both_suites_and_the_hybrid_alone() -> None:
    assert TlsProfile() == DEFAULT_PROFILE
    assert (DEFAULT_PROFILE.suites, DEFAULT_PROFILE.groups) == ((AES, CHACHA), (HYBRID,))
    assert set(DEFAULT_PROFILE.suites) == set(SUITES)


@pytest.mark.parametrize(("ours", "theirs"), [*product(GROUPS, GROUPS)])
def test_two_pods_agree_within_both_profiles_or_both_refuse(
    pods: Ends, ours: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    profiles = TlsProfile(groups=ours), TlsProfile(groups=theirs)
    outcomes = talk(caller(pods, profiles[0]), called(pods, profiles[1]))
    common = [group for group in ours if group in theirs]
    if common:
        # OpenSSL prefers the hybrid, and with it each has at most one other in common here.
        assert outcomes == (f"{AES} {common[0]}",) * 2
    else:
        assert set(outcomes) == REFUSED


def test_suite_that_the_caller_prefers_is_used(pods: Ends) -> None:
    fond = TlsProfile(suites=(CHACHA, AES))
    outcomes = talk(caller(pods, fond), called(pods, DEFAULT_PROFILE))
    assert outcomes == (f"{CHACHA} {HYBRID}",) * 2


def test_pods_without_a_common_suite_refuse_each_other(pods: Ends) -> None:
    one, other = TlsProfile(suites=(AES,)), TlsProfile(suites=(CHACHA,))
    assert talk(caller(pods, one), called(pods, other)) == (Drop.PEER_REFUSED, Drop.TLS_PARAMETERS)


def test_suite_outside_the_profile_is_refused_whatever_openssl_agreed_to(pods: Ends) -> None:
    narrow, wide = TlsProfile(suites=(AES,)), TlsProfile(suites=(CHACHA,))
    outcomes = talk(caller(pods, wide), called(pods, narrow, openssl=wide))
    assert outcomes == (Drop.PEER_REFUSED, Drop.TLS_PARAMETERS)


@pytest.mark.parametrize(
    ("suites", "groups", "why"),
    [
        ((), (HYBRID,), f"at least one of {AES}, {CHACHA}"),
        ((AES, AES), (HYBRID,), f"{AES} is listed twice"),
        (
            ("TLS_AES_128_GCM_SHA256",),
            (HYBRID,),
            f"'TLS_AES_128_GCM_SHA256' is none of {AES}, {CHACHA}",
        ),
        ((AES,), (), f"at least one of {HYBRID}, {P384}, {P256}"),
        ((AES,), ("X25519",), f"'X25519' is none of {HYBRID}, {P384}, {P256}"),
        ((AES,), (P256, P256), f"{P256} is listed twice"),
        ((AES,), (P384, P256), f"one group, or several with {HYBRID} first: OpenSSL prefers it"),
        ((AES,), (P256, HYBRID), f"one group, or several with {HYBRID} first: OpenSSL prefers it"),
    ],
)
def test_profile_that_openssl_could_not_be_held_to_is_refused(
    suites: tuple[str, ...], groups: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        TlsProfile(suites, groups)
    assert str(caught.value) == why
