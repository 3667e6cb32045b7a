"""Many datagrams in one receive: the same comes of them as of each alone, however the kernel joined them."""

import random
from collections import Counter
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from support.arrivals import deliver
from support.check_vectors import PEER, receiver
from support.segmentation import UDP, Connection

from proxy.drops import Drop
from proxy.packet.virtio import VNET_HEADER
from proxy.session.keys import DirectionKeys
from proxy.session.pieces import LARGEST_SEND, SealingBuffer, datagrams
from proxy.session.record import Sealer
from proxy.session.wire import Hello

GCM = "TLS_AES_256_GCM_SHA384"
SHOWN = {"suite": GCM, "key": "6b" * 32, "iv": "69" * 12, "header_key": "68" * 32, "index": 7}
CASE = {"receiving": SHOWN, "sending": SHOWN, "role": "responder", "confirmed": True}
FLOW = Connection(bytes((10, 0, 0, 2)), bytes((10, 0, 0, 1)), UDP)
"""From the peer's address to ours, as `receiver` has them."""

DATAGRAM = 300


def sealer() -> Sealer:
    keys = DirectionKeys(b"k" * 32, b"i" * 12, b"h" * 32, GCM)
    return Sealer(keys, 7, SealingBuffer())


def joined(wire: list[bytes], draw: random.Random) -> list[tuple[bytes, int]]:
    """Join neighbours of one size, the last maybe smaller, as UDP_GRO may: each receive's bytes and their size."""
    receives: list[list[bytes]] = []
    for one in wire:
        last = receives[-1] if receives else None
        fits = (
            last is not None
            and len(last[-1]) == len(last[0]) >= len(one)
            and sum(map(len, last)) + len(one) <= LARGEST_SEND
        )
        if last is not None and fits and draw.random() < 0.9:
            last.append(one)
        else:
            receives.append([one])
    return [(b"".join(each), len(each[0])) for each in receives]


def spoil(wire: list[bytes], draw: random.Random) -> list[bytes]:
    """Lose, double, swap and change a few of the datagrams."""
    made: list[bytes] = []
    for one in wire:
        chance = draw.random()
        if chance < 0.03:
            continue
        if chance < 0.06:
            made += [one, one]
        elif chance < 0.09:
            at = draw.randrange(len(one))
            made.append(one[:at] + bytes((one[at] ^ 1 << draw.randrange(8),)) + one[at + 1 :])
        elif chance < 0.12 and made:
            made.insert(-1, one)
        else:
            made.append(one)
    return made


@given(seed=st.integers(0, 1 << 32), clean=st.booleans())
@example(seed=1, clean=True)
def test_joined_datagrams_bring_what_single_ones_bring(seed: int, clean: bool) -> None:  # noqa: FBT001 - drawn
    draw = random.Random(seed)
    sender, wire = sealer(), list[bytes]()
    for number in range(draw.randrange(1, 12)):
        size = draw.choice((10, 200, 232, 500, 3000, 12_000))
        packet = FLOW.packet(draw.randbytes(size), number=number)
        wire += map(bytes, datagrams(sender.seal(bytes(4) + packet, DATAGRAM), DATAGRAM))
    wire = wire if clean else spoil(wire, draw)
    _, inbound, drops, session = receiver(CASE)
    _, naive, _, naive_session = receiver(CASE)
    got, expected = list[bytes](), list[bytes]()
    for data, size in joined(wire, draw):
        got += deliver(inbound, data, PEER, 0.0, size=size)
    for one in wire:
        expected += deliver(naive, one, PEER, 0.0)
    if clean:
        assert got == expected
        assert not drops
        assert session.opener.large == naive_session.opener.large
    # Where a piece was changed, a record may open whole that first-write-wins would have lost: never the reverse.
    assert not Counter(expected) - Counter(got)


def test_whole_record_takes_no_second_look_at_its_datagrams() -> None:
    """The fast path is taken, and is not merely possible."""
    sender = sealer()
    _, inbound, drops, session = receiver(CASE)
    packet = FLOW.packet(bytes(3000))
    data = bytes(sender.seal(bytes(4) + packet, DATAGRAM))
    looked: list[int] = []
    original = session.opener.open
    session.opener = _Watched(session.opener, looked)  # type: ignore[assignment]
    assert original is not None
    assert deliver(inbound, data, PEER, 0.0, size=DATAGRAM) == [bytes(VNET_HEADER) + packet]
    assert not drops
    assert not looked


class _Watched:
    def __init__(self, opener: object, looked: list[int]) -> None:
        self._opener, self._looked = opener, looked

    def __getattr__(self, name: str) -> object:
        if name == "open":
            self._looked.append(1)
        return getattr(self._opener, name)


def test_forged_datagram_inside_a_receive_costs_the_others_nothing() -> None:
    sender = sealer()
    _, inbound, drops, _ = receiver(CASE)
    # Four full datagrams, so that a forged one among them leaves what looks like a whole record.
    packet = FLOW.packet(bytes(4 * (DATAGRAM - 24) - 16 - 4 - 28))
    wire = list(map(bytes, datagrams(sender.seal(bytes(4) + packet, DATAGRAM), DATAGRAM)))
    forged = wire[1][:16] + bytes(8) + wire[1][24:]
    data = b"".join((wire[0], forged, *wire[1:]))
    assert deliver(inbound, data, PEER, 0.0, size=DATAGRAM) == [bytes(VNET_HEADER) + packet]
    assert drops == {Drop.TOKEN: 1}


def test_forged_record_costs_no_decryption() -> None:
    sender = sealer()
    _, inbound, drops, session = receiver(CASE)
    data = bytes(sender.seal(bytes(4) + FLOW.packet(bytes(1000)), DATAGRAM))
    session.opener._aead = None  # type: ignore[assignment]  # whoever reaches it fails
    assert not deliver(inbound, data[:16] + bytes(8) + data[24:], PEER, 0.0, size=DATAGRAM)
    assert drops == {Drop.TOKEN: 1}


def test_whole_record_is_opened_once() -> None:
    sender = sealer()
    _, inbound, drops, _ = receiver(CASE)
    data = bytes(sender.seal(bytes(4) + FLOW.packet(bytes(1000)), DATAGRAM))
    assert len(deliver(inbound, data, PEER, 0.0, size=DATAGRAM)) == 1
    assert not deliver(inbound, data, PEER, 0.0, size=DATAGRAM)
    assert drops == {Drop.REPLAY: 4}


def test_pieces_that_came_alone_do_not_linger_behind_their_whole_record() -> None:
    sender = sealer()
    _, inbound, drops, session = receiver(CASE)
    data = bytes(sender.seal(bytes(4) + FLOW.packet(bytes(1000)), DATAGRAM))
    deliver(inbound, data[:DATAGRAM], PEER, 0.0)
    assert len(deliver(inbound, data, PEER, 0.0, size=DATAGRAM)) == 1
    session.opener.expire(1.0)
    assert session.opener.incomplete == 0
    assert not drops


def test_handshakes_joined_behind_a_record_are_not_heard() -> None:
    """The kernel sorts by the first byte of what it joined: they would pass by the queue that holds them."""
    sender = sealer()
    table, inbound, drops, _ = receiver(CASE)
    record = bytes(sender.seal(bytes(4) + FLOW.packet(bytes(1128)), 1200))
    assert len(record) == 1200
    frames = deliver(inbound, record + Hello(1).encode() * 3, PEER, 0.0, size=1200)
    assert len(frames) == 1
    assert drops == {Drop.MALFORMED: 3}
    assert not table.datagrams_to_send()


def test_short_datagram_ends_a_receive() -> None:
    """Only the last may be shorter: a record behind one would lie where nobody looks."""
    sender = sealer()
    _, inbound, drops, _ = receiver(CASE)
    first = bytes(sender.seal(bytes(4) + FLOW.packet(bytes(500)), DATAGRAM))
    second = bytes(sender.seal(bytes(4) + FLOW.packet(bytes(500)), DATAGRAM))
    assert all(len(a) % DATAGRAM for a, _ in pairwise((first, second, first)))
    assert not deliver(inbound, first + second, PEER, 0.0, size=DATAGRAM)
    assert set(drops) <= {Drop.MALFORMED, Drop.UNKNOWN_INDEX, Drop.TOKEN}
