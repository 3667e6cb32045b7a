"""Who shares the bridge, or the pod, and wants to read, speak as a member, or have others speak in clear."""

import contextlib
import os
import socket
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.capture import SESSION_PORT, Taps
from support.cluster import ZONE, Cluster, name_of, resolve
from support.dns_server import DNS_PORT, dnsmasq_command
from support.forge import claim, hardware_address, ip_packet, udp_segment
from support.kernel_state import kernel_state, refused_count
from support.namespaces import BRIDGE_IPV4, Fabric, Pod, family_of
from support.processes import wait_for
from support.servers import bound, udp_echo
from support.tencrypt import DAEMON_UID, Proxy

CANARY = b"canary-of-attackers-6b90"
PORT = 7001
OUTSIDE = "192.0.2.9"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two pods of the project that know each other by DNS alone, and a spy on their bridge."""
    with Fabric("nginx1", "nginx2", "spy") as fabric:
        made = Cluster(fabric)
        made.project.start("nginx1", "nginx2")
        fabric.node.ip(f"addr add {OUTSIDE}/32 dev lo\n")
        yield made


def say(pod: Pod, address: str, text: bytes = CANARY) -> None:
    with contextlib.suppress(OSError), pod.socket(family_of(address), socket.SOCK_DGRAM) as program:
        program.settimeout(2)
        program.connect((address, PORT))
        program.send(text)
        program.recv(100)


def seen(cluster: Cluster, pod: Pod, *addresses: str) -> bool:
    """Say whether anybody reads what a pod says to addresses; what the spy says can be read."""
    taps = Taps.everywhere(cluster.fabric)
    say(cluster.fabric["spy"], cluster.fabric["nginx2"].ipv4, b"control")
    for address in addresses:
        say(pod, address)
    captures = taps.stop()
    assert captures["node:br0"].holding(b"control")
    return any(capture.holding(CANARY) for capture in captures.values())


# Lies about names.


def test_an_outside_name_with_an_inside_address_opens_no_way_in_clear(cluster: Cluster) -> None:
    one, two, spy = cluster.fabric.pods.values()
    lies = {"a.example.com": two.ipv4, "b.example.com": spy.ipv4, "c.example.com": "10.77.0.99"}
    cluster.serve_again(*(f"host-record={name},{address}" for name, address in lies.items()))
    for name, address in lies.items():
        assert resolve(one, name) == [ip_address(address).packed]
    assert not seen(cluster, one, *lies.values())


def test_a_false_name_for_the_spys_address_gives_it_nothing(cluster: Cluster) -> None:
    one, _, spy = cluster.fabric.pods.values()
    reverse = ip_address(spy.ipv4).reverse_pointer
    cluster.serve_again(f"host-record=db.{ZONE},{spy.ipv4}", f"ptr-record={reverse},db.{ZONE}")
    assert resolve(one, f"db.{ZONE}") == [ip_address(spy.ipv4).packed]
    with udp_echo(spy, spy.ipv4, PORT) as callers:
        assert not seen(cluster, one, spy.ipv4)
        assert callers <= {(BRIDGE_IPV4, 0)}


def test_what_dns_alone_cannot_prevent_a_name_that_seems_not_to_be_leads_a_program_outside(
    cluster: Cluster,
) -> None:
    """The limit: who forges answers lets a search list go on to a suffix outside, whose address is the forger's."""
    one = cluster.fabric["nginx1"]
    cluster.serve_again(f"host-record=db.example.com,{OUTSIDE}")
    assert resolve(one, f"db.{ZONE}") == []
    assert resolve(one, "db.example.com") == [ip_address(OUTSIDE).packed]
    assert seen(cluster, one, OUTSIDE)


def test_a_spy_in_the_resolvers_place_gets_queries_and_no_canary(cluster: Cluster) -> None:
    one, two, spy = cluster.fabric.pods.values()
    spy.ip(f"addr add {BRIDGE_IPV4}/32 dev lo\n")
    lies = [f"host-record={name_of(two)},{spy.ipv4}", f"host-record=x.{ZONE},{OUTSIDE}"]
    serving = spy.start(dnsmasq_command(BRIDGE_IPV4, DNS_PORT, lies, spy.directory))
    spy.wait_for_listener(serving, DNS_PORT)

    def believed() -> bool:
        claim(spy, BRIDGE_IPV4, one, one.ipv4)
        try:
            return resolve(one, name_of(two)) == [ip_address(spy.ipv4).packed]
        except OSError:
            return False

    wait_for("the lie to be believed", believed)
    assert resolve(one, f"x.{ZONE}") == [ip_address(OUTSIDE).packed]
    assert not seen(cluster, one, spy.ipv4, OUTSIDE, two.ipv4)


# Speaking as a member.


@pytest.mark.parametrize("port", [PORT, SESSION_PORT])
@pytest.mark.parametrize("version", [4, 6])
def test_plaintext_with_a_members_address_reaches_no_program(
    cluster: Cluster, version: int, port: int
) -> None:
    one, two, spy = cluster.fabric.pods.values()
    here, there = (two.ipv4, one.ipv4) if version == 4 else (two.ipv6, one.ipv6)
    with bound(one, there, socket.SOCK_DGRAM, PORT) as program:
        before = refused_count(one, "refused_arriving")
        forge(spy, one, here, there, (port, PORT))
        forge(spy, one, here, there, (SESSION_PORT, port))
        wait_for("refusals", lambda: refused_count(one, "refused_arriving") > before)
        say(two, there, b"sealed")
        assert program.recvfrom(100)[0] == b"sealed", "the first that arrives"


def forge(spy: Pod, victim: Pod, here: str, there: str, ports: tuple[int, int]) -> None:
    """Send a datagram with somebody else's address, and a TCP segment that opens a connection."""
    ends = ip_address(here).packed, ip_address(there).packed
    opening = b"".join(number.to_bytes(2, "big") for number in ports) + bytes(8)
    opening += b"\x50\x02\x20\x00" + bytes(4)
    kind = 0x0800 if len(ends[0]) == 4 else 0x86DD
    link = (
        hardware_address(victim, "eth0") + hardware_address(spy, "eth0") + kind.to_bytes(2, "big")
    )
    with spy.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(link + ip_packet(*ends, socket.IPPROTO_UDP, udp_segment(*ends, ports, CANARY)))
        raw.send(link + ip_packet(*ends, socket.IPPROTO_TCP, opening))


def test_a_spy_with_a_members_address_reads_nothing_and_is_heard_by_nobody(
    cluster: Cluster,
) -> None:
    one, two, spy = cluster.fabric.pods.values()
    say(one, two.ipv4, b"first")
    spy.ip(f"addr add {two.ipv4}/32 dev lo\n")
    taps = Taps((spy, "eth0"))
    wait_for("the lie to be believed", lambda: leads_to_spy(one, two.ipv4, spy))
    with udp_echo(spy, two.ipv4, PORT) as callers:
        say(one, two.ipv4)
        (capture,) = taps.stop().values()
        assert capture.datagrams(SESSION_PORT), "it does get what is meant for the other"
        assert not capture.holding(CANARY)
        assert not callers


def leads_to_spy(victim: Pod, address: str, spy: Pod) -> bool:
    claim(spy, address, victim, victim.ipv4)
    shown = victim.run(["ip", "neigh", "show", address]).stdout
    return hardware_address(spy, "eth0").hex(":") in shown


# Programs of the pod itself.


def test_a_program_gets_nothing_past_by_marks_devices_or_the_session_port(cluster: Cluster) -> None:
    one, two = cluster.fabric["nginx1"], cluster.fabric["nginx2"]
    assert resolve(one, name_of(two))
    taps = Taps.everywhere(cluster.fabric)
    for mark in (0, 0x7D000000, 0x7E000000, 0x7F000000):
        for device in (b"", b"eth0"):
            speak(one, two.ipv4, mark, device)
    project = cluster.project["nginx1"]
    project.kill_daemon()
    for uid in (0, DAEMON_UID + 1):
        opened = partial(datagrams_of, uid)
        with one.call(opened) as program, contextlib.suppress(OSError):
            program.bind(("", SESSION_PORT))
            program.sendto(CANARY, (two.ipv4, PORT))
    captures = taps.stop()
    assert not any(capture.holding(CANARY) for capture in captures.values())


def speak(pod: Pod, address: str, mark: int, device: bytes) -> None:
    with pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as program, contextlib.suppress(OSError):
        program.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        program.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        program.sendto(CANARY, (address, PORT))


def datagrams_of(uid: int) -> socket.socket:
    os.seteuid(uid)
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    finally:
        os.seteuid(0)


def test_a_program_that_runs_as_the_daemons_user_is_refused_at_start(cluster: Cluster) -> None:
    project, spy = cluster.project, cluster.fabric["spy"]
    as_daemon = [f"--reuid={DAEMON_UID}", f"--regid={DAEMON_UID}", "--clear-groups"]
    program = spy.start(["setpriv", *as_daemon, "sleep", "60"])
    wait_for("its user", lambda: Path(f"/proc/{program.pid}").stat().st_uid == DAEMON_UID)
    before = kernel_state(spy)
    proxy = Proxy(spy, project.ca, (), settings=project.settings)
    process = proxy.start()
    assert process.wait() == 2
    assert process.stderr == (
        f"tencrypt: daemon_uid = {DAEMON_UID}: sleep (PID {program.pid}) runs as this user here: "
        "one that no other program of the pod has\n"
    )
    assert kernel_state(spy) == before
    program.stop()
    proxy.start_and_wait()
