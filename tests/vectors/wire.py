"""Vectors of sections 2 and 6: datagrams and their fields, datagrams that are dropped, the exporter's context, keys."""

import random
from dataclasses import asdict, replace
from typing import Final

from vectors import reference as ref

Case = dict[str, object]

COOKIE: Final = 20
TOKEN: Final = bytes(range(0xA0, 0xA8))


def wire(draw: random.Random) -> list[Case]:
    """Return datagrams with their fields, or with the reason for which they are dropped."""
    return _good(draw) + _good_records() + _bad(draw) + _bad_records()


def _case(name: str, kind: str, datagram: bytes, **fields: int | bytes) -> Case:
    shown = {k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}
    return {"name": name, "type": kind, "fields": shown, **_bytes(datagram)}


def _bytes(datagram: bytes) -> Case:
    head = datagram.rstrip(b"\0")
    zeros = len(datagram) - len(head)
    if zeros < 64:
        return {"datagram": datagram.hex(), "then_zeros": 0}
    return {"datagram": head.hex(), "then_zeros": zeros}


def _flight(name: str, flight: ref.Flight) -> Case:
    return _case(name, "FLIGHT", flight.encode(), **asdict(flight))


def _good(draw: random.Random) -> list[Case]:
    cookie = draw.randbytes(COOKIE)
    ours, theirs = draw.getrandbits(64), draw.getrandbits(64)
    first = ref.Flight(draw.getrandbits(32), ours, 0, cookie, 0, 1, 0, 0, draw.randbytes(1140))
    answer = ref.Flight(
        draw.getrandbits(32), ours, theirs, cookie, 0, 0, 1140, 1700, draw.randbytes(7)
    )
    most = (1 << 64) - 1
    edge = ref.Flight((1 << 32) - 1, most, most, b"\xff" * COOKIE, 0, most, 65_535, 65_535, b"\xff")
    return [
        _case("HELLO", "HELLO", ref.hello(ours), handshake_id=ours, newest=1, oldest=1),
        _case("HELLO, largest id", "HELLO", ref.hello(most), handshake_id=most, newest=1, oldest=1),
        _case(
            "HELLO that offers later versions too",
            "HELLO",
            ref.hello(ours, 9, 1),
            handshake_id=ours,
            newest=9,
            oldest=1,
        ),
        _case(
            "HELLO that offers version 0 too",
            "HELLO",
            ref.hello(ours, 1, 0),
            handshake_id=ours,
            newest=1,
            oldest=0,
        ),
        _case("RETRY", "RETRY", ref.retry(ours, cookie), handshake_id=ours, cookie=cookie),
        _flight("FLIGHT, the initiator's first", first),
        _flight("FLIGHT, the responder's second piece", answer),
        _flight("FLIGHT without TLS", replace(answer, tls=b"", offset=1147)),
        _flight("FLIGHT that offers features", replace(first, features=0x8000_0001, tls=b"\x16")),
        _flight("FLIGHT that offers later versions too", replace(first, newest=3, tls=b"\x16")),
        _flight("FLIGHT, largest numbers", edge),
        _case("HINT", "HINT", ref.hint(7, 8), index=7, counter=8),
        _case(
            "HINT, largest numbers",
            "HINT",
            ref.hint((1 << 32) - 1, most),
            index=(1 << 32) - 1,
            counter=most,
        ),
    ]


def _record(n: int, segment: int, length: int, size: int, counter: int = 5) -> bytes:
    return ref.record_datagram(n, segment, length, 0x0102_0304, counter, TOKEN, bytes(size))


def _good_records() -> list[Case]:
    shapes: list[tuple[str, int, int, int, int]] = [
        ("least", 1, 0, 17, 17),
        ("largest in one datagram", 1, 0, 65_483, 65_483),
        ("first of two", 2, 0, 1001, 501),
        ("last of two", 2, 1, 1001, 500),
        ("middle of three", 3, 1, 1000, 334),
        ("last of three", 3, 2, 1000, 332),
        ("first of 64", 64, 0, 65_483, 1024),
        ("last of 64", 64, 63, 65_483, 971),
        ("first of two, the last one byte", 2, 0, 1001, 1000),
        ("last of two, one byte", 2, 1, 1001, 1),
        ("last of three, pieces of 450", 3, 2, 1000, 100),
    ]
    most = (1 << 64) - 1
    return [
        _case(
            f"RECORD, {name}",
            "RECORD",
            _record(n, segment, length, size, counter),
            n=n,
            segment=segment,
            length=length,
            index=0x0102_0304,
            counter=counter,
            token=TOKEN,
        )
        for counter in (5, most)
        for name, n, segment, length, size in (shapes if counter == 5 else shapes[:1])
    ]


def _drop(name: str, datagram: bytes, reason: str = "malformed") -> Case:
    return {"name": name, **_bytes(datagram), "reason": reason}


def _with(datagram: bytes, at: int, value: int) -> bytes:
    return datagram[:at] + bytes((value,)) + datagram[at + 1 :]


def _bad(draw: random.Random) -> list[Case]:
    cookie, number = draw.randbytes(COOKIE), draw.getrandbits(64)
    hello, retry, hint = ref.hello(number), ref.retry(number, cookie), ref.hint(7, 8)
    fields = ref.Flight(9, number, 0, cookie, 0, 1, 0, 0, b"\x16\x03\x01")
    flight = fields.encode()
    longest = replace(fields, tls=bytes(1141)).encode()
    cases = [
        _drop("nothing", b""),
        _drop("type alone", b"\x01"),
        *(_drop(f"type {kind}", _with(hint, 0, kind)) for kind in (0, 5, 127)),
        _drop("HELLO one byte short", hello[:-1]),
        _drop("HELLO one byte long", hello + b"\0"),
        *(_drop(f"HELLO, byte {at} not zero", _with(hello, at, 1)) for at in (4, 7, 16, 1199)),
        _drop("HELLO, handshake id 0", ref.hello(0)),
        _drop("HELLO, only later versions", ref.hello(number, 9, 2), "version"),
        _drop("HELLO, only version 0", ref.hello(number, 0, 0), "version"),
        _drop("RETRY one byte short", retry[:-1]),
        _drop("RETRY one byte long", retry + b"\0"),
        *(_drop(f"RETRY, byte {at} not zero", _with(retry, at, 1)) for at in range(2, 8)),
        _drop("RETRY of version 2", ref.retry(number, cookie, 2), "version"),
        _drop("RETRY of version 0", ref.retry(number, cookie, 0), "version"),
        _drop("FLIGHT shorter than its header", flight[:59]),
        _drop("FLIGHT with 1,141 bytes of TLS", longest),
        _drop("FLIGHT, index 0", replace(fields, index=0).encode()),
        _drop("FLIGHT, initiator's id 0", replace(fields, initiator_id=0).encode()),
        _drop("FLIGHT of version 2", replace(fields, version=2, newest=2).encode(), "version"),
        _drop("FLIGHT of version 0", replace(fields, version=0, oldest=0).encode(), "version"),
        _drop("FLIGHT, only later", replace(fields, newest=3, oldest=2).encode(), "version"),
        _drop("FLIGHT, only earlier", replace(fields, newest=0, oldest=0).encode(), "version"),
        _drop("HINT one byte short", hint[:-1]),
        _drop("HINT one byte long", hint + b"\0"),
    ]
    return cases + [_drop(f"HINT, byte {at} not zero", _with(hint, at, 1)) for at in (1, 2, 3)]


def _bad_records() -> list[Case]:
    shapes: list[tuple[str, int, int, int, int]] = [
        ("without a piece", 1, 0, 17, 0),
        ("a tag and nothing sealed", 1, 0, 16, 16),
        ("longer than one may be", 1, 0, 65_484, 65_484),
        ("one byte short", 1, 0, 100, 99),
        ("one byte long", 1, 0, 100, 101),
        ("segment outside", 1, 1, 100, 100),
        ("first of two with the last's size", 2, 0, 1001, 500),
        ("last of two with the first's size", 2, 1, 1001, 501),
        ("third of two", 2, 2, 1001, 500),
        ("first of two that leaves nothing", 2, 0, 1000, 1000),
        ("last of three whose others differ", 3, 2, 1000, 101),
        ("last of three larger than the others", 3, 2, 1000, 400),
        ("segment 64 of 64", 64, 64, 65_483, 971),
        ("type 192", 65, 0, 650, 10),
    ]
    cases = [
        _drop(f"RECORD, {name}", _record(n, segment, length, size))
        for name, n, segment, length, size in shapes
    ]
    return [*cases, _drop("RECORD shorter than its header", _record(1, 0, 17, 17)[:23])]


def keys(draw: random.Random) -> list[Case]:
    """Return exporter contexts, and what an exporter's answers (drawn) make as keys at either end."""
    plain = (1, 1, 1, *(draw.getrandbits(64) for _ in range(2)))
    indices = (draw.getrandbits(32), draw.getrandbits(32))
    least = (1, 1, 1, 1, 1, 1, 1, 0, 0, 0)
    most32, most64 = (1 << 32) - 1, (1 << 64) - 1
    most = (1, 255, 0, most64, most64, most32, most32, most32, most32, most64)
    return [
        _keys(draw, "two pods' first session", (*plain, *indices, 0, 0, 1)),
        _keys(draw, "features, later versions", (1, 3, 1, *plain[3:], *indices, 5, 4, 77)),
        _keys(draw, "least numbers", least),
        _keys(draw, "largest numbers", most),
    ]


def _keys(draw: random.Random, name: str, numbers: tuple[int, ...]) -> Case:
    certificates = (draw.randbytes(32), draw.randbytes(32))
    fields = dict(zip(ref.CONTEXT, numbers, strict=True))
    context = ref.context(fields, certificates)
    exports = {
        f"EXPORTER-tencrypt {label}": draw.randbytes(size)
        for label, size in (
            ("initiator record", 44),
            ("responder record", 44),
            ("initiator header", 32),
            ("responder header", 32),
            ("session id", 16),
        )
    }
    sealed_by = {
        role: {
            "key": exports[f"EXPORTER-tencrypt {role} record"][:32].hex(),
            "iv": exports[f"EXPORTER-tencrypt {role} record"][32:].hex(),
            "header_key": exports[f"EXPORTER-tencrypt {role} header"].hex(),
        }
        for role in ("initiator", "responder")
    }
    return {
        "name": name,
        "fields": fields,
        "certificates": [one.hex() for one in certificates],
        "context": context.hex(),
        "exports": {label: output.hex() for label, output in exports.items()},
        "sealed_by": sealed_by,
        "session_id": exports["EXPORTER-tencrypt session id"].hex(),
    }
