from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.netagent import SETTINGS as BOTH

from proxy.netagent.plan import NetSettings, PlanError, Route, plan

ONLY_V4 = replace(BOTH, addresses=BOTH.addresses[:1], members=BOTH.members[:1])


def test_one_inner_packet_fits_one_datagram_of_the_outer_family() -> None:
    assert plan(ONLY_V4).tunnel_mtu == 1500 - 20 - 8 - 24 - 4 - 16
    assert plan(BOTH).tunnel_mtu == 1500 - 40 - 8 - 24 - 4 - 16


def test_outer_ipv6_costs_nothing_where_no_member_is_reached_by_it() -> None:
    assert plan(replace(BOTH, members=BOTH.members[:1])).tunnel_mtu == 1428
    assert plan(replace(BOTH, addresses=BOTH.addresses[:1])).tunnel_mtu == 1428


def test_ipv6_is_refused_where_the_tunnel_would_fall_below_its_least_mtu() -> None:
    assert plan(replace(BOTH, interface_mtu=1372)).tunnel_mtu == 1280
    with pytest.raises(PlanError, match="eth0 has MTU 1371: IPv6 through tenc0 needs 1372"):
        plan(replace(BOTH, interface_mtu=1371))


def test_every_member_is_unreachable_when_the_tunnel_is_gone() -> None:
    planned = plan(BOTH)
    assert [rule.version for rule in planned.rules] == [4, 6]
    assert planned.interlock_routes == tuple(Route(member, None) for member in BOTH.members)
    assert [(str(route.destination), str(route.source)) for route in planned.tunnel_routes] == [
        ("10.9.0.0/24", "10.9.0.1"),
        ("fd00:9::/64", "fd00:9::1"),
    ]
    assert planned.tunnel_routes[0].metric < planned.interlock_routes[0].metric


def test_a_family_without_own_address_gets_no_way_out() -> None:
    planned = plan(replace(BOTH, addresses=BOTH.addresses[:1]))
    assert [route.destination.version for route in planned.interlock_routes] == [4, 6]
    assert [route.destination.version for route in planned.tunnel_routes] == [4]


def test_the_first_address_of_a_family_is_the_sender() -> None:
    addresses = (ip_address("10.9.0.7"), ip_address("10.9.0.1"))
    assert plan(replace(ONLY_V4, addresses=addresses)).tunnel_routes[0].source == addresses[0]


@given(
    st.lists(st.ip_addresses(network="10.0.0.0/8"), min_size=1, max_size=20),
    st.integers(20, 32),
)
def test_overlapping_members_become_disjoint_ones_of_the_same_addresses(
    addresses: list[object], prefix: int
) -> None:
    members = tuple(ip_network(f"{address}/{prefix}", strict=False) for address in addresses)
    routes = plan(replace(ONLY_V4, members=(*members, *members))).interlock_routes
    found = [route.destination for route in routes]
    v4 = [network for network in found if isinstance(network, IPv4Network)]
    assert len(v4) == len(found)
    assert sum(network.num_addresses for network in v4) == len(
        {int(network.network_address) + n for network in members for n in range(2 ** (32 - prefix))}
    )
    assert not any(a.overlaps(b) for a in v4 for b in v4 if a is not b)


@pytest.mark.parametrize(
    "name", ["", "a" * 16, 'eth0"', "eth0 accept", "e\nh", "ét", "..", "eth0/1"]
)
def test_an_interface_name_cannot_write_filter_rules(name: str) -> None:
    with pytest.raises(PlanError, match="interface "):
        plan(replace(BOTH, interface=name))


def test_a_scope_cannot_write_filter_rules() -> None:
    with pytest.raises(PlanError, match="without a scope"):
        plan(replace(BOTH, members=(IPv6Network("fd00::%};flush ruleset/64"),)))
    with pytest.raises(PlanError, match="without a scope"):
        plan(replace(BOTH, addresses=(ip_address("fd00::1%eth0"),)))


@pytest.mark.parametrize(
    "member",
    ["0.0.0.0/0", "127.0.0.1/32", "169.254.1.0/24", "224.0.0.0/8", "::/0", "::1/128", "fe80::/64"],
)
def test_members_hold_no_address_that_stands_for_no_pod(member: str) -> None:
    with pytest.raises(PlanError, match="member "):
        plan(replace(BOTH, members=(ip_network(member),)))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (replace(BOTH, interface="tenc0"), "interface tenc0"),
        (replace(BOTH, interface="lo"), "interface lo"),
        (replace(BOTH, addresses=()), "no address"),
        (replace(BOTH, session_port=0), "session port 0: a port from 1 to 65535"),
        (replace(BOTH, session_port=65536), "session port 65536"),
        (replace(BOTH, uid=0), "daemon uid 0"),
        (replace(BOTH, gid=2**32 - 1), "daemon gid 4294967295"),
        (replace(ONLY_V4, interface_mtu=1227), "IPv4 through tenc0 needs 1228"),
    ],
)
def test_what_cannot_work_is_one_clear_line(change: NetSettings, complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint) as raised:
        plan(change)
    assert "\n" not in str(raised.value)


def test_no_members_is_a_plan_that_touches_no_traffic() -> None:
    planned = plan(replace(BOTH, members=()))
    assert (planned.rules, planned.interlock_routes, planned.tunnel_routes) == ((), (), ())
    assert "elements" not in planned.nft
