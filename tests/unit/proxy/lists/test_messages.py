"""Bodies of LISTS records: what goes in comes out, and nothing else is read."""

import pytest

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.lists.messages import LARGEST_BODY, LARGEST_PIECE, Ask, Message, Part, Version, parse

LAST = (1 << 64) - 1
MESSAGES: list[Message] = [
    Version((7, 1_700_000_000)),
    Version((LAST, LAST)),
    Ask((7, 8), 1075),
    Part((7, 8), 1075, 2150, bytes(LARGEST_PIECE)),
    Part((7, 8), 0, 1, b"x"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_body_gives_back_what_went_in(message: Message) -> None:
    assert parse(message.encode()) == message


def test_bytes_of_version_are_those_of_the_protocol() -> None:
    assert Version((0x0102, 3)).encode().hex() == "0100000000000001020000000000000003"
    assert Ask((2, 3), 4).encode().hex() == "020000000000000002000000000000000300000004"
    assert Part((2, 3), 4, 6, b"xy").encode().hex() == (
        "030000000000000002000000000000000300000004000000067879"
    )


def test_largest_part_fits_every_path() -> None:
    assert len(Part((1, 1), 0, 1 << 20, bytes(LARGEST_PIECE)).encode()) == LARGEST_BODY == 1100


@pytest.mark.parametrize("message", MESSAGES[:3], ids=range(3))
def test_what_follows_is_ignored_where_the_length_is_known(message: Message) -> None:
    assert parse(message.encode() + b"later") == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * 40,
        b"\4" * 40,
        MESSAGES[0].encode()[:-1],
        MESSAGES[2].encode()[:-1],
        Part((1, 1), 0, 1, b"").encode(),
        Part((1, 1), 0, 1, b"xy").encode(),
        Part((1, 1), (1 << 32) - 1, (1 << 32) - 1, b"x").encode(),
        Part((1, 1), 0, 1 << 20, bytes(LARGEST_PIECE + 1)).encode(),
    ],
)
def test_anything_else_is_malformed(body: bytes) -> None:
    with pytest.raises(Dropped) as refused:
        parse(body)
    assert refused.value.reason is Drop.PACKET_MALFORMED
