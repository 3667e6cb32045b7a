"""What the records of an answer say: addresses by the name that owns them, names of an address."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from proxy.dns import wire
from proxy.drops import Drop
from proxy.errors import Dropped

_MOST_READ: Final = 512
"""Answers whose reading is remembered: a busy name's is the same until its time is over."""

_LARGEST_READ: Final = 1232
"""Bytes of such an answer: what fits a datagram. 64 KB by TCP are the sender's choice, and would be our memory."""

_LONGEST_CHAIN: Final = 16
_MOST_RECORDS: Final = 512
"""In all sections. Counted before they are read: 64 KB of long names take more than half a second."""

Named = tuple[str, bytes, int]
"""The owner's name (lower case, without final dot), a packed address, and for how many seconds that is so."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The records that lie on the chain of aliases from the question."""

    addresses: tuple[Named, ...] = ()
    names: tuple[tuple[str, int], ...] = ()
    """What an address is called (PTR), and for how many seconds."""
    chain: tuple[str, ...] = ()
    """The question's name and what it is an alias of, in that order."""


def read_answer(data_untrusted: bytes) -> Answer:
    """Return what an answer says, whatever its id; raises `Dropped` (DNS_MALFORMED)."""
    read = _remembered if len(data_untrusted) <= _LARGEST_READ else _read
    return read(b"\0\0" + data_untrusted[2:])


def _read(data_untrusted: bytes) -> Answer:
    if wire.records(data_untrusted) > _MOST_RECORDS:
        raise Dropped(Drop.DNS_MALFORMED, "too many records")
    try:
        message = dns.message.from_wire(data_untrusted, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise Dropped(Drop.DNS_MALFORMED, type(error).__name__) from None
    if len(message.question) != 1:
        raise Dropped(Drop.DNS_MALFORMED, "not one question")
    chain = _chain(message)
    addresses, names = [], []
    for rrset in message.answer:
        if rrset.name not in chain:
            continue
        owner = _text(rrset.name)
        for record in rrset:
            if isinstance(record, A | AAAA):
                addresses.append((owner, _packed(record), rrset.ttl))
            elif isinstance(record, PTR):
                names.append((_text(record.target), rrset.ttl))
    return Answer(tuple(addresses), tuple(names), tuple(map(_text, chain)))


_remembered = lru_cache(maxsize=_MOST_READ)(_read)


def _chain(message: dns.message.Message) -> list[dns.name.Name]:
    """Return the question's name and all that it is an alias of, here."""
    aliases = {
        rrset.name: record.target
        for rrset in message.answer
        for record in rrset
        if isinstance(record, CNAME)
    }
    name = message.question[0].name
    chain = [name]
    for _ in range(_LONGEST_CHAIN):
        if name not in aliases:
            break
        name = aliases[name]
        chain.append(name)
    return chain


def _packed(record: A | AAAA) -> bytes:
    return record.to_wire() or b""


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
