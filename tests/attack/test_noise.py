"""Datagrams that are made of nothing, or of what was heard: each is counted, and nothing else happens."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice

import pytest
from attack.conftest import Stage
from support.attacker import STRANGERS, Attacker, flipped
from support.frames import Datagram
from support.siege import WARM_UP, Siege

from proxy.session.wire import FLIGHT, HELLO, HINT, RECORD, RECORD_HEADER, RETRY

COUNT = 30_000
POOL = 2_000  # different ones; the same twice is as refused as once
LARGEST = 1452  # of UDP payload over IPv6 on an interface of 1,500
TYPES = (HELLO, RETRY, FLIGHT, HINT, *range(RECORD, RECORD + 64))
LATE = {"drop cookie", "drop unknown_handshake"}
"""What a copy of a handshake's datagram meets: its cookie is known to be used up, or is too old."""

Besiege = Callable[..., Siege]
both_ends = pytest.mark.parametrize("victim", ["one", "two"])
both_versions = pytest.mark.parametrize("version", [4, 6])


def from_peer(stage: Stage, attacker: Attacker, payloads: list[bytes]) -> list[bytes]:
    """Frames that claim to come from the victim's peer, its session port."""
    name = stage.other(attacker.victim.pod.label)
    return [attacker.datagram(stage.pod(name).ipv4, payload) for payload in payloads]


def repeated(frames: list[bytes], count: int) -> Iterator[bytes]:
    return islice(cycle(frames), count)


@both_versions
@pytest.mark.parametrize("begins", ["anyhow", "as a datagram of ours"])
def test_random_datagrams_are_counted_and_disturb_nobody(
    stage: Stage, besiege: Besiege, version: int, begins: str
) -> None:
    chance = random.Random(f"{version} {begins}")
    with besiege() as siege:
        peer = stage.pod("two")
        sources = (STRANGERS[version], peer.ipv4 if version == 4 else peer.ipv6)
        pool = []
        for number in range(POOL):
            payload = chance.randbytes(chance.randrange(LARGEST + 1))
            if begins != "anyhow":
                payload = bytes((chance.choice(TYPES),)) + payload[1:]
            pool.append(siege.attacker.datagram(sources[number % 2], payload))
        grown = siege.warm_then(lambda count: repeated(pool, count), COUNT * stage.factor)
        assert grown["drop malformed"] >= siege.thrown / 2


@both_versions
def test_wrong_checksums_are_the_kernels_to_refuse(
    stage: Stage, besiege: Besiege, version: int
) -> None:
    chance = random.Random(version)
    peer = stage.pod("two")
    with besiege() as siege:
        good = siege.attacker.datagram(peer.ipv4 if version == 4 else peer.ipv6, bytes(100))
        # IPv6 without a checksum is wrong as well (RFC 8200 8.1).
        pool = [good[:-1] + bytes((chance.randrange(1, 256),)) for _ in range(POOL)]
        grown = siege.warm_then(lambda count: repeated(pool, count), COUNT * stage.factor)
        assert grown["Udp InCsumErrors"] == siege.thrown


@both_ends
def test_truncated_datagrams_are_counted_and_disturb_nobody(
    stage: Stage, besiege: Besiege, victim: str
) -> None:
    cut = [d.payload[:n] for d in stage.heard_at(victim) for n in range(len(d.payload))]
    with besiege(victim) as siege:
        frames = from_peer(stage, siege.attacker, cut)
        grown = siege.warm_then(lambda count: repeated(frames, count), COUNT * stage.factor)
        assert sum(grown[name] for name in ("drop malformed", *LATE)) == siege.thrown
        assert grown["drop malformed"] >= siege.thrown / 2


@both_ends
def test_bit_flipped_datagrams_are_counted_and_disturb_nobody(
    stage: Stage, besiege: Besiege, victim: str
) -> None:
    chance = random.Random(victim)
    heard = [d.payload for d in stage.heard_at(victim)]
    with besiege(victim) as siege:
        payloads = [flipped(chance, chance.choice(heard)) for _ in range(POOL)]
        frames = from_peer(stage, siege.attacker, payloads)
        grown = siege.warm_then(lambda count: repeated(frames, count), COUNT * stage.factor)
        # Among these are flipped indices, counters and lengths; bodies count as copies.
        for reason in ("malformed", "unknown_index", "replay", "token"):
            assert grown[f"drop {reason}"]


@both_ends
def test_replayed_datagrams_are_counted_and_disturb_nobody(
    stage: Stage, besiege: Besiege, victim: str
) -> None:
    heard = stage.heard_at(victim)
    with besiege(victim) as siege:
        frames = from_peer(stage, siege.attacker, [d.payload for d in heard])
        times = COUNT * stage.factor // len(heard) // WARM_UP * WARM_UP
        grown = siege.warm_then(lambda count: repeated(frames, count), times * len(heard))
        assert_met(grown, siege, heard, "drop replay")


@both_ends
def test_reflected_datagrams_are_counted_and_disturb_nobody(
    stage: Stage, besiege: Besiege, victim: str
) -> None:
    heard = stage.heard_at(stage.other(victim))
    with besiege(victim) as siege:
        frames = from_peer(stage, siege.attacker, [d.payload for d in heard])
        times = COUNT * stage.factor // len(heard) // WARM_UP * WARM_UP
        grown = siege.warm_then(lambda count: repeated(frames, count), times * len(heard))
        # The index in a record is its receiver's: its sender knows no session of that.
        assert_met(grown, siege, heard, "drop unknown_index")


def assert_met(grown: Counter[str], siege: Siege, heard: list[Datagram], records_meet: str) -> None:
    """Assert what each type met, after all that was heard was thrown equally often."""
    types = Counter(d.payload[0] for d in heard)
    times = siege.thrown // len(heard)
    assert grown[records_meet] == times * types[RECORD]
    assert grown["sent retry"] == times * types[HELLO]
    late = times * (types[RETRY] + types[FLIGHT])
    assert sum(grown[name] for name in LATE) == late


@both_ends
def test_spliced_datagrams_are_counted_and_disturb_nobody(
    stage: Stage, besiege: Besiege, victim: str
) -> None:
    records = [d.payload for d in stage.heard_at(victim) if d.payload[0] >= RECORD]
    spliced = [
        head[:RECORD_HEADER] + body[RECORD_HEADER:]
        for head in records
        for body in records
        if head is not body
    ]
    with besiege(victim) as siege:
        frames = from_peer(stage, siege.attacker, spliced)
        times = COUNT * stage.factor // len(spliced)
        grown = siege.warm_then(lambda count: repeated(frames, count), times * len(spliced))
        # A body of another length contradicts the header; one of the same comes too late.
        assert grown["drop malformed"] + grown["drop replay"] == siege.thrown
        assert grown["drop malformed"]
        assert grown["drop replay"]
