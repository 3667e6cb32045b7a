"""Membership by prefix, and packets that wait."""

from ipaddress import ip_address, ip_network

import pytest

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.flow.members import Members
from proxy.flow.waiting import MOST_FOR_ONE, MOST_IN_ALL, WaitingPackets


def test_members_are_addresses_and_prefixes_of_both_families() -> None:
    members = Members(
        [ip_network("10.0.0.2/32"), ip_network("10.1.0.0/16"), ip_network("fd00::/64")]
    )
    for inside in ("10.0.0.2", "10.1.255.255", "fd00::9"):
        assert ip_address(inside).packed in members
    for outside in ("10.0.0.3", "10.2.0.0", "fd00:0:0:1::9", "127.0.0.1"):
        assert ip_address(outside).packed not in members


def test_waiting_packets_leave_in_order_and_once() -> None:
    waiting = WaitingPackets()
    waiting.add(b"a", b"1")
    waiting.add(b"b", b"x")
    waiting.add(b"a", b"2")
    assert list(waiting.take(b"a")) == [b"1", b"2"]
    assert list(waiting.take(b"a")) == []
    assert list(waiting.take(b"b")) == [b"x"]


def test_waiting_packets_are_bounded_for_one_and_in_all() -> None:
    waiting = WaitingPackets()
    for _ in range(MOST_FOR_ONE):
        waiting.add(b"a", b"")
    with pytest.raises(Dropped) as caught:
        waiting.add(b"a", b"")
    assert caught.value.reason is Drop.QUEUE_FULL
    for number in range(MOST_IN_ALL - MOST_FOR_ONE):
        waiting.add(number.to_bytes(4, "big"), b"")
    with pytest.raises(Dropped):
        waiting.add(b"z", b"")
    waiting.take(b"a")
    waiting.add(b"z", b"")
