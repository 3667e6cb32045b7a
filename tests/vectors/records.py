"""Vectors of section 8: records with their datagrams, what happens to datagrams that were altered, replay windows."""

import random
from dataclasses import asdict, replace
from typing import Final

from vectors import reference as ref

Case = dict[str, object]

KEPT: Final = "kept"
"""Of a record's pieces some are still missing."""

_MOST_COUNTER: Final = (1 << 64) - 1


def draw_keys(draw: random.Random, suite: str) -> ref.Keys:
    """Return one direction's keys."""
    return ref.Keys(
        suite, draw.randbytes(32), draw.randbytes(12), draw.randbytes(32), draw.getrandbits(32)
    )


def shown(keys: ref.Keys) -> Case:
    """Return keys as a file has them."""
    return {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(keys).items()}


def records(draw: random.Random) -> list[Case]:
    """Return sealed records: keys, counter and plaintext, and the datagrams that they make."""
    shapes = [
        # name, counter, bytes of body, largest datagram, n
        ("the first record, an empty body", 1, 0, 1448, 1),
        ("one datagram", 2, 64, 1448, 1),
        ("one datagram, filled", 3, 1448 - 44, 1448, 1),
        ("one byte more than one datagram holds", 4, 1448 - 43, 1448, 2),
        ("two datagrams, the last smaller", 0x0102_0304_0506_0708, 1405, 1200, 2),
        ("three datagrams: the third token is of another block", 6, 200, 100, 3),
        ("64 datagrams", 7, 1260, 44, 64),
        ("the last counter", _MOST_COUNTER, 32, 1448, 1),
        ("the last counter, two datagrams", _MOST_COUNTER, 300, 200, 2),
    ]
    cases: list[Case] = []
    for suite in ref.SUITES:
        keys = draw_keys(draw, suite)
        for name, counter, size, largest, n in shapes:
            plain = bytes(4) + draw.randbytes(size)
            datagrams = ref.seal(keys, counter, plain, n, largest - 24 if n > 1 else 0)
            if max(map(len, datagrams)) > largest:
                raise ValueError(f"{name}: {max(map(len, datagrams))} bytes")
            cases.append(
                {
                    "name": f"{name}; {suite}",
                    "keys": shown(keys),
                    "counter": counter,
                    "kind": plain[0],
                    "body": plain[4:].hex(),
                    "largest_datagram": largest,
                    "datagrams": [one.hex() for one in datagrams],
                }
            )
    return cases


class _Steps:
    """Datagrams that come one after the other, and what a receiver makes of each."""

    def __init__(self, draw: random.Random, suite: str) -> None:
        self.keys = draw_keys(draw, suite)
        self.cases: list[Case] = []
        self._suite = suite
        self._steps: list[Case] = []

    def step(self, datagram: bytes, result: str, opened: bytes | None = None, at: int = 0) -> None:
        """Add a datagram that comes ``at`` ms; ``result`` is KEPT, "opened" or a reason."""
        step: Case = {"at_ms": at, "datagram": datagram.hex(), "result": result}
        if opened is not None:
            step["plain"] = opened.hex()
        self._steps.append(step)

    def case(self, name: str) -> None:
        """End a case: a receiver begins anew."""
        text = f"{name}; {self._suite}"
        self.cases.append({"name": text, "keys": shown(self.keys), "steps": self._steps})
        self._steps = []


def refused(draw: random.Random) -> list[Case]:
    """Return sequences of datagrams, genuine and altered, and what a receiver that begins anew does with each."""
    cases: list[Case] = []
    for suite in ref.SUITES:
        steps = _Steps(draw, suite)
        _altered(steps)
        _other_keys(steps, draw)
        _pieces(steps)
        _late_pieces(steps)
        cases += steps.cases
    return cases


def _flip(datagram: bytes, at: int, bit: int = 1) -> bytes:
    at %= len(datagram)
    return datagram[:at] + bytes((datagram[at] ^ bit,)) + datagram[at + 1 :]


def _altered(steps: _Steps) -> None:
    plain = bytes(4) + b"a packet"
    (good,) = ref.seal(steps.keys, 9, plain)
    for name, at, reason in (
        ("type", 0, "malformed"),
        ("segment", 1, "malformed"),
        ("length", 3, "malformed"),
        ("receiver index", 4, "token"),
        ("counter, first byte", 8, "token"),
        ("counter, last byte", 15, "token"),
        ("token, first byte", 16, "token"),
        ("token, last byte", 23, "token"),
        ("first sealed byte", 24, "forged"),
        ("last byte of the tag", -1, "forged"),
    ):
        steps.step(_flip(good, at), reason)
        steps.step(good, "opened", plain)
        steps.case(f"one bit of the {name} is changed")
    steps.step(good[:-1], "malformed")
    steps.step(good + b"\0", "malformed")
    steps.step(good, "opened", plain)
    steps.step(good, "replay")
    steps.case("one byte less, one more, genuine, again")
    steps.step(ref.seal(steps.keys, 0, plain)[0], "replay")
    steps.case("counter 0")
    steps.step(_flip(ref.seal(steps.keys, _MOST_COUNTER, plain)[0], -1), "forged")
    steps.step(good, "opened", plain)
    steps.case("what does not open moves no window")
    (far,) = ref.seal(steps.keys, 9 + 2048, plain)
    (near,) = ref.seal(steps.keys, 10, plain)
    steps.step(far, "opened", plain)
    steps.step(good, "replay")
    steps.step(near, "opened", plain)
    steps.case("2,048 and 2,047 behind the highest that opened")


def _other_keys(steps: _Steps, draw: random.Random) -> None:
    plain = bytes(4) + b"a packet"
    keys = steps.keys
    (good,) = ref.seal(keys, 9, plain)
    for name, other, reason in (
        ("header key", replace(keys, header_key=draw.randbytes(32)), "token"),
        ("key", replace(keys, key=draw.randbytes(32)), "forged"),
        ("IV", replace(keys, iv=draw.randbytes(12)), "forged"),
    ):
        steps.step(ref.seal(other, 9, plain)[0], reason)
        steps.step(good, "opened", plain)
        steps.case(f"sealed under another {name}")


def _pieces(steps: _Steps) -> None:
    plain = bytes(4) + bytes(range(200))
    keys = steps.keys
    a, b, c = ref.seal(keys, 9, plain, 3)
    steps.step(c, KEPT)
    steps.step(a, KEPT)
    steps.step(b, "opened", plain)
    steps.step(b, "replay")
    steps.case("pieces in another order")
    steps.step(a, KEPT)
    steps.step(a, "reassembly")
    steps.step(_flip(a, -1), "reassembly")
    steps.step(b, KEPT)
    steps.step(c, "opened", plain)
    steps.case("a piece comes again: the first write wins")
    steps.step(_flip(a, -1), KEPT)
    steps.step(a, "reassembly")
    steps.step(b, KEPT)
    steps.step(c, "forged")
    for piece, result in ((a, KEPT), (b, KEPT), (c, "opened")):
        steps.step(piece, result, plain if result == "opened" else None)
    steps.case("a changed piece comes first: that try is spoilt, the record is not")
    steps.step(_flip(b, 16), "token")
    steps.step(b[:16] + a[16:24] + b[24:], "token")
    steps.step(b[:1] + b"\0" + b[2:], "token")
    for piece, result in ((a, KEPT), (b, KEPT), (c, "opened")):
        steps.step(piece, result, plain if result == "opened" else None)
    steps.case("a changed token, another segment's token, another segment's number")
    steps.step(a, KEPT)
    steps.step(ref.seal(keys, 9, plain, 2)[1], "reassembly")
    # The same n and size of a piece, and another length.
    steps.step(ref.seal(keys, 9, plain[:-1], 3)[1], "reassembly")
    steps.step(b, KEPT)
    steps.step(c, "opened", plain)
    steps.case("another n and another length under the same counter")
    steps.step(a, KEPT)
    steps.step(ref.seal(keys, 9, plain, 3, 100)[0], "reassembly")
    steps.step(b, KEPT)
    steps.step(c, "opened", plain)
    steps.case("another size of pieces under the same counter")


def _late_pieces(steps: _Steps) -> None:
    plain = bytes(4) + bytes(range(100))
    a, b = ref.seal(steps.keys, 9, plain, 2)
    c, d = ref.seal(steps.keys, 10, plain, 2)
    steps.step(a, KEPT)
    steps.step(c, KEPT)
    steps.step(b, "opened", plain, at=19)
    steps.step(d, "opened", plain, at=19)
    steps.case("two records at a time, whole within 20 ms")
    steps.step(a, KEPT)
    steps.step(c, KEPT, at=21)
    steps.step(b, KEPT, at=21)
    steps.step(d, "opened", plain, at=21)
    steps.step(a, "opened", plain, at=21)
    steps.case("a piece is forgotten after 20 ms")


def windows() -> list[Case]:
    """Return counters in order of coming and whether each may open; each that may does."""
    most = _MOST_COUNTER
    return [
        {"name": name, "steps": [{"counter": c, "opens": o} for c, o in steps]}
        for name, steps in (
            ("in order, from 1", [(n, True) for n in range(1, 6)]),
            ("0 never", [(0, False), (1, True), (0, False)]),
            ("again", [(5, True), (5, False), (4, True), (4, False), (5, False)]),
            ("the width", [(2048, True), (0, False), (1, True), (1, False)]),
            ("2,047 behind", [(5000, True), (2953, True), (2952, False), (2953, False)]),
            ("moved by one", [(2048, True), (2049, True), (1, False), (2, True)]),
            ("moved by its width", [(1, True), (2049, True), (1, False), (2, True), (2048, True)]),
            ("a leap beyond it", [(9, True), (1 << 40, True), (10, False), (9, False)]),
            ("a leap, and just behind", [(9, True), (1 << 40, True), ((1 << 40) - 2047, True)]),
            ("the last counters", [(most, True), (most, False), (most - 1, True), (1, False)]),
            (
                "the last counters' window",
                [(most, True), (most - 2047, True), (most - 2048, False)],
            ),
            ("steps of 64", [(n, True) for n in range(64, 641, 64)] + [(128, False), (65, True)]),
        )
    ]
