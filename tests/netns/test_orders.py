"""Orders of a daemon, good and bad, against the kernel: see `proxy.netagent.orders`."""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from support.netagent import (
    OWN,
    PEER,
    PLAIN,
    ROOT,
    SETTINGS,
    Pair,
    inside,
    ip,
    run,
    state,
    udp,
)

from proxy.netagent.drivers import apply, nft
from proxy.netagent.drivers.carry import Orders
from proxy.netagent.plan import BROKEN, NetSettings, plan, standing

# Of the pair, 10.9 is inside the ranges, and eth1's 10.8 outside.
RANGES = (ip_network("10.9.0.0/16"), ip_network("fd00:9::/48"))
STRICT = replace(SETTINGS, members=(), ranges=RANGES)
PERMISSIVE = replace(STRICT, strict=False)
BYPASSING = replace(STRICT, dns_bypass=True)
OUTSIDE, VIRTUAL = "10.8.0.2", "10.9.96.1"

TAKEN_OVER = """
import ast, os, sys
from ipaddress import *
from proxy.netagent import agent
from proxy.netagent.plan import NetSettings
SETTINGS = {settings!r}
def start_daemon(channel, tun, kept):
    channel.say(b"ready")
    os.set_blocking(channel._lines, True)
    for line in ast.literal_eval(sys.argv[2]):
        for _ in range(200 if line.endswith(b"flood") else 1):
            os.write(channel._lines, line + b"\\n")
    while True:
        answer, _ = channel.hear()
        if answer.split()[1:2] == [b"4242"]:
            print("heard", flush=True)
        if answer in (b"stop", b""):
            return 0
sys.exit(agent.run(SETTINGS, start_daemon, netns=sys.argv[1]))
"""


def carried(orders: Orders, *lines: str) -> None:
    for number, line in enumerate(lines, 1):
        [answer] = orders.carry([f"{number} {line}".encode()])
        assert answer.startswith(b"done %d" % number), answer


def up(pair: Pair, settings: NetSettings) -> Orders:
    with inside(pair.a):
        apply.set_up(plan(settings))
    return Orders(settings, ())


def arrives(pair: Pair, version: int, to: str, *, device: str = "") -> bool:
    """Whether plaintext of `a` reaches `b`, asked by one more packet that does in any case."""
    with udp(pair.a, version, 0) as plain, udp(pair.b, version, PLAIN, device=device) as peer:
        try:
            plain.sendto(b"plain", (to, PLAIN))
        except OSError:
            return False
        peer.settimeout(0.3)
        try:
            return peer.recv(100) == b"plain"
        except TimeoutError:
            return False


def test_a_member_outside_the_ranges_is_refused_in_clear_and_by_order_no_longer(pair: Pair) -> None:
    orders = up(pair, STRICT)
    before = state(pair.a)
    assert arrives(pair, 4, OUTSIDE)
    with inside(pair.a):
        carried(orders, f"+member {OUTSIDE}", f"+member {OUTSIDE}")
        assert f"{OUTSIDE} dev tenc0" in ip("route", "show", "table", "126")
    assert not arrives(pair, 4, OUTSIDE)
    with inside(pair.a):
        ip("route", "flush", "table", "126")
        assert not arrives(pair, 4, OUTSIDE)  # the filter by itself
        apply.set_up(plan(STRICT, kept=nft.members()))
    assert not arrives(pair, 4, OUTSIDE)  # a restart forgets nobody
    with inside(pair.a):
        carried(Orders(STRICT, nft.members()), f"-member {OUTSIDE}")
    assert arrives(pair, 4, OUTSIDE)
    assert state(pair.a) == before


def test_what_is_ordered_while_net_up_works_is_neither_lost_nor_clear(pair: Pair) -> None:
    orders = up(pair, STRICT)
    with inside(pair.a):
        planned = plan(STRICT, kept=nft.members())
        carried(orders, f"+member {OUTSIDE}")  # after `net up` has looked who is a member
        apply.refit(planned)
        assert nft.members() == [ip_address(OUTSIDE)]
        assert f"{OUTSIDE} dev tenc0" in ip("route", "show", "table", "126")
    assert not arrives(pair, 4, OUTSIDE)
    with inside(pair.a):
        carried(orders, f"-member {OUTSIDE}")
        standing = state(pair.a)
        apply.refit(plan(PERMISSIVE))
        assert state(pair.a) != standing
        apply.refit(plan(STRICT))
    assert state(pair.a) == standing
    assert arrives(pair, 4, OUTSIDE)


@pytest.mark.parametrize(
    ("settings", "order", "route"),
    [
        (BYPASSING, f"+bypass 60 {PEER[4]}", f"throw {PEER[4]}"),
        (PERMISSIVE, f"+service {VIRTUAL}", f"{VIRTUAL} dev tenc0"),
    ],
)
def test_net_up_takes_away_no_route_of_what_was_ordered(
    pair: Pair, settings: NetSettings, order: str, route: str
) -> None:
    orders = up(pair, settings)
    with inside(pair.a):
        carried(orders, order)
        before = ip("route", "show", "table", "126")
        assert route in before
        apply.refit(plan(settings))
        assert ip("route", "show", "table", "126") == before


def test_net_up_and_a_broken_glass_leave_clear_open_as_long_as_each_should(pair: Pair) -> None:
    orders = up(pair, PERMISSIVE)
    broken = plan(standing(PERMISSIVE, [BROKEN]), [BROKEN])
    with inside(pair.a):
        carried(orders, "fresh 3600")
        apply.refit(plan(PERMISSIVE))
    assert arrives(pair, 4, PEER[4])  # `net up` takes back no leave
    with inside(pair.a):
        apply.refit(broken)
        assert "timeout 1h" not in fresh()
        [answer] = orders.carry([b"1 fresh 1"])
        assert answer == b"no 1 the glass is broken: clear has no limit"
        assert "timeout 1s" not in fresh()
    assert arrives(pair, 4, PEER[4])
    with inside(pair.a):
        apply.refit(plan(PERMISSIVE))
    assert not arrives(pair, 4, PEER[4])
    with inside(pair.a):
        carried(orders, "fresh 3600")
    assert arrives(pair, 4, PEER[4])


def fresh() -> str:
    return run("nft", "list", "set", "inet", "tencrypt", "fresh4")


@pytest.mark.parametrize("version", [4, 6])
def test_a_bypass_ends_and_the_connection_begun_on_it_lives(pair: Pair, version: int) -> None:
    peer = PEER[version]
    orders = up(pair, BYPASSING)
    assert not arrives(pair, version, peer)
    with inside(pair.a):
        carried(orders, f"+bypass 60 {peer}")
    assert arrives(pair, version, peer)
    with inside(pair.b):
        server = socket.create_server(
            ("", PLAIN), family=socket.AF_INET6 if version == 6 else socket.AF_INET
        )
    with server:
        server.settimeout(5)
        with inside(pair.a):
            client = socket.create_connection((peer, PLAIN), 5)
        accepted, _ = server.accept()
        with client, accepted:
            with inside(pair.a):
                carried(orders, f"-bypass {peer}")
            assert not arrives(pair, version, peer)
            for one, other in ((client, accepted), (accepted, client)):
                one.settimeout(5)
                one.sendall(b"still here")
                other.settimeout(5)
                assert other.recv(100) == b"still here"
            # A member has no bypass, and no connection that began on one.
            with inside(pair.a):
                carried(orders, f"+bypass 60 {peer}", f"+member {peer}")
            assert not arrives(pair, version, peer)
            client.sendall(b"no more")
            accepted.settimeout(0.5)
            with pytest.raises(TimeoutError):
                accepted.recv(100)


def test_the_kernel_ends_a_bypass_by_itself(pair: Pair) -> None:
    orders = up(pair, BYPASSING)
    with inside(pair.a):
        carried(orders, f"+bypass 1 {PEER[4]}")
        assert PEER[4] in run("nft", "list", "set", "inet", "tencrypt", "bypass4")
    while arrives(pair, 4, PEER[4]):
        pass  # no longer than a second


@pytest.mark.parametrize("version", [4, 6])
def test_permissive_is_clear_to_strangers_while_a_roster_is_fresh_and_counted(
    pair: Pair, version: int
) -> None:
    peer = PEER[version]
    orders = up(pair, PERMISSIVE)
    assert not arrives(pair, version, peer)
    with inside(pair.a):
        carried(orders, "fresh 60")
    assert arrives(pair, version, peer)
    with udp(pair.a, version, PLAIN) as plain, udp(pair.b, version, 0) as other:
        other.sendto(b"in clear", (OWN[version], PLAIN))
        assert plain.recv(100) == b"in clear"
    with inside(pair.a):
        told = json.loads(orders.carry([b"3 audit"])[0].removeprefix(b"done 3 "))
        carried(orders, f"+member {peer}")
    assert ["spoken", peer, "udp", PLAIN, 1] in [flow[:5] for flow in told]
    assert ["heard", peer, "udp", PLAIN, 1] in [flow[:5] for flow in told]
    assert all(0 <= flow[5] <= 60 for flow in told)
    assert not arrives(pair, version, peer)
    with inside(pair.a):
        carried(orders, f"-member {peer}", "fresh 1")
    while arrives(pair, version, peer):
        pass  # no longer than a second


BAD: Sequence[bytes] = (
    b"1 +member 0.0.0.0/0",
    b"2 +member 10.9.0.1",
    b"3 +bypass 3600 10.9.0.2",
    b"4 fresh 3600",
    b"5 -member 10.9.0.2",
    b"6 +member 10.9.0.2 }; flush ruleset",
    b"7 route del default",
    b"8 -bypass 10.9.0.2",
    b"x" * 100_000,
    b"\0\xff" * 999,
    b"9 audit flood",
    b"10 -member 203.0.113.1 flood",
    b"4242 +member 192.0.2.1",
)


def test_a_daemon_that_was_taken_over_opens_nothing_and_is_still_heard(pair: Pair) -> None:
    with inside(pair.a):
        ip("route", "add", "10.7.0.0/24", "dev", "eth0", "table", "77")
        run("nft", "add", "table", "inet", "other")
    before = state(pair.a)
    command = [sys.executable, "-c", TAKEN_OVER.format(settings=STRICT), f"/run/netns/{pair.a}"]
    with subprocess.Popen(
        ["env", f"PYTHONPATH={ROOT}", *command, repr(list(BAD))],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "heard\n"
        standing = state(pair.a)
        with inside(pair.a):
            assert nft.members() == [ip_address("192.0.2.1")]
        assert not arrives(pair, 4, PEER[4])
        process.terminate()
        assert process.wait(10) == 0
    assert not arrives(pair, 4, PEER[4])  # a stop lifts nothing
    with inside(pair.a):
        apply.set_up(plan(STRICT, kept=[ip_address("192.0.2.1")]))
    assert state(pair.a) == standing
    with inside(pair.a):
        apply.tear_down()
    assert state(pair.a) == before
