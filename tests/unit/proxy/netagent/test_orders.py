"""What a daemon may order, whatever has become of it."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from proxy.flow.clearance import parse_clearance
from proxy.netagent.filter import MOST_ELEMENTS
from proxy.netagent.orders import Changes, Order, OrderError, Sets, parse_order
from proxy.netagent.plan import NetSettings, Route

STRICT = NetSettings(
    interface="eth0",
    interface_mtu=1500,
    addresses=(ip_address("10.0.0.1"), ip_address("fd00::1")),
    members=(ip_network("10.0.1.0/24"),),
    session_port=15443,
    uid=15443,
    gid=15443,
    ranges=(ip_network("10.0.0.0/16"), ip_network("fd00::/48")),
    clear_out=(parse_clearance("10.0.9.9 any"),),
    resolvers=(ip_address("10.0.0.53"),),
    dns_port=15053,
    ca_address=ip_address("10.0.0.77"),
    ca_port=8443,
)
BYPASSING = replace(STRICT, dns_bypass=True)
PERMISSIVE = replace(STRICT, strict=False)


def carried(settings: NetSettings, *lines: str) -> Changes:
    sets, changes = Sets(settings), Changes()
    for number, line in enumerate(lines, 1):
        sets.carry(parse_order(f"{number} {line}".encode()), changes)
    return changes


def test_an_order_is_a_number_a_verb_and_what_it_is_about() -> None:
    assert parse_order(b"7 +member 10.0.0.2 fd00::2") == Order(
        7, "+member", (ip_address("10.0.0.2"), ip_address("fd00::2"))
    )
    assert parse_order(b"8 +bypass 30 10.0.0.3").seconds == 30
    assert parse_order(b"9 fresh 3600") == Order(9, "fresh", (), 3600)
    assert parse_order(b"10 audit") == Order(10, "audit")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"7",
        b"+member 10.0.0.2",
        b"7 +member",
        b"7 +member ",
        b"7  +member 10.0.0.2",
        b"7 +member 10.0.0.2/24",
        b"7 +member 0.0.0.0/0",
        b"7 +member default",
        b"7 +member nginx2",
        b"7 +member 10.0.0.2 10.0.0.2",
        b"7 +member 10.0.0.2 table 254",
        b"7 +bypass 10.0.0.2",
        b"7 +bypass 0 10.0.0.2",
        b"7 +bypass 3601 10.0.0.2",
        b"7 fresh",
        b"7 fresh 3601",
        b"7 fresh 60 10.0.0.0/8",
        b"7 audit 1",
        b"7 flush ruleset",
        b"0 audit",
        b"99999999999999999999 audit",
        b"7 +member \xff",
        "7 +member \u0661\u0660.0.0.2".encode(),
        "\u0667 audit".encode(),
        b"7 +member fd00::2%};flush/ruleset" + b" 10.0.0.2" * 60,
    ],
)
def test_whatever_else_is_no_order(line: bytes) -> None:
    with pytest.raises(OrderError):
        parse_order(line)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",  # our own
        "fd00::1",
        "10.0.0.53",  # the resolver
        "10.0.0.77",  # the CA
        "10.0.9.9",  # listed in clear
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 - nothing listens
        "169.254.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.2",
        "fe80::1",
        "ff02::1",
        "fd00::2%eth0",
    ],
)
def test_no_address_can_be_named_that_is_no_other_pods(address: str) -> None:
    for line in (f"+member {address}", f"+bypass 1 {address}"):
        with pytest.raises(OrderError):
            carried(BYPASSING, line)


def test_a_member_outside_is_led_to_the_tunnel_and_refused_in_clear() -> None:
    changes = carried(STRICT, "+member 192.0.2.9 2001:db8::9")
    assert changes.nft == [
        "add element inet tencrypt members4 { 192.0.2.9 }",
        "add element inet tencrypt members6 { 2001:db8::9 }",
    ]
    v4, v6 = ip_network("192.0.2.9/32"), ip_network("2001:db8::9/128")
    assert changes.add == [
        Route(v4, None),
        Route(v4, ip_address("10.0.0.1")),
        Route(v6, None),
        Route(v6, ip_address("fd00::1")),
    ]
    assert not changes.drop


def test_only_what_was_added_can_be_taken_away() -> None:
    changes = carried(STRICT, "+member 192.0.2.9", "-member 192.0.2.9")
    assert changes.nft[-1] == "delete element inet tencrypt members4 { 192.0.2.9 }"
    assert changes.drop == changes.add
    for address in ("192.0.2.9", "10.0.1.2", "10.0.0.2"):
        with pytest.raises(OrderError, match="not added by order"):
            carried(STRICT, f"-member {address}")


def test_strict_mode_gives_nothing_up() -> None:
    for line in ("fresh 60", "+bypass 60 10.0.0.2", "-bypass 10.0.0.2"):
        with pytest.raises(OrderError):
            carried(STRICT, line)


def test_a_bypass_is_for_strangers_in_the_ranges_and_for_a_time() -> None:
    changes = carried(BYPASSING, "+bypass 30 10.0.0.2")
    assert changes.nft[-1] == "add element inet tencrypt bypass4 { 10.0.0.2 timeout 30s }"
    assert changes.add == [Route(ip_network("10.0.0.2/32"), None, throw=True)]
    for address in ("10.0.1.2", "192.0.2.9", "2001:db8::9"):
        with pytest.raises(OrderError, match="a member, or outside"):
            carried(BYPASSING, f"+bypass 30 {address}")
    with pytest.raises(OrderError, match="a member, or outside"):
        carried(BYPASSING, "+member 10.0.0.2", "+bypass 30 10.0.0.2")


def test_who_becomes_a_member_loses_the_bypass_in_the_same_transaction() -> None:
    changes = carried(BYPASSING, "+bypass 30 10.0.0.2", "+member 10.0.0.2")
    delete = changes.nft.index("delete element inet tencrypt bypass4 { 10.0.0.2 }", 2)
    assert changes.nft.index("add element inet tencrypt members4 { 10.0.0.2 }") < delete
    assert Route(ip_network("10.0.0.2/32"), None, throw=True) in changes.drop


def test_fresh_holds_the_ranges_for_a_time_and_only_where_encryption_is_permissive() -> None:
    assert carried(PERMISSIVE, "fresh 60").nft == [
        "flush set inet tencrypt fresh4",
        "add element inet tencrypt fresh4 { 10.0.0.0/16 timeout 60s }",
        "flush set inet tencrypt fresh6",
        "add element inet tencrypt fresh6 { fd00::/48 timeout 60s }",
    ]
    with pytest.raises(OrderError):
        carried(replace(PERMISSIVE, broken_glass=True), "fresh 60")


def test_a_flood_of_members_ends_at_the_bound() -> None:
    sets, changes = Sets(STRICT), Changes()
    for number in range(MOST_ELEMENTS):
        address = ip_address("203.0.0.0") + number
        sets.carry(Order(1, "+member", (address,)), changes)
    with pytest.raises(OrderError, match="more than"):
        sets.carry(Order(1, "+member", (ip_address("192.0.2.1"),)), changes)
