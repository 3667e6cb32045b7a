"""What the kernel lets pass in strict mode: nothing in clear inside the cluster's ranges but what is listed."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from support.netagent import (
    FAMILY,
    OWN,
    PEER,
    PLAIN,
    PORT,
    SETTINGS,
    UID,
    Pair,
    holds_nothing,
    inside,
    ip,
    refused_count,
    udp,
    user,
)
from support.servers import receive_exactly

from proxy.flow.clearance import Clearance, parse_clearance
from proxy.netagent.drivers import apply
from proxy.netagent.plan import plan

RANGES = (ip_network("10.9.0.0/16"), ip_network("fd00:9::/48"))
STRICT = replace(SETTINGS, members=(), ranges=RANGES)
BOTH = pytest.mark.parametrize("version", [4, 6])
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def listed(version: int, what: str) -> tuple[Clearance, ...]:
    return (parse_clearance(f"{PEER[version]} {what}"),)


@contextlib.contextmanager
def listening(name: str, version: int, port: int, address: str = "") -> Iterator[socket.socket]:
    with inside(name):
        server = socket.create_server((address, port), family=FAMILY[version])
    server.settimeout(5)
    with server:
        yield server


def connect(
    name: str, version: int, to: str, port: int, *, source: int = 0, uid: int = 0
) -> socket.socket:
    """Connect, or raise OSError soon."""
    with inside(name), user(uid):
        client = socket.socket(FAMILY[version])
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.settimeout(0.4)
    try:
        client.bind(("", source))
        client.connect((to, port))
    except OSError:
        client.close()
        raise
    client.settimeout(5)
    return client


def refused(name: str, version: int, to: str, port: int, *, source: int = 0) -> bool:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - silence, or what the kernel says
        connect(name, version, to, port, source=source).close()
    return caught.value.errno in {None, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES}


@BOTH
def test_an_unknown_address_in_the_ranges_is_not_heard_and_not_told(
    pair: Pair, version: int
) -> None:
    with udp(pair.a, version, PLAIN) as plain, udp(pair.b, version, PLAIN) as peer:
        peer.sendto(b"control", (OWN[version], PLAIN))
        assert plain.recv(100) == b"control"
        plain.sendto(b"control", (PEER[version], PLAIN))
        assert peer.recv(100) == b"control"
        with inside(pair.a):
            apply.set_up(plan(STRICT))
        before = refused_count(pair.a, "refused_arriving")
        peer.sendto(b"plain", (OWN[version], PLAIN))
        plain.sendto(b"plain", (PEER[version], PLAIN))
        with udp(pair.a, version, PORT, uid=UID) as daemon, udp(pair.b, version, PORT) as other:
            other.sendto(b"sealed", (OWN[version], PORT))
            assert daemon.recv(100) == b"sealed"
            daemon.sendto(b"sealed", (PEER[version], PORT))
            assert other.recv(100) == b"sealed"
        assert holds_nothing(plain)
        assert holds_nothing(peer)
        assert refused_count(pair.a, "refused_arriving") == before + 1


@BOTH
def test_what_may_leave_in_clear_is_an_address_a_protocol_and_a_port(
    pair: Pair, version: int
) -> None:
    with inside(pair.a):
        apply.set_up(plan(replace(STRICT, clear_out=listed(version, "tcp/8080"))))
    with listening(pair.b, version, 8080) as server, listening(pair.b, version, 8081):
        with connect(pair.a, version, PEER[version], 8080) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.sendall(bytes(100_000))
                assert len(receive_exactly(client, 100_000)) == 100_000
        assert refused(pair.a, version, PEER[version], 8081)
    # The listed port opens no way in.
    with listening(pair.a, version, PLAIN):
        assert refused(pair.b, version, OWN[version], PLAIN, source=8080)


@BOTH
def test_who_may_come_in_clear_reaches_the_listed_port_and_no_other(
    pair: Pair, version: int
) -> None:
    with inside(pair.a):
        apply.set_up(plan(replace(STRICT, clear_in=listed(version, "tcp/8080-8090"))))
    with listening(pair.a, version, 8085) as server, listening(pair.a, version, 8091):
        with connect(pair.b, version, OWN[version], 8085) as client:
            accepted, _ = server.accept()
            with accepted:
                client.sendall(bytes(100_000))
                assert len(receive_exactly(accepted, 100_000)) == 100_000
        assert refused(pair.b, version, OWN[version], 8091)
    # Nor may we begin anything by that port.
    with listening(pair.b, version, PLAIN):
        assert refused(pair.a, version, PEER[version], PLAIN, source=8087)


@BOTH
def test_queries_of_applications_go_to_the_proxy_and_the_daemons_to_the_resolver(
    pair: Pair, version: int
) -> None:
    resolver = ip_address(PEER[version])
    settings = replace(STRICT, resolvers=(resolver,), dns_port=15053)
    with inside(pair.a):
        apply.set_up(plan(settings))
    with inside(pair.a):
        proxy = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
        proxy.bind((LOOPBACK[version], 15053))
        proxy.settimeout(5)
    with (
        proxy,
        udp(pair.b, version, 53) as server,
        udp(pair.a, version, 0) as application,
        udp(pair.a, version, 0, uid=UID) as daemon,
    ):
        application.connect((str(resolver), 53))
        application.send(b"query")
        query, source = proxy.recvfrom(100)
        assert query == b"query"
        proxy.sendto(b"answer", source)
        assert application.recv(100) == b"answer"
        daemon.sendto(b"query", (str(resolver), 53))
        query, source = server.recvfrom(100)
        server.sendto(b"answer", source)
        assert daemon.recv(100) == b"answer"
        # From the resolver only answers arrive.
        with udp(pair.a, version, PLAIN) as plain:
            server.sendto(b"no answer", (OWN[version], PLAIN))
            server.sendto(b"answer", source)
            assert daemon.recv(100) == b"answer"
            assert holds_nothing(plain)
    with (
        listening(pair.a, version, 15053, LOOPBACK[version]) as proxy,
        connect(pair.a, version, str(resolver), 53),
    ):
        proxy.accept()[0].close()


def test_second_networks_of_the_pod_are_no_way_around(pair: Pair) -> None:
    settings = replace(STRICT, ranges=(*RANGES, ip_network("10.8.0.0/24")))
    with inside(pair.a):
        apply.set_up(plan(settings))
    with udp(pair.a, 4, PORT) as plain, udp(pair.b, 4, PORT, device="eth1") as peer:
        with inside(pair.a), user(0):
            bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth1")
        before = refused_count(pair.a, "refused_arriving")
        peer.sendto(b"plain", ("10.8.0.1", PORT))
        with bound, contextlib.suppress(OSError):
            bound.sendto(b"plain", ("10.8.0.2", PORT))
        assert refused_count(pair.a, "refused_arriving") == before + 1
        assert holds_nothing(plain)
        assert holds_nothing(peer)


@BOTH
def test_multicast_and_link_local_stay_in_and_neighbours_are_found(
    pair: Pair, version: int
) -> None:
    group = {4: "224.0.0.251", 6: "ff02::fb"}[version]
    with inside(pair.a):
        apply.set_up(plan(STRICT))
        ip("neigh", "flush", "dev", "eth0")
    with udp(pair.a, version, 0, device="eth0") as speaker, contextlib.suppress(OSError):
        before = refused_count(pair.a, "refused_leaving")
        speaker.sendto(b"anybody?", (group, 5353))
    assert refused_count(pair.a, "refused_leaving") >= before + 1
    with udp(pair.a, version, PORT, uid=UID) as daemon, udp(pair.b, version, PORT) as other:
        daemon.sendto(b"sealed", (PEER[version], PORT))
        assert other.recv(100) == b"sealed"
