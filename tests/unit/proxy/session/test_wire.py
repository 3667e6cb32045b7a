"""Handshake datagrams: what is encoded parses back, and noise raises one exception."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.session.wire import (
    FLIGHT_TLS,
    HELLO_SIZE,
    Flight,
    FlightHeader,
    Hello,
    Hint,
    Retry,
    parse_handshake,
)

u64 = st.integers(min_value=1, max_value=(1 << 64) - 1)
u32 = st.integers(min_value=1, max_value=(1 << 32) - 1)
u16 = st.integers(min_value=0, max_value=(1 << 16) - 1)
headers = st.builds(
    FlightHeader,
    index=u32,
    initiator_id=u64,
    responder_id=u64,
    cookie=st.binary(min_size=20, max_size=20),
    generation=u64,
    features=u32,
)


@given(handshake_id=u64, cookie=st.binary(min_size=20, max_size=20))
def test_hello_and_retry_parse_back(handshake_id: int, cookie: bytes) -> None:
    for message in (Hello(handshake_id), Retry(handshake_id, cookie)):
        assert parse_handshake(memoryview(message.encode())) == message


@given(header=headers, offset=u16, received=u16, tls=st.binary(max_size=FLIGHT_TLS))
def test_flight_parses_back(header: FlightHeader, offset: int, received: int, tls: bytes) -> None:
    parsed = parse_handshake(memoryview(header.encode(offset, received, tls)))
    assert parsed == Flight(header, offset, received, tls)
    assert isinstance(parsed, Flight)
    assert parsed.header.cookie == header.cookie


@given(index=u32, counter=u64)
def test_hint_parses_back(index: int, counter: int) -> None:
    assert parse_handshake(memoryview(Hint(index, counter).encode())) == Hint(index, counter)


@given(
    st.one_of(
        st.binary(max_size=100),
        st.builds(
            lambda head, tail: bytes((head,)) + tail, st.integers(0, 5), st.binary(max_size=1300)
        ),
        st.builds(
            lambda good, at, byte: good[:at] + bytes((byte,)) + good[at + 1 :],
            st.sampled_from([Hello(9).encode(), Retry(9, bytes(20)).encode(), Hint(1, 2).encode()]),
            st.integers(0, 1300),
            st.integers(0, 255),
        ),
    )
)
def test_noise_raises_nothing_but_dropped(data: bytes) -> None:
    try:
        parse_handshake(memoryview(data))
    except Dropped as dropped:
        assert dropped.reason in {Drop.MALFORMED, Drop.VERSION}  # noqa: PT017 - any other exception fails


@pytest.mark.parametrize("size", [16, 36, HELLO_SIZE - 1, HELLO_SIZE + 1])
def test_hello_that_is_not_padded_is_not_answered(size: int) -> None:
    """It would make a RETRY larger than what came, for an address that is not proved."""
    hello = Hello(1).encode()
    with pytest.raises(Dropped) as refused:
        parse_handshake(memoryview((hello + bytes(1))[:size]))
    assert refused.value.reason is Drop.MALFORMED


def test_answer_to_hello_is_smaller_than_hello() -> None:
    assert len(Hello(1).encode()) == HELLO_SIZE
    assert len(Retry(1, bytes(20)).encode()) * 3 < HELLO_SIZE


@pytest.mark.parametrize(("newest", "oldest"), [(0, 0), (9, 2)])
def test_hello_without_a_common_version_is_refused(newest: int, oldest: int) -> None:
    with pytest.raises(Dropped) as caught:
        parse_handshake(memoryview(Hello(1, newest, oldest).encode()))
    assert caught.value.reason is Drop.VERSION


def test_hello_that_offers_later_versions_too_is_answered() -> None:
    assert parse_handshake(memoryview(Hello(1, newest=9, oldest=1).encode())) == Hello(1, 9, 1)
