"""What the net agent sets up, on a real kernel: see `support.netagent` for the picture."""

import errno
import json
import socket
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.netagent import (
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
    run,
    state,
    table_126,
    udp,
    user,
)
from support.processes import wait_for

from proxy.drivers.tun import VNET_HEADER_SIZE, Tun
from proxy.netagent.drivers import apply
from proxy.netagent.drivers.inspect import find_interface
from proxy.netagent.errors import NetAgentError
from proxy.netagent.plan import plan


def test_set_up_shows_in_the_usual_tools(pair: Pair) -> None:
    with inside(pair.a):
        assert apply.set_up(plan(SETTINGS)) is False
        rule = f"99:\tnot from all uidrange {UID}-{UID} lookup 126 proto 126"
        assert rule in ip("rule").splitlines()
        assert rule in ip("-6", "rule").splitlines()
        routes = [line.split(" linkdown")[0].strip() for line in table_126()]
        assert routes == [
            "10.9.0.0/24 dev tenc0 proto 126 src 10.9.0.1 metric 10",
            "unreachable 10.9.0.0/24 proto 126 metric 1000",
            "fd00:9::/64 dev tenc0 proto 126 src fd00:9::1 metric 10",
            "unreachable fd00:9::/64 dev lo proto 126 metric 1000 pref medium",
        ]
        [tunnel] = json.loads(ip("-d", "-j", "link", "show", "tenc0"))
        assert (tunnel["mtu"], "UP" in tunnel["flags"]) == (1408, True)
        assert tunnel["linkinfo"]["info_data"]["user"] == UID
        assert tunnel["linkinfo"]["info_data"]["persist"] is True
        assert "inet" not in ip("addr", "show", "tenc0")
    assert state(pair.a)["rp_filter"] == {
        **dict.fromkeys(("all", "default", "lo", "eth1"), "0\n"),
        **dict.fromkeys(("eth0", "tenc0"), "2\n"),
    }


def test_tear_down_leaves_everything_as_it_was_and_foreign_things_untouched(pair: Pair) -> None:
    with inside(pair.a):
        ip("rule", "add", "pref", "99", "fwmark", "7", "lookup", "77")
        ip("-6", "rule", "add", "pref", "99", "fwmark", "7", "lookup", "77")
        ip("route", "add", "10.9.0.0/24", "dev", "eth0", "table", "77", "metric", "10")
        run("nft", "add", "table", "inet", "other")
        run("nft", "add", "chain", "inet", "other", "keep")
    before = state(pair.a)
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
        assert state(pair.a) != before
        apply.tear_down()
        assert state(pair.a) == before
        apply.tear_down()
    assert state(pair.a) == before


def test_a_later_set_up_converges_whatever_an_earlier_one_left(pair: Pair) -> None:
    other = replace(
        SETTINGS,
        addresses=SETTINGS.addresses[:1],
        members=(ip_network("10.9.0.2/32"), ip_network("10.77.0.0/16")),
        session_port=4433,
        uid=15444,
    )
    before = state(pair.a)
    with inside(pair.a):
        apply.set_up(plan(other))
        wanted = state(pair.a)
        assert apply.set_up(plan(other)) is True
        assert state(pair.a) == wanted
        apply.tear_down()
        apply.set_up(plan(SETTINGS))
        assert apply.set_up(plan(other)) is True
        assert state(pair.a) == wanted
        apply.set_up(plan(replace(other, interface="eth1")))
        apply.tear_down()
    assert state(pair.a) == before


@pytest.mark.parametrize("version", [4, 6])
def test_plaintext_from_a_member_is_refused_and_session_datagrams_arrive(
    pair: Pair, version: int
) -> None:
    peer = udp(pair.b, version, 0)
    with (
        udp(pair.a, version, PLAIN) as plain,
        udp(pair.a, version, PORT, uid=UID) as session,
        peer,
    ):
        peer.sendto(b"control", (OWN[version], PLAIN))
        assert plain.recv(100) == b"control"
        peer.sendto(bytes(4000), (OWN[version], PORT))
        assert session.recv(5000) == bytes(4000)

        with inside(pair.a):
            # Connection tracking reassembles fragments, and early.
            run("nft", "add", "table", "inet", "mesh")
            hook = "{ type filter hook prerouting priority 0; }"
            run("nft", "add", "chain", "inet", "mesh", "first", hook)
            run("nft", "add", "rule", "inet", "mesh", "first", "ct", "state", "new", "counter")
            apply.set_up(plan(SETTINGS))
        with inside(pair.b):
            ip("neigh", "flush", "dev", "eth0")
        peer.sendto(b"plain", (OWN[version], PLAIN))
        peer.sendto(bytes(4000), (OWN[version], PORT))
        peer.sendto(b"sealed", (OWN[version], PORT))
        assert session.recv(5000) == b"sealed"
        assert holds_nothing(plain)
        # One whole datagram and three fragments.
        assert refused_count(pair.a, "refused_arriving") == 4


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_daemons_session_datagrams_leave_to_a_member(pair: Pair, version: int) -> None:
    to = (PEER[version], PORT)
    with udp(pair.b, version, PORT) as peer:
        with udp(pair.a, version, PORT) as another:
            another.sendto(b"control", to)
            assert peer.recv(100) == b"control"

        with inside(pair.a):
            apply.set_up(plan(SETTINGS))
            ip("neigh", "flush", "dev", "eth0")
        with udp(pair.a, version, PORT) as another:
            another.sendto(b"into the tunnel", to)
        # Refused at once: by the unreachable route for IPv4, by the filter for IPv6.
        with udp(pair.a, version, PORT, device="eth0") as another, pytest.raises(OSError):  # noqa: PT011 - either
            another.sendto(b"bound past the tunnel", to)
        with udp(pair.a, version, PLAIN, uid=UID) as another, pytest.raises(PermissionError):
            another.sendto(b"the daemon's user, another port", to)
        with inside(pair.a):
            ip(f"-{version}", "rule", "del", "pref", "99")
        with udp(pair.a, version, PORT) as another, pytest.raises(PermissionError):
            another.sendto(b"with the filter alone", to)
        with udp(pair.a, version, PORT, uid=UID) as daemon:
            daemon.sendto(b"sealed", to)
        assert peer.recv(100) == b"sealed"
        assert refused_count(pair.a, "refused_leaving") >= 2


def test_set_up_waits_for_duplicate_address_detection(pair: Pair) -> None:
    fresh = ip_address("fd00:9::77")
    with inside(pair.a):
        ip("addr", "add", f"{fresh}/64", "dev", "eth0")
        assert "tentative" in ip("addr", "show", "to", str(fresh))
        apply.set_up(plan(replace(SETTINGS, addresses=(fresh,))))
        assert f"src {fresh}" in " ".join(table_126())


@pytest.mark.parametrize("version", [4, 6])
def test_without_the_device_members_are_unreachable(pair: Pair, version: int) -> None:
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
        ip("link", "del", "tenc0")
        run("nft", "delete", "table", "inet", "tencrypt")
    with udp(pair.a, version, 0) as program, pytest.raises(OSError) as raised:  # noqa: PT011 - judged by its number
        program.sendto(b"x", (PEER[version], PLAIN))
    assert raised.value.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH}


def test_tcp_and_ping_get_no_answer_in_clear(pair: Pair) -> None:
    def answers() -> bool:
        with inside(pair.b):
            return _answers_ping() and _answers_tcp()

    with udp(pair.a, 4, 0), inside(pair.a), socket.create_server(("", PLAIN)):
        assert answers()
        apply.set_up(plan(SETTINGS))
        with inside(pair.b):
            assert not _answers_ping()
            assert not _answers_tcp()
        apply.tear_down()
        assert answers()


def _answers_ping() -> bool:
    command = ("ping", "-n", "-c", "1", "-W", "1", OWN[4])
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _answers_tcp() -> bool:
    try:
        with socket.create_connection((OWN[4], PLAIN), timeout=1):
            return True
    except TimeoutError:
        return False


def test_a_member_is_refused_on_every_other_interface(pair: Pair) -> None:
    with (
        udp(pair.a, 4, PLAIN) as plain,
        udp(pair.a, 4, PORT, uid=UID) as session,
        inside(pair.b),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind((PEER[4], 0))
        for port, server in ((PLAIN, plain), (PORT, session)):
            peer.sendto(b"control", ("10.8.0.1", port))
            assert server.recv(100) == b"control"
        with inside(pair.a):
            apply.set_up(plan(SETTINGS))
        with udp(pair.b, 4, 0) as stranger:
            for port, server in ((PLAIN, plain), (PORT, session)):
                peer.sendto(b"a member", ("10.8.0.1", port))
                stranger.sendto(b"no member", ("10.8.0.1", port))
                assert server.recv(100) == b"no member"


def test_a_pod_reaches_itself_although_its_address_is_a_member(pair: Pair) -> None:
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
    for version in (4, 6):
        with udp(pair.a, version, PLAIN) as server, udp(pair.a, version, 0) as client:
            client.sendto(b"hello", (OWN[version], PLAIN))
            assert server.recv(100) == b"hello"


@pytest.mark.parametrize("version", [4, 6])
def test_what_programs_send_is_read_whole_from_the_tunnel_and_answers_return(
    pair: Pair, version: int
) -> None:
    buffer = bytearray(2048)
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
        with user(0):
            tun = Tun.open()
        # Until its queue is active the kernel drops what is sent to a device just attached.
        wait_for("tenc0's queue", lambda: "noop" not in ip("link", "show", "tenc0"))
    try:
        assert tun.read_into(memoryview(buffer)) == 0
        with udp(pair.a, version, 0) as program:
            program.sendto(b"question", (PEER[version], PLAIN))
            size = tun.read_into(memoryview(buffer))
            packet = bytearray(buffer[VNET_HEADER_SIZE:size])
            assert packet.endswith(b"question")
            assert packet[0] >> 4 == version
            start, length = (12, 4) if version == 4 else (8, 16)
            source = packet[start : start + length]
            assert source == ip_address(OWN[version]).packed
            # Swapping addresses and ports keeps every checksum, once the program's is finished.
            destination = packet[start + length : start + 2 * length]
            packet[start : start + 2 * length] = destination + source
            udp_at = 20 if version == 4 else 40
            ports = packet[udp_at : udp_at + 4]
            packet[udp_at : udp_at + 4] = ports[2:] + ports[:2]
            assert tun.write(memoryview(bytes(VNET_HEADER_SIZE) + packet))
            assert program.recvfrom(100)[:1] == (b"question",)
            assert not tun.write(memoryview(bytes(VNET_HEADER_SIZE) + b"\xff no packet"))
        with inside(pair.a):
            ip("link", "set", "tenc0", "down")
        assert not tun.write(memoryview(bytes(VNET_HEADER_SIZE) + packet))
    finally:
        tun.close()
        tun.close()


def test_a_foreign_tenc0_is_refused_and_nothing_is_touched(pair: Pair) -> None:
    with inside(pair.a):
        ip("link", "add", "tenc0", "type", "bridge")
        before = state(pair.a)
        with pytest.raises(NetAgentError, match="an interface tenc0 exists that is not"):
            apply.set_up(plan(SETTINGS))
        apply.tear_down()
    assert state(pair.a) == before


def test_a_foreign_routing_table_is_refused_and_nothing_is_touched(pair: Pair) -> None:
    with inside(pair.a):
        ip("route", "add", "10.50.0.0/24", "dev", "eth0", "table", "126")
        before = state(pair.a)
        with pytest.raises(NetAgentError, match="table 126 holds routes that are not"):
            apply.set_up(plan(SETTINGS))
        apply.tear_down()
    assert state(pair.a) == before


def test_a_set_up_that_fails_half_way_is_undone(pair: Pair) -> None:
    with inside(pair.a):
        # Detection then takes a minute; filter, rules and tenc0 stand before its end is awaited.
        Path("/proc/sys/net/ipv6/conf/eth0/dad_transmits").write_text("60", encoding="ascii")
        ip("addr", "add", "fd00:9::5/64", "dev", "eth0")
        before = state(pair.a)
        late = replace(SETTINGS, addresses=(ip_address("10.9.0.1"), ip_address("fd00:9::5")))
        with pytest.raises(NetAgentError, match="fd00:9::5 stays tentative"):
            apply.set_up(plan(late))
    assert state(pair.a) == before


def test_a_tenc0_in_use_is_refused_and_nothing_is_touched(pair: Pair) -> None:
    with inside(pair.a):
        ip("tuntap", "add", "dev", "tenc0", "mode", "tun", "user", str(UID))
        before = state(pair.a)
        tun = Tun.open()
        with pytest.raises(NetAgentError, match="tenc0 is in use"):
            apply.set_up(plan(SETTINGS))
        tun.close()
    assert state(pair.a) == before


def test_a_set_up_that_fails_keeps_the_interlock_of_an_earlierrun(pair: Pair) -> None:
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
        tun = Tun.open()
        before = state(pair.a)
        with pytest.raises(NetAgentError, match="tenc0 is in use"):
            apply.set_up(plan(SETTINGS))
        assert state(pair.a) == before
        tun.close()


def test_the_interface_is_found_by_name_address_or_default_route(pair: Pair) -> None:
    with inside(pair.a):
        assert find_interface((), "eth0").addresses == SETTINGS.addresses
        assert find_interface(SETTINGS.addresses, None).name == "eth0"
        assert find_interface((ip_address("10.8.0.1"),), None).name == "eth1"
        with pytest.raises(NetAgentError, match=r"Name it: there are eth0 \(10\.9\.0\.1, fd00:"):
            find_interface((), None)
        with pytest.raises(NetAgentError, match=r"no interface holds 10\.1\.1\.1: there are"):
            find_interface((ip_address("10.1.1.1"),), None)
        with pytest.raises(NetAgentError, match=r"interface eth1 does not hold 10\.9\.0\.1"):
            find_interface((ip_address("10.9.0.1"),), "eth1")
        ip("route", "add", "default", "via", "10.8.0.2")
        assert find_interface((), None).name == "eth1"
        ip("route", "del", "default")
        ip("link", "set", "eth1", "down")
        apply.set_up(plan(SETTINGS))
        assert find_interface((), None).name == "eth0"
