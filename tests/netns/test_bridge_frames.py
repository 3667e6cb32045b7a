"""A third pod on the bridge, root in its own namespace, against two strict pods; a pod without is the control."""

import socket
from collections.abc import Iterator

import pytest
from support.capture import SESSION_PORT, Taps
from support.exchanges import FAMILIES, Family, address
from support.kernel_state import refused_count
from support.mallory import KNOWN, Ears, Stage, index_in, plaintext, second_address, staged
from support.namespaces import Pod, family_of
from support.netagent import holds_nothing
from support.processes import wait_for
from support.servers import bound

from proxy.session.wire import RECORD

CANARY = b"canary-of-the-bridge-19b8"
PORT = 7005


@pytest.fixture(scope="module", params=list(KNOWN))
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged(request.param) as made:
        yield made


def refused(pod: Pod) -> int:
    return refused_count(pod, "refused_arriving")


@pytest.mark.parametrize(
    "whose", ["a member's", "a stranger's", "her own", "the victim's", "a link's"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_plaintext_from_any_address_inside_reaches_no_program(
    stage: Stage, family: Family, whose: str
) -> None:
    def attack(victim: Pod, ears: Ears) -> set[int]:
        source = {
            "a member's": address(stage["nginx2"], family),
            "a stranger's": "10.77.0.99" if family == "ipv4" else "fd77:7465:6e63::99",
            "her own": address(stage["mallory"], family),
            "the victim's": address(victim, family),
            "a link's": "169.254.7.7" if family == "ipv4" else "fe80::77",
        }[whose]
        there = address(victim, family)
        for protocol, body in plaintext(source, there, PORT, CANARY):
            stage.mallory.throw(victim, source, there, protocol, body)
        return ears.heard(source, PORT, CANARY)

    with Ears(stage["plain"]) as ears:
        # Nobody's kernel takes its own IPv4 address from outside.
        expected = 0 if (whose, family) == ("the victim's", "ipv4") else 4
        assert len(attack(stage["plain"], ears)) == expected
    before = refused(stage["nginx1"])
    with Ears(stage["nginx1"]) as ears:
        assert attack(stage["nginx1"], ears) == set()
    assert refused(stage["nginx1"]) >= before + 4
    stage.talk(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_program_hears_plaintext_by_the_session_port(stage: Stage, family: Family) -> None:
    """The daemon has the port of the pod's addresses; a program may have it of others, as of the link's."""
    source = address(stage["nginx2"], family)
    ports = (SESSION_PORT, SESSION_PORT)

    def attack(victim: Pod) -> bool:
        other = second_address(victim, family)
        scope = (0, index_in(victim)) if family == "ipv6" else ()
        with victim.socket(family_of(other), socket.SOCK_DGRAM) as program:
            program.bind((other, SESSION_PORT, *scope))
            stage.mallory.datagram(victim, (source, other), ports, CANARY)
            stage.mallory.datagram(victim, (source, address(victim, family)), ports, CANARY)
            return not holds_nothing(program)

    with stage["nginx1"].socket(family_of(source), socket.SOCK_DGRAM) as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            taker.bind((address(stage["nginx1"], family), SESSION_PORT))
    assert attack(stage["plain"])
    before = sum(stage.drops("nginx1").values())
    assert not attack(stage["nginx1"])
    wait_for("the daemon to refuse", lambda: sum(stage.drops("nginx1").values()) > before)
    stage.talk(family)


def test_who_takes_a_members_address_hears_sealed_datagrams_and_is_not_believed(
    stage: Stage,
) -> None:
    """ARP and neighbour discovery prove nothing. What this can hurt, while it lasts, is availability."""
    family, mallory = stage.outer, stage.mallory
    plain, one, taken = stage["plain"], stage["nginx1"], address(stage["nginx2"], stage.outer)
    taps = Taps((mallory.pod, "eth0"))
    with (
        mallory.taking(taken, plain, one),
        bound(mallory.pod, taken, socket.SOCK_DGRAM, PORT) as false,
        bound(mallory.pod, taken, socket.SOCK_DGRAM, SESSION_PORT) as sealed,
        bound(plain, address(plain, family), socket.SOCK_DGRAM, PORT) as unprotected,
        bound(one, address(one, family), socket.SOCK_DGRAM, PORT) as protected,
    ):
        unprotected.sendto(CANARY + b" of plain", (taken, PORT))
        assert false.recv(100) == CANARY + b" of plain"
        false.sendto(CANARY, unprotected.getsockname()[:2])
        assert unprotected.recv(100) == CANARY
        before = refused(one)
        protected.sendto(CANARY + b" of nginx1", (taken, PORT))
        record, sender = sealed.recvfrom(2000)
        assert (record[0] >= RECORD, sender[0]) == (True, address(one, family))
        false.sendto(CANARY, protected.getsockname()[:2])
        wait_for("the refusal", lambda: refused(one) > before)
        assert holds_nothing(protected)
        assert holds_nothing(false)
    [capture] = taps.stop().values()
    assert capture.holding(CANARY + b" of plain")
    assert not capture.holding(CANARY + b" of nginx1")
    stage.talk(family)
