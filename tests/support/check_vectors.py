"""Checks of tests/vectors: one function a file, which raises AssertionError where the product does otherwise."""

import json
import random
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from support.arrivals import deliver, open_datagram
from support.pki import START, Authority, Leaf

from proxy.credentials.credential import Credential
from proxy.drops import Drops
from proxy.errors import Dropped
from proxy.inbound import Inbound
from proxy.packet.virtio import VNET_HEADER
from proxy.session.handshake import Initiator, Responder
from proxy.session.keys import DirectionKeys, SessionKeys, derive, export_context
from proxy.session.pair import Pair, pair_key
from proxy.session.path_size import PathSize
from proxy.session.pieces import SealingBuffer, datagrams, piece_size
from proxy.session.record import Opener, Sealer
from proxy.session.replay import ReplayWindow
from proxy.session.session import Session
from proxy.session.stream import INITIATOR_LIMIT, RESPONDER_LIMIT, InStream
from proxy.session.table import SessionTable
from proxy.session.wire import (
    CONFIRM,
    DONE,
    FLIGHT,
    PACKET,
    PING,
    PONG,
    RECORD,
    RECORD_STRUCT,
    Flight,
    FlightHeader,
    Hello,
    Hint,
    Retry,
    parse_handshake,
)

VECTORS: Final = Path(__file__).parents[1] / "vectors"
LARGEST: Final = 1452
PEER: Final = ("10.0.0.2", 15443)
ELSEWHERE: Final = ("10.0.0.66", 40_000)
CONTROL_NAMES: Final = {CONFIRM: "CONFIRM", PONG: "PONG"}
ROLES: Final = ("initiator", "responder")

Case = dict[str, Any]


def load(name: str) -> list[Case]:
    """Return a file's cases."""
    cases: list[Case] = json.loads((VECTORS / f"{name}.json").read_text(encoding="ascii"))
    return cases


def direction(keys: Case) -> DirectionKeys:
    key, iv, header_key = (bytes.fromhex(keys[name]) for name in ("key", "iv", "header_key"))
    return DirectionKeys(key, iv, header_key, keys["suite"])


def reason_of(check: Callable[[memoryview], object], data: bytes) -> str:
    try:
        check(memoryview(data))
    except Dropped as dropped:
        return dropped.reason
    return "taken"


def open_one(opener: Opener, data: bytes, now: float = 0.0) -> bytes:
    return open_datagram(opener, data, now)


def check_wire(case: Case) -> None:
    data = bytes.fromhex(case["datagram"]) + bytes(case["then_zeros"])
    is_record = data[:1] >= bytes((RECORD,))
    if "reason" in case:
        check = piece_size if is_record else parse_handshake
        assert reason_of(check, data) == case["reason"]
        return
    fields: Case = {
        k: bytes.fromhex(v) if isinstance(v, str) else v for k, v in case["fields"].items()
    }
    if case["type"] == "RECORD":
        piece_size(memoryview(data))
        names = ("segment", "length", "index", "counter", "token")
        expected = (RECORD + fields["n"] - 1, *(fields[name] for name in names))
        assert RECORD_STRUCT.unpack_from(data) == expected
        return
    cookie = fields["cookie"] if case["type"] == "FLIGHT" else b""
    message: Hello | Retry | Hint | Flight
    if case["type"] == "FLIGHT":
        rest = [fields.pop(name) for name in ("offset", "received", "tls")]
        message = Flight(FlightHeader(**fields), *rest)
        encoded = message.header.encode(*rest)
    else:
        plain = {"HELLO": Hello, "RETRY": Retry, "HINT": Hint}[case["type"]](**fields)
        message, encoded = plain, plain.encode()
    parsed = parse_handshake(memoryview(data))
    assert parsed == message
    assert encoded == data
    assert not isinstance(parsed, Flight) or parsed.header.cookie == cookie


def check_keys(case: Case) -> None:
    f = case["fields"]
    common = (f["initiator_id"], f["responder_id"], b"")
    offers = {name: f[name] for name in ("version", "newest", "oldest")}
    initiator = FlightHeader(f["initiator_index"], *common, f["generation"], f["offered"], **offers)
    responder = FlightHeader(f["responder_index"], *common, 0, f["chosen"], **offers)
    certificates = [bytes.fromhex(one) for one in case["certificates"]]
    context = export_context(initiator, responder, certificates)
    assert context.hex() == case["context"]

    def export(label: bytes, size: int, with_context: bytes) -> bytes:
        assert with_context == context
        output = bytes.fromhex(case["exports"][label.decode()])
        assert len(output) == size
        return output

    for role in ROLES:
        keys = derive(export, context, "TLS_AES_256_GCM_SHA384", initiator=role == "initiator")
        other = ROLES[role == "initiator"]
        for ours, sealed_by in ((keys.sending, role), (keys.receiving, other)):
            made = {name: getattr(ours, name).hex() for name in ("key", "iv", "header_key")}
            assert made == case["sealed_by"][sealed_by]
        assert keys.session_id.hex() == case["session_id"]


def check_records(case: Case) -> None:
    keys = direction(case["keys"])
    plain = bytes((case["kind"], 0, 0, 0)) + bytes.fromhex(case["body"])
    sealer = Sealer(keys, case["keys"]["index"], SealingBuffer())
    sealer.counter = case["counter"] - 1
    largest = case["largest_datagram"]
    wire = [bytes(one) for one in datagrams(sealer.seal(plain, largest), largest)]
    assert [one.hex() for one in wire] == case["datagrams"]
    for order in (wire, wire[::-1]):
        opener = Opener(keys)
        opened = [open_one(opener, one) for one in order]
        assert opened == [b""] * (len(wire) - 1) + [plain]


def check_refused(case: Case) -> None:
    opener = Opener(direction(case["keys"]))
    for step in case["steps"]:
        data, plain = bytes.fromhex(step["datagram"]), b""
        try:
            plain = open_one(opener, data, step["at_ms"] / 1000)
            result = "opened" if plain else "kept"
        except Dropped as dropped:
            result = dropped.reason
        assert (result, plain.hex()) == (step["result"], step.get("plain", ""))


def check_windows(case: Case) -> None:
    window = ReplayWindow()
    for step in case["steps"]:
        opens = window.is_fresh(step["counter"])
        assert opens == step["opens"]
        if opens:
            window.commit(step["counter"])


@cache
def credentials() -> tuple[Credential, Credential]:
    authority = Authority()
    ours = authority.issue(Leaf(pod="a", addresses=("10.0.0.1", "fd00::1")))
    return ours, authority.issue(Leaf(pod="b", addresses=("10.0.0.2", "fd00::2")))


def receiver(case: Case) -> tuple[SessionTable, Inbound, Drops, Session]:
    """A pod with one session that has the case's keys and state."""
    (ours, theirs), drops = credentials(), Drops()
    table = SessionTable(
        ours,
        PEER[1],
        random.Random(1).randbytes,
        drops,
        wall_offset=START.timestamp(),
        largest=LARGEST,
    )
    registry = table._registry
    session = Session(
        SessionKeys(direction(case["sending"]), direction(case["receiving"]), bytes(16)),
        theirs.own,
        (),
        index=case["receiving"]["index"],
        peer_index=case["sending"]["index"],
        endpoint=PEER,
        generation=1,
        group="",
        is_initiator=case["role"] == "initiator",
        now=0.0,
        ends=900.0,
        path=PathSize(LARGEST, 0.0),
        buffer=SealingBuffer(),
    )
    session.confirmed = case["confirmed"]
    pair = registry.pairs[pair_key(theirs.own)] = Pair()
    pair.sessions.append(session)
    table.sessions[session.index] = session
    if not case["confirmed"] and session.is_initiator:
        called = theirs.own.address_texts()[0].encode()
        registry.confirming[session.index] = Initiator(
            registry.new_tls(called, 0.0),
            PEER,
            called,
            handshake_id=1,
            index=session.index,
            generation=1,
            now=0.0,
        )
    elif not case["confirmed"]:
        registry.confirming[session.index] = Responder.answer(
            registry.new_tls(None, 0.0),
            PEER,
            FlightHeader(session.peer_index, 1, 0, bytes(20), 1),
            responder_id=1,
            index=session.index,
            now=0.0,
        )
    return table, Inbound(table, ours.own.addresses, drops, 1408), drops, session


def answers(table: SessionTable, opener: Opener) -> Case | None:
    """What went back, but for PINGs, which a session sends of its own."""
    found: list[Case] = []
    for data, endpoint in table.datagrams_to_send():
        if data[0] < RECORD:
            kind, body = "HINT", data
        else:
            plain = open_one(opener, data)
            if plain[0] == PING:
                continue
            kind, body = CONTROL_NAMES[plain[0]], plain[4:]
        to = "peer" if endpoint == PEER else "elsewhere"
        found.append({"kind": kind, "body": body.hex(), "to": [to]})
    if not found:
        return None
    assert all(one | {"to": []} == found[0] | {"to": []} for one in found)
    return found[0] | {"to": [to for one in found for to in one["to"]]}


def check_exchanges(case: Case) -> None:
    table, inbound, drops, session = receiver(case)
    opener = Opener(direction(case["sending"]))
    for step in case["steps"]:
        source = PEER if step["from"] == "peer" else ELSEWHERE
        before, delivered = drops.copy(), None
        for data in step["datagrams"]:
            frames = deliver(inbound, bytes.fromhex(data), source, 0.0)
            delivered = frames[0][VNET_HEADER:].hex() if frames else None
        assert delivered == step["delivered"]
        assert dict(drops - before) == ({step["reason"]: 1} if step["reason"] else {})
        assert answers(table, opener) == step["answer"]
    state = "open" if session.confirmed else "unconfirmed"
    assert (state if session.index in table.sessions else "closed") == case["after"]
    assert session.generation == case["generation"]


def check_handshake(case: Case) -> None:
    flights = _reassembled(case)
    leaves = [bytes.fromhex(case["certificates"][role]) for role in ROLES]
    headers = [
        next(one.header for one in flights[role] if one.tls and one.header.responder_id)
        for role in ROLES
    ]
    context = export_context(headers[0], headers[1], [sha256(one).digest() for one in leaves])
    assert context.hex() == case["context"]
    keys = derive(
        lambda label, _size, _context: bytes.fromhex(case["exports"][label.decode()]),
        context,
        case["suite"],
        initiator=True,
    )
    assert keys.session_id.hex() == case["session_id"]
    for role, ours, to in (
        ("initiator", keys.sending, headers[1].index),
        ("responder", keys.receiving, headers[0].index),
    ):
        said = [
            _opened_and_sealed_again(ours, to, one) for one in _sent(case, role) if one[0] >= RECORD
        ]
        assert [one[4:].hex() for one in said if one[0] == PACKET] == [case["packets"][role]]
        chosen = [int.from_bytes(one[4:], "big") for one in said if one[0] == DONE]
        assert chosen == ([case["generation"]] if role == "responder" else [])
        assert any(one[0] == CONFIRM for one in said) == (role == "initiator")


def _sent(case: Case, role: str) -> list[bytes]:
    return [bytes.fromhex(one["datagram"]) for one in case["datagrams"] if one["from"] == role]


def _reassembled(case: Case) -> dict[str, list[Flight]]:
    """Put both streams together as they arrived: each says what it has of the other."""
    streams = {"initiator": InStream(INITIATOR_LIMIT), "responder": InStream(RESPONDER_LIMIT)}
    flights: dict[str, list[Flight]] = {role: [] for role in ROLES}
    others = dict(zip(ROLES, ROLES[::-1], strict=True))
    for one in case["datagrams"]:
        data = bytes.fromhex(one["datagram"])
        role = one["from"]
        if data[0] != FLIGHT:
            continue
        flight = parse_handshake(memoryview(data))
        assert isinstance(flight, Flight)
        assert flight.header.encode(flight.offset, flight.received, flight.tls) == data
        assert flight.received <= streams[others[role]].received
        flights[role].append(flight)
        if not one["lost"]:
            streams[role].add(flight.offset, flight.tls)
    for role in ROLES:
        ends = {one.offset + len(one.tls) for one in flights[role]}
        assert streams[role].received == max(ends)
    return flights


def _opened_and_sealed_again(keys: DirectionKeys, index: int, data: bytes) -> bytes:
    plain = open_one(Opener(keys), data)
    sealer = Sealer(keys, index, SealingBuffer())
    sealer.counter = int.from_bytes(data[8:16], "big") - 1
    assert sealer.seal(plain, len(data)) == data
    return plain


CHECKERS: Final[dict[str, Callable[[Case], None]]] = {
    "wire": check_wire,
    "keys": check_keys,
    "records": check_records,
    "refused": check_refused,
    "windows": check_windows,
    "exchanges": check_exchanges,
    "handshake": check_handshake,
}
