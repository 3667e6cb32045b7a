"""The client and tests/vectors, both written from docs/protocol.md: they must read it alike."""

import json
from pathlib import Path
from typing import Final

import pytest
from independent.packets import packets_of
from independent.records import Direction, Dropped, Opened, Opener, Sealer
from independent.wire import PACKET, Record, WireError, parse
from support.tencrypt import Json

VECTORS: Final = Path(__file__).parent.parent / "vectors"
POD_MTU: Final = 1408  # of the pod in exchanges.json
SUPER_PACKETS: Final = ("segments;", "only of TCP and UDP", "no other flag")


def cases(name: str, *about: str) -> list[object]:
    """Give a file's cases, or those whose names begin with one of these words."""
    found = json.loads((VECTORS / f"{name}.json").read_text(encoding="ascii"))
    return [
        pytest.param(case, id=f"{number} {case['name']}")
        for number, case in enumerate(found)
        if case["name"].startswith(about or "")
    ]


def direction(keys: dict[str, str]) -> Direction:
    record, header = keys["key"] + keys["iv"], keys["header_key"]
    return Direction(keys["suite"], bytes.fromhex(record), bytes.fromhex(header))


def result(opener: Opener, datagram: str, now: float) -> str:
    """Take one datagram; give what the vectors call that."""
    try:
        record = parse(bytes.fromhex(datagram))
        assert isinstance(record, Record)
        opened = opener.open(record, now)
    except (WireError, Dropped):
        return "dropped"
    return "opened" if opened else "kept"


@pytest.mark.parametrize("case", cases("wire"))
def test_a_datagram_is_of_its_form_or_not(case: Json) -> None:
    datagram = bytes.fromhex(case["datagram"]) + bytes(case.get("then_zeros", 0))
    if "reason" in case:
        with pytest.raises(WireError):
            parse(datagram)
    else:
        read = parse(datagram)
        assert type(read).__name__.upper() == case["type"]
        assert read.encode() == datagram


@pytest.mark.parametrize("case", cases("records"))
def test_a_record_is_sealed_into_these_bytes(case: Json) -> None:
    sealer = Sealer(direction(case["keys"]), case["keys"]["index"], case["counter"] - 1)
    datagrams = sealer.seal(case["kind"], bytes.fromhex(case["body"]), case["largest_datagram"])
    assert [datagram.hex() for datagram in datagrams] == case["datagrams"]


@pytest.mark.parametrize("case", cases("refused"))
def test_a_receiver_takes_what_is_genuine_and_nothing_else(case: Json) -> None:
    opener = Opener(direction(case["keys"]))
    for step in case["steps"]:
        expected = step["result"] if step["result"] in ("kept", "opened") else "dropped"
        assert result(opener, step["datagram"], step["at_ms"] / 1000) in (
            expected,
            "kept" if step["result"] == "reassembly" else expected,  # a piece once more: no error
        )


@pytest.mark.parametrize("case", cases("exchanges", *SUPER_PACKETS))
def test_a_packet_in_a_super_packets_form_is_taken_or_malformed(case: Json) -> None:
    opener = Opener(direction(case["receiving"]))
    for number, step in enumerate(case["steps"]):
        opened: Opened | None = None
        for datagram in step["datagrams"]:
            record = parse(bytes.fromhex(datagram))
            assert isinstance(record, Record)
            opened = opener.open(record, float(number))
        assert opened is not None
        assert opened.kind == PACKET
        said = (opened.body, opened.flags, opened.segment_size, POD_MTU)
        if step.get("reason"):
            with pytest.raises(Dropped):
                packets_of(*said)
        else:
            assert packets_of(*said)
