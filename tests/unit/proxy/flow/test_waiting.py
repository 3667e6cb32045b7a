"""Packets that wait: in order, and within bounds that super-packets cannot stretch."""

import pytest

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.flow.waiting import (
    BYTES_FOR_ONE,
    BYTES_IN_ALL,
    MOST_FOR_ONE,
    MOST_IN_ALL,
    WaitingPackets,
)


def fill(waiting: WaitingPackets, address: bytes, plain: bytes) -> int:
    """Add until one is refused; how many were taken."""
    taken = 0

    def without_end() -> None:
        nonlocal taken
        while True:
            waiting.add(address, plain)
            taken += 1

    with pytest.raises(Dropped) as caught:
        without_end()
    assert caught.value.reason is Drop.QUEUE_FULL
    return taken


def test_packets_leave_in_order_and_make_room() -> None:
    waiting = WaitingPackets()
    for number in range(MOST_FOR_ONE):
        waiting.add(b"a", bytes((number,)))
    with pytest.raises(Dropped):
        waiting.add(b"a", b"x")
    assert list(waiting.take(b"a")) == [bytes((number,)) for number in range(MOST_FOR_ONE)]
    assert b"a" not in waiting
    assert fill(waiting, b"a", b"x") == MOST_FOR_ONE


def test_packets_in_all_are_bounded() -> None:
    waiting = WaitingPackets()
    taken = sum(fill(waiting, bytes((number,)), b"x") for number in range(100))
    assert taken == MOST_IN_ALL


def test_bytes_for_one_address_are_bounded() -> None:
    waiting = WaitingPackets()
    assert fill(waiting, b"a", bytes(61_000)) == BYTES_FOR_ONE // 61_000
    waiting.take(b"a")
    assert fill(waiting, b"a", bytes(61_000)) == BYTES_FOR_ONE // 61_000


def test_bytes_in_all_are_bounded() -> None:
    waiting = WaitingPackets()
    taken = sum(fill(waiting, bytes((number,)), bytes(61_000)) for number in range(100))
    assert taken == BYTES_IN_ALL // 61_000
    for number in range(100):
        waiting.take(bytes((number,)))
    assert fill(waiting, b"a", bytes(61_000)) == BYTES_FOR_ONE // 61_000


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
