"""Forged outer fragments: a member's never reach reassembly, a stranger's end there."""

import random
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from itertools import cycle, islice

import pytest
from attack.conftest import Stage
from support.attacker import STRANGERS, Attacker
from support.capture import SESSION_PORT
from support.forge import udp_segment
from support.frames import FRAGMENT_HEADER, UDP
from support.siege import Siege

COUNT = 20_000
POOL = 4_000
MORE = 1  # the last bit of IPv6's offset word (RFC 8200 4.5)
MORE_V4 = 0x2000

Besiege = Callable[..., Siege]


def fragment(attacker: Attacker, here: bytes, number: int, offset: int, piece: bytes) -> bytes:
    """Make the frame of one fragment, with more to follow; `offset` counts 8 bytes."""
    if len(here) == 4:
        return attacker.packet(here, UDP, piece, number % 0x10000 << 16 | MORE_V4 | offset)
    head = struct.pack("!BBHI", UDP, 0, offset << 3 | MORE, number)
    return attacker.packet(here, FRAGMENT_HEADER, head + piece)


def pieces(attacker: Attacker, source: str) -> Iterator[bytes]:
    """Firsts, middles that fit none, and such as overlap: nothing that is ever whole."""
    chance = random.Random(source)
    here = ip_address(source).packed
    for number in range(POOL):
        segment = udp_segment(here, attacker.own(here), (SESSION_PORT,) * 2, chance.randbytes(600))
        yield fragment(attacker, here, number, 0, segment[: 8 * chance.randrange(1, 70)])
        yield fragment(attacker, here, number, chance.randrange(60), segment[:80])


def frames_from(attacker: Attacker, source: str) -> Callable[[int], Iterator[bytes]]:
    pool = list(pieces(attacker, source))
    return lambda count: islice(cycle(pool), count)


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_from_a_members_address_are_refused_by_the_filter(
    stage: Stage, besiege: Besiege, version: int
) -> None:
    peer = stage.pod("two")
    with besiege() as siege:
        frames = frames_from(siege.attacker, peer.ipv4 if version == 4 else peer.ipv6)
        grown = siege.warm_then(frames, COUNT * stage.factor, ["nft refused_arriving"])
        assert grown["Ip ReasmReqds"] == 0


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_from_a_stranger_end_in_reassembly(
    stage: Stage, besiege: Besiege, version: int
) -> None:
    with besiege() as siege:
        frames = frames_from(siege.attacker, STRANGERS[version])
        grown = siege.warm_then(frames, COUNT * stage.factor, ["Ip ReasmReqds"])
        assert grown["Ip ReasmOKs"] == grown["drop malformed"] == 0
