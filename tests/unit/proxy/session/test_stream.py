"""The TLS byte stream over datagrams that are lost, doubled and reordered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.stream import INITIATOR_LIMIT, InStream, OutStream
from proxy.session.wire import FLIGHT_TLS


@given(data=st.binary(min_size=1, max_size=9000), order=st.randoms(use_true_random=False))
def test_stream_arrives_whole_in_any_order(data: bytes, order: st.DrawFn) -> None:
    out, received = OutStream(), InStream(INITIATOR_LIMIT)
    pieces = out.append(data)
    assert all(len(piece) <= FLIGHT_TLS for _, piece in pieces)
    doubled = pieces * 2
    order.shuffle(doubled)  # type: ignore[attr-defined]  # a random.Random, which its type does not say
    assert b"".join(received.add(*piece) for piece in doubled) == data
    assert received.received == len(data)


def test_only_what_is_not_acknowledged_is_repeated() -> None:
    out = OutStream()
    out.append(bytes(FLIGHT_TLS * 2 + 5))
    out.acknowledge(FLIGHT_TLS)
    assert [offset for offset, _ in out.missing()] == [FLIGHT_TLS, 2 * FLIGHT_TLS]
    out.acknowledge(out.end)
    assert out.missing() == []
    assert out.last() == [(2 * FLIGHT_TLS, bytes(5))]


def test_acknowledging_more_than_was_sent_changes_nothing() -> None:
    out = OutStream()
    out.append(b"abc")
    out.acknowledge(4)
    assert out.missing() == [(0, b"abc")]


def test_first_write_wins() -> None:
    received = InStream(INITIATOR_LIMIT)
    assert received.add(3, b"def") == b""
    assert received.add(3, b"XYZ") == b""
    assert received.add(0, b"abc") == b"abcdef"
    assert received.add(0, b"ZZZZZZ") == b""


def test_more_than_a_handshake_has_is_refused() -> None:
    with pytest.raises(Dropped) as caught:
        InStream(100).add(90, bytes(11))
    assert caught.value.reason is Drop.HANDSHAKE_MISMATCH


def test_early_pieces_are_bounded() -> None:
    received = InStream(INITIATOR_LIMIT)
    for offset in range(1, 200):
        received.add(offset, b"x")
    assert len(received._early) <= 16
