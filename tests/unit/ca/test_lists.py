"""Rosters as bytes: what goes in comes out, bounds hold, and of all else only MessageError escapes."""

import contextlib
import json
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rosters import UNVOUCHED, make_roster

from ca.lists import (
    LARGEST_ENVELOPE,
    MOST_ENTRIES,
    Envelope,
    RosterEntry,
    encode_envelope,
    encode_roster,
    parse_envelope,
    parse_roster,
)
from ca.messages import MessageError

ROSTER = make_roster(1_700_000_000)
PAYLOAD = encode_roster(ROSTER)
ENVELOPE = Envelope(PAYLOAD, ("a chain", "of two"), b"a signature", UNVOUCHED)
ENTRY = ROSTER.entries[0]


def entries(count: int) -> tuple[RosterEntry, ...]:
    return tuple(
        RosterEntry(f"w{n}", "", (ip_address("10.0.0.0") + n,), 1_700_000_000) for n in range(count)
    )


def test_roster_gives_back_what_went_in() -> None:
    assert parse_roster(PAYLOAD) == ROSTER
    assert parse_roster(encode_roster(replace(ROSTER, entries=()))).entries == ()


def test_pod_whose_account_is_not_known_is_listed() -> None:
    entry = replace(ENTRY, service_account="")
    assert parse_roster(encode_roster(replace(ROSTER, entries=(entry,)))).entries == (entry,)


def test_envelope_gives_back_the_very_bytes_that_were_signed() -> None:
    assert parse_envelope(encode_envelope(ENVELOPE)) == ENVELOPE


def test_most_entries_with_short_names_fit() -> None:
    payload = encode_roster(replace(ROSTER, entries=entries(MOST_ENTRIES)))
    assert len(parse_roster(payload).entries) == MOST_ENTRIES
    assert len(encode_envelope(replace(ENVELOPE, payload=payload))) <= LARGEST_ENVELOPE


def test_more_entries_are_neither_written_nor_read() -> None:
    with pytest.raises(MessageError, match="at most 8192"):
        encode_roster(replace(ROSTER, entries=entries(MOST_ENTRIES + 1)))
    fields = json.loads(PAYLOAD)
    fields["entries"] = fields["entries"][:1] * (MOST_ENTRIES + 1)
    with pytest.raises(MessageError, match="at most 8192"):
        parse_roster(json.dumps(fields, separators=(",", ":")).encode()[:LARGEST_ENVELOPE])


def test_larger_envelope_is_neither_written_nor_read() -> None:
    with pytest.raises(MessageError, match="at most 1048576"):
        encode_envelope(replace(ENVELOPE, payload=bytes(LARGEST_ENVELOPE)))
    with pytest.raises(MessageError, match="more than 1048576 bytes"):
        parse_envelope(encode_envelope(ENVELOPE).ljust(LARGEST_ENVELOPE + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"trust_domain": "Shop"},
        {"namespace": "a/b"},
        {"version": 0},
        {"version": 1 << 63},
        {"version": True},
        {"version": 1.5},
        {"issued": -1},
        {"next": "1"},
        {"entries": {}},
        {"entries": [7]},
        {"more": 1},
    ],
    ids=str,
)
def test_payload_with_a_wrong_part_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        parse_roster(json.dumps(json.loads(PAYLOAD) | change).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"pod": "Web"},
        {"service_account": "a/b"},
        {"addresses": []},
        {"addresses": ["127.0.0.1"]},
        {"addresses": ["10.0.0.1", "10.0.0.1"]},
        {"addresses": [f"10.0.0.{n}" for n in range(1, 18)]},
        {"ends": 0},
        {"more": 1},
    ],
    ids=str,
)
def test_entry_with_a_wrong_part_is_refused(change: dict[str, object]) -> None:
    fields = json.loads(PAYLOAD)
    fields["entries"][1] |= change
    with pytest.raises(MessageError):
        parse_roster(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"payload": "ä"},
        {"payload": 1},
        {"chain": []},
        {"chain": ["x"] * 9},
        {"signature": ""},
        {"signature": "A" * 200},
        {"more": 1},
    ],
    ids=str,
)
def test_envelope_with_a_wrong_part_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        parse_envelope(json.dumps(json.loads(encode_envelope(ENVELOPE)) | change).encode())


GOOD = (PAYLOAD, encode_envelope(ENVELOPE))


@given(
    st.binary()
    | st.builds(
        lambda good, cut, noise: good[: cut % len(good)] + noise,
        st.sampled_from(GOOD),
        st.integers(0),
        st.binary(),
    )
)
def test_whatever_comes_only_message_error_escapes(data: bytes) -> None:
    for parse in (parse_roster, parse_envelope):
        with contextlib.suppress(MessageError):
            parse(data)
