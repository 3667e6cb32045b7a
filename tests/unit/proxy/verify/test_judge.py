"""Which datagrams are a session's: real keys, real records."""

from types import SimpleNamespace
from typing import cast

from fuzz.data_path import KEYS

from proxy.session.keys import DirectionKeys
from proxy.session.pieces import SealingBuffer, datagrams
from proxy.session.record import Opener, Sealer
from proxy.session.session import Session
from proxy.session.wire import Hello
from proxy.verify.frames import ENTRY, Tallies
from proxy.verify.judge import Judge
from proxy.verify.messages import Seen

OTHERS = DirectionKeys(b"k" * 32, b"i" * 12, b"x" * 32, KEYS.suite)
INDEX, PEERS = 5, 7


def sealed(plain: bytes, keys: DirectionKeys = KEYS, index: int = PEERS) -> list[bytes]:
    record = bytes(Sealer(keys, index, SealingBuffer()).seal(plain, 500))
    return [bytes(piece) for piece in datagrams(record, 500)]


def judged(found: list[bytes], *, outgoing: bool = True) -> Seen:
    session = SimpleNamespace(
        index=INDEX,
        peer_index=PEERS,
        sealer=Sealer(KEYS, PEERS, SealingBuffer()),
        opener=Opener(KEYS),
    )
    judge = Judge({INDEX: cast("Session", session)})
    judge.take(b"".join(ENTRY.pack(outgoing, len(one), one[:24]) for one in found))
    return judge.seen(Tallies())


def test_each_datagram_of_a_record_is_its_sessions_in_its_direction() -> None:
    pieces = sealed(bytes(2000))

    assert judged(pieces) == Seen(sealed=len(pieces), sealed_bytes=sum(map(len, pieces)))
    assert judged(sealed(bytes(9), index=INDEX), outgoing=False).sealed == 1
    assert judged(pieces, outgoing=False).foreign_in == len(pieces)


def test_another_key_a_changed_header_or_length_is_foreign() -> None:
    one = sealed(bytes(60))[0]
    changed = [one[:at] + bytes([one[at] ^ 1]) + one[at + 1 :] for at in (0, 1, 3, 7, 15, 16, 23)]
    longer = one + bytes(9)

    found = judged([*sealed(bytes(60), OTHERS), *changed, longer, one[:30], b"\x80", bytes(40)])

    assert (found.foreign_out, found.sealed) == (12, 0)


def test_handshakes_have_the_lengths_of_one() -> None:
    hello = Hello(1).encode()

    assert judged([hello, bytes([4]) + bytes(15)]) == Seen()
    assert judged([hello[:-1], bytes([2]) + bytes(900)]).foreign_out == 2
