"""Two nodes whose settings limit suites and groups: a common choice serves, and without one nothing leaves."""

import pytest
from sim.world import Node, World, udp_packet
from support.pki import Authority, Leaf

from proxy.drops import Drop
from proxy.session.profile import DEFAULT_PROFILE, TlsProfile

A, B = "10.0.0.1", "10.0.0.2"
SECRET = b"the account number is 4711"
HYBRID, P384 = "X25519MLKEM768", "secp384r1"
AES, CHACHA = "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"
CURVE_ALONE = TlsProfile((AES,), (P384,))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def two(authority: Authority, ours: TlsProfile, theirs: TlsProfile) -> tuple[World, Node, Node]:
    world = World(1)
    a = world.join(authority.issue(Leaf(pod="a", addresses=(A,))), ours)
    b = world.join(authority.issue(Leaf(pod="b", addresses=(B,))), theirs)
    return world, a, b


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (CURVE_ALONE, DEFAULT_PROFILE),
        (DEFAULT_PROFILE, CURVE_ALONE),
        (CURVE_ALONE, TlsProfile(groups=("secp256r1",))),
        (TlsProfile(suites=(CHACHA,)), TlsProfile(suites=(AES,))),
    ],
)
def test_pods_without_a_common_choice_refuse_each_other_and_send_nothing(
    authority: Authority, ours: TlsProfile, theirs: TlsProfile
) -> None:
    world, a, b = two(authority, ours, theirs)
    a.send_packet(udp_packet(A, B, SECRET))
    world.run(10)
    assert b.received == []
    assert not a.table.sessions
    assert not b.table.sessions
    assert not any(SECRET in data for data in world.carried)
    refused = {Drop.TLS_PARAMETERS, Drop.PEER_REFUSED}
    assert refused <= set(a.drops) | set(b.drops)
    assert refused & set(a.drops)
    assert refused & set(b.drops)


@pytest.mark.parametrize("calls", [A, B])
def test_pods_with_a_common_choice_use_it(authority: Authority, calls: str) -> None:
    world, a, b = two(authority, CURVE_ALONE, TlsProfile((CHACHA, AES), (HYBRID, P384)))
    one, other = (a, b) if calls == A else (b, a)
    packet = udp_packet(one.address, other.address, SECRET)
    one.send_packet(packet)
    world.run(1)
    assert other.received == [packet]
    agreed = {(s.suite, s.group) for node in (a, b) for s in node.table.sessions.values()}
    assert agreed == {(AES, P384)}
