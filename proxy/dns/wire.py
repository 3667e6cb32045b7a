"""Header and question of a DNS message (RFC 1035 section 4.1), which each query needs; records are dnspython's part.

0      2       4         6         8         10        12
| id    | flags | QDCOUNT | ANCOUNT | NSCOUNT | ARCOUNT | question: name, type, class | ...
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped

A, CNAME, PTR, AAAA, ANY = 1, 5, 12, 28, 255
IN: Final = 1
NOERROR, SERVFAIL = 0, 2

HEADER: Final = Struct("!6H")
_TYPE_CLASS: Final = Struct("!2H")
_ANSWER, _OPCODE, _RECURSE, _CAN_RECURSE, _RCODE = 0x8000, 0x7800, 0x0100, 0x0080, 0x000F
_TRUNCATED: Final = 0x0200
_LONGEST_LABEL: Final = 63
_LONGEST_NAME: Final = 255
"""Bytes of a name, its lengths and its closing zero included."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question: ``name`` in lower case, a dot inside a label escaped; ``question`` as it was sent."""

    id: int
    name: str
    type: int
    klass: int
    question: bytes


def parse_query(data_untrusted: bytes) -> Query:
    """Return what a client asks: one question of opcode QUERY; raises `Dropped` (DNS_MALFORMED)."""
    if len(data_untrusted) < HEADER.size:
        raise Dropped(Drop.DNS_MALFORMED, "shorter than a header")
    number, flags, questions, answers, _, _ = HEADER.unpack_from(data_untrusted)
    if flags & (_ANSWER | _OPCODE) or questions != 1 or answers:
        raise Dropped(Drop.DNS_MALFORMED, "not one question")
    name, end = _name(data_untrusted)
    if len(data_untrusted) < end + _TYPE_CLASS.size:
        raise Dropped(Drop.DNS_MALFORMED, "no type and class")
    kind, klass = _TYPE_CLASS.unpack_from(data_untrusted, end)
    question = data_untrusted[HEADER.size : end + _TYPE_CLASS.size]
    return Query(number, name, kind, klass, question)


def _name(data_untrusted: bytes) -> tuple[str, int]:
    """Return the question's name and where it ends; there is nothing before it that it could point to."""
    labels = list[str]()
    at = HEADER.size
    while True:
        if at >= len(data_untrusted) or at - HEADER.size >= _LONGEST_NAME:
            raise Dropped(Drop.DNS_MALFORMED, "a name without end")
        length = data_untrusted[at]
        at += 1
        if not length:
            return ".".join(labels), at
        if length > _LONGEST_LABEL or at + length > len(data_untrusted):
            raise Dropped(Drop.DNS_MALFORMED, "a label too long")
        label = data_untrusted[at : at + length].lower().decode("latin-1")
        labels.append(label.replace("\\", "\\\\").replace(".", "\\."))
        at += length


def matches(answer_untrusted: bytes, number: int, question: bytes) -> bool:
    """Say whether an answer is to this id and question, to the letter: case is part of what a forger must guess."""
    if len(answer_untrusted) < HEADER.size + len(question):
        return False
    theirs, flags, questions, _, _, _ = HEADER.unpack_from(answer_untrusted)
    if theirs != number or flags & (_ANSWER | _OPCODE) != _ANSWER or questions != 1:
        return False
    return answer_untrusted[HEADER.size : HEADER.size + len(question)] == question


def rcode(answer: bytes) -> int:
    """Return the response code of a message that is long enough to have one (without EDNS' upper bits)."""
    flags: int = HEADER.unpack_from(answer)[1]
    return flags & _RCODE


def records(data: bytes) -> int:
    """Return how many records a message says it has, in all sections; 0 for what is no message."""
    return sum(HEADER.unpack_from(data)[3:]) if len(data) >= HEADER.size else 0


def is_truncated(answer: bytes) -> bool:
    """Say whether an answer that `matches` bids the program come back by TCP (RFC 2181 section 9)."""
    flags: int = HEADER.unpack_from(answer)[1]
    return bool(flags & _TRUNCATED)


def without_records(answer: bytes, query: Query) -> bytes:
    """Return an answer that `matches` as far as its question."""
    number, flags, *_ = HEADER.unpack_from(answer)
    return HEADER.pack(number, flags, 1, 0, 0, 0) + query.question


def renumbered(data: bytes, number: int) -> bytes:
    """Return the message with another id."""
    return number.to_bytes(2, "big") + data[2:]


def refusal(query: Query, data: bytes) -> bytes:
    """Return the answer "server failure" to a client's query."""
    asked = HEADER.unpack_from(data)[1] & _RECURSE
    flags = _ANSWER | asked | _CAN_RECURSE | SERVFAIL
    return HEADER.pack(query.id, flags, 1, 0, 0, 0) + query.question


def make_query(number: int, name: str, kind: int) -> bytes:
    """Return a query of our own; raises ValueError for what is no name of letters, digits, hyphens and underscores."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    if not all(1 <= len(label) <= _LONGEST_LABEL for label in labels):
        raise ValueError(f"{name[:80]!r} is no domain name")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(wire) > _LONGEST_NAME:
        raise ValueError(f"{name[:80]!r} is too long for a domain name")
    return HEADER.pack(number, _RECURSE, 1, 0, 0, 0) + wire + _TYPE_CLASS.pack(kind, IN)


def reverse_name(address: bytes) -> str:
    """Return the name under which a packed address is looked up (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    if len(address) == 4:
        return ".".join(str(byte) for byte in reversed(address)) + ".in-addr.arpa"
    return ".".join(reversed(address.hex())) + ".ip6.arpa"
