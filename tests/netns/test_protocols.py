"""Every IP protocol crosses whole and unseen, in both families, and in bulk."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from socket import SOCK_DGRAM

import pytest
from support.capture import Capture, Taps
from support.exchanges import (
    EXCHANGES,
    FAMILIES,
    ICMP_KINDS,
    SERVER_PORT,
    Exchange,
    Family,
    address,
    leaks,
    sealed_bytes,
)
from support.frames import kind_of
from support.namespaces import Fabric
from support.project import Project
from support.servers import bound, bulk_transfer, connect_many, tcp_echo
from support.tencrypt import ProjectCA, Proxy

MEGABYTES_100 = 100_000_000


@dataclass(frozen=True)
class Protected:
    """Two pods that run Tencrypt, and what listeners captured of all exchanges before it ran."""

    project: Project
    clear: Mapping[str, Capture]


@pytest.fixture(scope="module")
def protected() -> Iterator[Protected]:
    with Fabric("nginx1", "nginx2") as fabric:
        taps = Taps.everywhere(fabric)
        for exchange in EXCHANGES:
            for family in FAMILIES:
                exchange.run(fabric["nginx1"], fabric["nginx2"], family, exchange.canary(family))
        clear = taps.stop()
        project = Project(fabric)
        project.start()
        yield Protected(project, clear)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_a_protocol_arrives_unchanged_and_nobody_on_the_way_sees_it(
    protected: Protected, exchange: Exchange, family: Family
) -> None:
    canary, fabric = exchange.canary(family), protected.project.fabric
    for capture in protected.clear.values():
        kinds = {kind_of(frame, 0) for frame in capture.holding(canary)}
        assert kinds, f"the control failed at {capture.point}"
        assert kinds == exchange.kinds or kinds < ICMP_KINDS

    one, two = fabric["nginx1"], fabric["nginx2"]
    taps = Taps.everywhere(fabric)
    exchange.run(one, two, family, canary)
    sealed = taps.stop()

    assert set(sealed) == set(protected.clear)
    assert not leaks(sealed, canary)
    for capture in sealed.values():
        assert sealed_bytes(capture, one, two) >= exchange.size, capture.point
        if exchange.answered:
            assert sealed_bytes(capture, two, one) >= exchange.size, capture.point


@pytest.mark.parametrize("family", FAMILIES)
def test_pods_of_one_family_alone_are_served_by_it(fabric: Fabric, family: Family) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    ca, members = ProjectCA(fabric), [address(one, family), address(two, family)]
    for pod in (one, two):
        own = [address(pod, family)]
        token = ca.token(pod, addresses=own)
        Proxy(pod, ca, members, token=token, settings={"addresses": own}).start_and_wait()

    taps = Taps.everywhere(fabric)
    for exchange in EXCHANGES:
        exchange.run(one, two, family, exchange.canary(family))
    sealed = taps.stop()

    assert not leaks(sealed, *(exchange.canary(family) for exchange in EXCHANGES))
    for capture in sealed.values():
        carriers = {str(d.packet.source) for d in capture.datagrams()}
        assert carriers == set(members)
        carried = min(sealed_bytes(capture, one, two), sealed_bytes(capture, two, one))
        assert carried >= sum(exchange.size for exchange in EXCHANGES if exchange.answered)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_refusal_by_the_other_pods_kernel_comes_back(
    protected: Protected, family: Family
) -> None:
    one, two = protected.project.fabric["nginx1"], protected.project.fabric["nginx2"]
    with bound(one, address(one, family), SOCK_DGRAM, 0) as client:
        client.connect((address(two, family), SERVER_PORT))
        client.send(b"nobody listens")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


@pytest.mark.parametrize("family", FAMILIES)
def test_200_connections_at_once_keep_their_addresses_and_ports(
    protected: Protected, family: Family
) -> None:
    one, two = protected.project.fabric["nginx1"], protected.project.fabric["nginx2"]
    server = (address(two, family), SERVER_PORT)
    with tcp_echo(two, *server) as callers:
        calling = connect_many(one, address(one, family), server, 200, b"hello ")

    assert len(calling) == 200
    assert calling == callers


@pytest.mark.parametrize(
    ("sender", "receiver", "family"),
    [("nginx1", "nginx2", "ipv4"), ("nginx2", "nginx1", "ipv4"), ("nginx1", "nginx2", "ipv6")],
)
def test_100_megabytes_arrive_whole_through_the_session(
    protected: Protected, sender: str, receiver: str, family: Family
) -> None:
    fabric = protected.project.fabric
    server = (address(fabric[receiver], family), SERVER_PORT)
    before = bytes_carried(protected.project, sender, receiver)

    sent, arrived = bulk_transfer(
        fabric[sender], fabric[receiver], server, MEGABYTES_100, b"canary in bulk"
    )

    assert sent == arrived
    carried = bytes_carried(protected.project, sender, receiver)
    assert min(after - b for after, b in zip(carried, before, strict=True)) >= MEGABYTES_100


def bytes_carried(project: Project, sender: str, receiver: str) -> tuple[int, int]:
    """Give the bytes that all sessions have sealed at one end and opened at the other."""
    return (
        sum(session["bytes_out"] for session in project[sender].status()["sessions"]),
        sum(session["bytes_in"] for session in project[receiver].status()["sessions"]),
    )
