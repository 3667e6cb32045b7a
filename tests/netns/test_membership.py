"""Who belongs, found out by DNS alone: what is sealed, held, refused and left alone, as programs in pods meet it."""

import contextlib
import errno
import json
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from support.capture import Taps
from support.cluster import ZONE, Cluster, name_of, resolve
from support.exchanges import leaks
from support.namespaces import BRIDGE_IPV4, Fabric, Pod, family_of
from support.processes import run
from support.servers import bound, udp_echo
from support.tencrypt import TENCRYPT

from proxy.dns import wire

CANARY = b"canary-of-membership-71c2"
PORT = 7001


@pytest.fixture
def cluster(fabric: Fabric) -> Cluster:
    """Two pods that know each other by DNS alone."""
    made = Cluster(fabric)
    made.project.start()
    return made


def ask(pod: Pod, address: str, port: int = PORT) -> bytes:
    """Send one datagram, once, and return what comes back."""
    with bound(pod, pod.ipv6 if ":" in address else pod.ipv4, socket.SOCK_DGRAM, 0) as program:
        program.settimeout(8)
        program.connect((address, port))
        program.send(CANARY)
        return program.recv(100)


def refusal(pod: Pod, address: str, kind: socket.SocketKind) -> int | None:
    """What the kernel tells a program that calls an address: errno, None for silence."""
    with pod.socket(family_of(address), kind) as program:
        program.settimeout(3)
        try:
            program.connect((address, PORT))
            program.send(CANARY)
            program.recv(10)
        except TimeoutError:
            return None
        except OSError as error:
            return error.errno
    return 0


def sources(cluster: Cluster, pod_name: str) -> dict[str, str]:
    members: dict[str, str] = cluster.project[pod_name].status()["project"]["members"]
    return members


@contextlib.contextmanager
def watching(cluster: Cluster) -> Iterator[None]:
    """Nothing that happens inside is seen in clear, anywhere outside of the pods."""
    taps = Taps.everywhere(cluster.fabric)
    yield
    captures = taps.stop()
    assert any(capture.kinds()["session RECORD"] for capture in captures.values())
    assert not leaks(captures, CANARY)


@pytest.mark.parametrize("kind", [wire.A, wire.AAAA])
def test_a_name_of_the_zone_makes_its_addresses_members(cluster: Cluster, kind: int) -> None:
    one, two = cluster.fabric["nginx1"], cluster.fabric["nginx2"]
    [address] = resolve(one, name_of(two).upper(), kind)
    host = str(ip_address(address))
    assert sources(cluster, "nginx1")[host] == "zone"
    with udp_echo(two, host, PORT), watching(cluster):
        assert ask(one, host) == CANARY
    # Who called us is a member, without any lookup.
    assert set(sources(cluster, "nginx2").values()) == {"session"}


def test_an_address_nobody_asked_for_is_looked_up_and_its_first_packet_is_not_lost(
    cluster: Cluster,
) -> None:
    one, two = cluster.fabric["nginx1"], cluster.fabric["nginx2"]
    for host in (two.ipv4, two.ipv6):
        with udp_echo(two, host, PORT), watching(cluster):
            assert ask(one, host) == CANARY


@pytest.mark.parametrize("host", ["10.77.0.99", "fd77:7465:6e63::99"])
def test_a_program_that_calls_an_unknown_address_hears_it_at_once(
    cluster: Cluster, host: str
) -> None:
    one = cluster.fabric["nginx1"]
    began = time.monotonic()  # noqa: TID251 - far below the seconds that silence would take
    assert refusal(one, host, socket.SOCK_STREAM) == errno.ECONNREFUSED
    assert refusal(one, host, socket.SOCK_DGRAM) in {errno.EHOSTUNREACH, errno.EACCES}
    assert time.monotonic() < began + 3  # noqa: TID251 - as above
    drops = cluster.project["nginx1"].status()["drops"]
    assert drops["unknown_address"] >= 2


def test_the_resolver_and_the_authority_are_reached_by_the_daemon_alone(cluster: Cluster) -> None:
    one = cluster.fabric["nginx1"]
    assert resolve(one, f"nobody.{ZONE}") == []
    assert refusal(one, BRIDGE_IPV4, socket.SOCK_DGRAM) in {errno.EHOSTUNREACH, errno.EACCES}
    assert cluster.project["nginx1"].status()["certificate"]["remaining_seconds"] > 0


def test_what_lies_outside_the_ranges_is_left_alone(cluster: Cluster) -> None:
    one, node = cluster.fabric["nginx1"], cluster.fabric.node
    node.ip("addr add 192.0.2.1/32 dev lo\n")
    with node.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("192.0.2.1", PORT))
        server.settimeout(5)
        with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
            program.settimeout(5)
            program.sendto(CANARY, ("192.0.2.1", PORT))
            data, source = server.recvfrom(100)
            assert (data, source[0]) == (CANARY, one.ipv4)
            server.sendto(CANARY, source)
            assert program.recv(100) == CANARY


def test_a_zones_name_with_an_address_outside_is_refused_and_never_clear(cluster: Cluster) -> None:
    one, node = cluster.fabric["nginx1"], cluster.fabric.node
    node.ip("addr add 192.0.2.1/32 dev lo\n")
    cluster.serve_again(f"host-record=moved.{ZONE},192.0.2.1")
    with node.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("192.0.2.1", PORT))
        server.settimeout(5)
        with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
            program.sendto(b"control", ("192.0.2.1", PORT))
            assert server.recv(100) == b"control"
            assert resolve(one, f"moved.{ZONE}") == [ip_address("192.0.2.1").packed]
            program.sendto(CANARY, ("192.0.2.1", PORT))
            server.settimeout(0.5)
            with pytest.raises(TimeoutError):
                server.recv(100)
    assert sources(cluster, "nginx1")["192.0.2.1"] == "zone"


def test_a_forged_alias_leads_no_name_of_the_zone_out_of_it_in_clear(cluster: Cluster) -> None:
    one, node = cluster.fabric["nginx1"], cluster.fabric.node
    node.ip("addr add 192.0.2.7/32 dev lo\n")
    cluster.serve_again(f"cname=db.{ZONE},evil.example", "host-record=evil.example,192.0.2.7")
    with node.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("192.0.2.7", PORT))
        server.settimeout(0.5)
        with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
            program.sendto(b"control", ("192.0.2.7", PORT))
            assert server.recv(100) == b"control"
            assert resolve(one, f"db.{ZONE}") == [ip_address("192.0.2.7").packed]
            program.sendto(CANARY, ("192.0.2.7", PORT))
            with pytest.raises(TimeoutError):
                server.recv(100)


def test_queries_fail_and_nothing_is_clear_while_the_daemon_is_away(cluster: Cluster) -> None:
    one, two = cluster.fabric["nginx1"], cluster.fabric["nginx2"]
    assert resolve(one, name_of(two))
    taps = Taps.everywhere(cluster.fabric)
    cluster.project["nginx1"].kill_daemon()
    with pytest.raises(OSError):  # noqa: PT011 - refused or silent
        resolve(one, name_of(two))
    with pytest.raises(OSError):  # noqa: PT011 - refused or silent
        ask(one, two.ipv4)
    assert not leaks(taps.stop(), CANARY, b"\x06nginx2")


def explained(cluster: Cluster, *words: str) -> dict[str, dict[str, str]]:
    """What `tencrypt explain` says in nginx1, by address."""
    socket_path = cluster.project["nginx1"].admin_socket
    done = run([TENCRYPT, "explain", *words, "--socket", socket_path, "--json"])
    return {one["address"]: one for one in json.loads(done.stdout)["addresses"]}


def test_explain_says_what_becomes_of_packets_and_why(cluster: Cluster) -> None:
    one, two = cluster.fabric["nginx1"], cluster.fabric["nginx2"]
    told = explained(cluster, name_of(two), "80")
    assert set(told) == {two.ipv4, two.ipv6}
    assert told[two.ipv4]["outcome"] == "encrypted"
    assert name_of(two) in told[two.ipv4]["fact"]
    with udp_echo(two, two.ipv4, PORT):
        assert ask(one, two.ipv4) == CANARY
    told = explained(cluster, two.ipv4, "7001", "--protocol", "udp")
    assert told[two.ipv4]["source"] == "session"
    assert told[two.ipv4]["rule"] == "no rule is about it: allowed"
    for address, outcome in (
        (one.ipv4, "local"),
        ("10.77.0.99", "refused"),
        ("192.0.2.1", "bypassed"),
        (BRIDGE_IPV4, "bypassed"),
    ):
        assert explained(cluster, address)[address]["outcome"] == outcome, address
    text = run(
        [TENCRYPT, "explain", two.ipv4, "--socket", cluster.project["nginx1"].admin_socket]
    ).stdout
    assert text.startswith(f"{two.ipv4}  encrypted: named by the certificate of nginx2")
    assert explained(cluster, "nobody.example") == {}
