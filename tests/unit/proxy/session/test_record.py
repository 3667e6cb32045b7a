"""Records: what is sealed opens once, in any order of pieces, and nothing else opens."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.arrivals import open_datagram

from proxy.drops import Drop
from proxy.errors import Dropped, Unusable
from proxy.session import record
from proxy.session.keys import SUITES, DirectionKeys
from proxy.session.pieces import SealingBuffer, datagrams, piece_size
from proxy.session.record import Opener, Sealer
from proxy.session.wire import MOST_DATAGRAMS, RECORD, RECORD_HEADER, TAG

GCM = "TLS_AES_256_GCM_SHA384"
KEYS = DirectionKeys(b"k" * 32, b"i" * 12, b"h" * 32, GCM)
DATAGRAM = 1452


def pair(suite: str = GCM) -> tuple[Sealer, Opener]:
    keys = DirectionKeys(KEYS.key, KEYS.iv, KEYS.header_key, suite)
    return Sealer(keys, 7, SealingBuffer()), Opener(keys)


def opened(opener: Opener, data: bytes, now: float = 0.0) -> bytes | None:
    return open_datagram(opener, data, now) or None


def cut(data: memoryview | bytes, size: int) -> list[bytes]:
    return [bytes(one) for one in datagrams(data, size)]


def refused(opener: Opener, data: bytes) -> Drop:
    with pytest.raises(Dropped) as caught:
        opened(opener, data)
    return caught.value.reason


@pytest.mark.parametrize("suite", SUITES)
@given(size=st.integers(min_value=1, max_value=61_000), seed=st.integers())
def test_record_opens_whatever_order_its_pieces_take(suite: str, size: int, seed: int) -> None:
    sealer, opener = pair(suite)
    plain = random.Random(seed).randbytes(size)
    pieces = cut(sealer.seal(plain, DATAGRAM), DATAGRAM)
    assert len(pieces) == -(-(size + TAG) // (DATAGRAM - RECORD_HEADER))
    assert len({len(piece) for piece in pieces[:-1]} | {max(map(len, pieces))}) == 1
    assert len(pieces[0]) <= DATAGRAM
    random.Random(seed).shuffle(pieces)
    results = [opened(opener, piece) for piece in pieces]
    assert results[:-1] == [None] * (len(pieces) - 1)
    assert results[-1] == plain


@given(bit=st.integers(min_value=0, max_value=(DATAGRAM - 1) * 8), pieces=st.sampled_from([1, 3]))
def test_no_bit_of_a_datagram_can_be_changed(bit: int, pieces: int) -> None:
    sealer, opener = pair()
    wire = cut(sealer.seal(b"x" * (1300 * pieces), DATAGRAM), DATAGRAM)
    damaged = bytearray(wire[0])
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    if (
        damaged[4:8] != wire[0][4:8]
    ):  # the receiver index finds the session: not the opener's to check
        return
    with pytest.raises(Dropped):
        assert not [opened(opener, data) for data in (bytes(damaged), *wire[1:])]


def test_record_opens_only_once() -> None:
    sealer, opener = pair()
    (data,) = cut(sealer.seal(b"once", DATAGRAM), DATAGRAM)
    assert opened(opener, data) == b"once"
    assert refused(opener, data) is Drop.REPLAY


def test_forged_record_does_not_move_the_window() -> None:
    sealer, opener = pair()
    (first,) = cut(sealer.seal(b"first", DATAGRAM), DATAGRAM)
    sealer.counter = 1 << 40
    (far,) = cut(sealer.seal(b"far", DATAGRAM), DATAGRAM)
    assert refused(opener, far[:-1] + bytes((far[-1] ^ 1,))) is Drop.FORGED
    assert opened(opener, first) == b"first"


def test_wrong_token_is_refused_before_any_state() -> None:
    sealer, opener = pair()
    wire = cut(sealer.seal(b"x" * 5000, DATAGRAM), DATAGRAM)
    forged = wire[1][:16] + bytes(8) + wire[1][24:]
    assert refused(opener, forged) is Drop.TOKEN
    assert [opened(opener, data) for data in wire][-1] == b"x" * 5000


def test_token_of_one_segment_does_not_serve_another() -> None:
    sealer, opener = pair()
    wire = cut(sealer.seal(b"x" * 5000, DATAGRAM), DATAGRAM)
    moved = wire[1][:1] + wire[2][1:2] + wire[1][2:]
    assert refused(opener, moved) is Drop.TOKEN


def test_repeated_piece_does_not_replace_the_first() -> None:
    sealer, opener = pair()
    wire = cut(sealer.seal(b"x" * 5000, DATAGRAM), DATAGRAM)
    opened(opener, wire[0])
    late = wire[0][:RECORD_HEADER] + bytes(len(wire[0]) - RECORD_HEADER)
    assert refused(opener, late) is Drop.REASSEMBLY
    assert [opened(opener, data) for data in wire[1:]][-1] == b"x" * 5000


def test_two_records_may_be_open_and_a_third_ends_the_oldest() -> None:
    sealer, opener = pair()
    records = [cut(sealer.seal(bytes((n,)) * 2000, DATAGRAM), DATAGRAM) for n in range(3)]
    for one in records:
        assert opened(opener, one[0]) is None
    assert opener.incomplete == 1
    assert opened(opener, records[2][1]) == b"\2" * 2000
    assert opened(opener, records[1][1]) == b"\1" * 2000
    assert opened(opener, records[0][1]) is None


def test_more_than_64_datagrams_are_too_big() -> None:
    sealer, _ = pair()
    with pytest.raises(Dropped) as caught:
        sealer.seal(bytes(60_000), 60_000 // MOST_DATAGRAMS + RECORD_HEADER - 1)
    assert caught.value.reason is Drop.TOO_BIG


def test_key_refuses_to_seal_past_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "LAST_BLOCK", 200)
    sealer, opener = pair()
    (data,) = cut(sealer.seal(b"x" * 1600, DATAGRAM * 2), DATAGRAM * 2)
    assert opened(opener, data) == b"x" * 1600
    with pytest.raises(Unusable):
        sealer.seal(b"x" * 1600, DATAGRAM * 2)


@given(noise=st.binary(max_size=80), head=st.booleans())
def test_noise_raises_nothing_but_dropped(noise: bytes, head: bool) -> None:  # noqa: FBT001 - drawn
    sealer, opener = pair()
    (good,) = cut(sealer.seal(b"good", DATAGRAM), DATAGRAM)
    data = good[:20] + noise if head else b"\x80" + noise
    if data == good:
        return
    with pytest.raises(Dropped):
        opened(opener, data)


def test_silent_session_keeps_no_buffers() -> None:
    sealer, opener = pair()
    first, *_ = cut(sealer.seal(bytes(3000), DATAGRAM), DATAGRAM)
    assert opened(opener, first) is None
    assert opener._partial._partials
    opener.expire(1.0)
    assert not opener._partial._partials
    assert opener.incomplete == 1


def test_record_of_more_pieces_than_it_can_fill_is_refused() -> None:
    """Of 60 bytes in 32 pieces of 2, nothing is left for the last two: no sender cuts so."""
    for segment in range(32):
        header = bytes((RECORD + 31, segment, 0, 60)) + bytes(RECORD_HEADER - 4)
        with pytest.raises(Dropped) as caught:
            piece_size(memoryview(header + bytes(2)))
        assert caught.value.reason is Drop.MALFORMED
