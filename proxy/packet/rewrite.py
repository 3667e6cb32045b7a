"""Another address and port for one end of a packet, in place, all checksums right (RFC 1624).

What is added to a checksum depends on the change alone, so a flow works it out once (`change`). A packet that was
damaged before stays so: nothing is computed anew.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.packet import crc32c
from proxy.packet.checksum import CHECKSUM_AT, add, fold
from proxy.packet.ip import IPV6_HEADER
from proxy.packet.upper import ICMPV6, SCTP, UDP, WITH_PORTS, Upper

SOURCE, DESTINATION = 0, 1

_WORD: Final = Struct(">H")
_IPV4_CHECKSUM: Final = 10
_ICMP_CHECKSUM: Final = 2
_SCTP_CHECKSUM: Final = 8


class End(NamedTuple):
    """One end of a flow: packed address, and port (0 where its protocol has none)."""

    address: bytes
    port: int


class Change(NamedTuple):
    """What becomes of the end on one ``side`` of a packet, and of sums over its address, and over its port."""

    side: int
    before: End
    after: End
    address_sum: int
    port_sum: int

    def undone(self) -> "Change":
        """Return the change back."""
        return change(self.side, self.after, self.before)


def change(side: int, before: End, after: End) -> Change:
    """Return the change of a flow's end on ``side``; both addresses are of one family."""
    addresses = _difference(add(before.address), add(after.address))
    return Change(side, before, after, addresses, _difference(before.port, after.port))


def rewrite(
    packet: memoryview, upper: Upper, changes: Iterable[Change], *, unfinished: bool = False
) -> None:
    """Apply ``changes`` to a parsed packet that has their ends; ``upper`` is what it carries.

    ``unfinished``: the TCP or UDP checksum holds the sum of the pseudo-header alone. Of a later fragment the addresses
    change. Raises `Dropped`: PACKET_MALFORMED for a first fragment without its checksum, PACKET_FORBIDDEN for one of
    SCTP whose port would change: its CRC depends on a length that is not known yet.
    """
    if not upper.is_later and _checksum_end(upper) > len(packet):
        raise Dropped(Drop.PACKET_MALFORMED, "no checksum in the packet, or in its first fragment")
    for one in changes:
        if upper.protocol == SCTP and upper.fragment and one.before.port != one.after.port:
            raise Dropped(Drop.PACKET_FORBIDDEN, "SCTP in fragments, to a Service of another port")
        _rewrite(packet, upper, one, unfinished=unfinished)


def rewrite_quoted(
    packet: memoryview,
    upper: Upper,
    quoted: Upper,
    outer: Iterable[Change],
    inner: Iterable[Change],
) -> None:
    """Apply ``outer`` to a parsed ICMP error (RFC 792, RFC 4443) and ``inner`` to the packet that it quotes.

    ``quoted`` is what the quote carries; of its checksums those change that were quoted.
    """
    quote = packet[upper.at + QUOTE_AT :]
    before = add(quote)
    for one in inner:
        _rewrite(quote, quoted, one, unfinished=False)
    where = upper.at + _ICMP_CHECKSUM
    _adjust(packet, where, _difference(before, add(quote)))
    rewrite(packet, upper, outer)


QUOTE_AT: Final = 8
"""Where an ICMP error's quote begins."""


def _rewrite(packet: memoryview, upper: Upper, one: Change, *, unfinished: bool) -> None:
    side, _, (address, port), address_sum, port_sum = one
    is_v4 = packet[0] >> 4 == 4
    if is_v4:
        at = 12 + 4 * side
        packet[at : at + 4] = address
        _adjust(packet, _IPV4_CHECKSUM, address_sum)
    else:
        at = 8 + 16 * side
        packet[at : at + 16] = address
    protocol = upper.protocol
    if upper.is_later or (is_v4 and protocol == ICMPV6):
        return
    covered = _checksum_end(upper) <= len(packet)
    if protocol in WITH_PORTS:
        if protocol == SCTP and covered:
            _adjust_sctp(packet, upper, one)
        _WORD.pack_into(packet, upper.at + 2 * side, port)
    if not covered or protocol not in _SUMMED:
        return
    where = upper.at + _SUMMED[protocol]
    if protocol == ICMPV6:
        _adjust(packet, where, address_sum)
    elif unfinished:
        _WORD.pack_into(packet, where, fold(_WORD.unpack_from(packet, where)[0] + address_sum))
    elif protocol != UDP:
        _adjust(packet, where, address_sum + port_sum)
    elif packet[where] or packet[where + 1]:  # UDP's zero says "none" (RFC 768)
        _adjust(packet, where, address_sum + port_sum, zero=0xFFFF)


_SUMMED: Final = CHECKSUM_AT | {ICMPV6: _ICMP_CHECKSUM}
"""Where the sum stands that covers a pseudo-header."""


def _checksum_end(upper: Upper) -> int:
    at = _SCTP_CHECKSUM + 2 if upper.protocol == SCTP else _SUMMED.get(upper.protocol, -2)
    return upper.at + at + 2


def _difference(before: int, after: int) -> int:
    return fold((~before & 0xFFFF) + after)


def _adjust(packet: memoryview, where: int, summed: int, *, zero: int = 0) -> None:
    # RFC 1624 equation 3: HC' = ~(~HC + ~m + m').
    before = ~_WORD.unpack_from(packet, where)[0] & 0xFFFF
    _WORD.pack_into(packet, where, ~fold(before + summed) & 0xFFFF or zero)


def _adjust_sctp(packet: memoryview, upper: Upper, one: Change) -> None:
    if one.before.port == one.after.port or upper.fragment:
        return
    bits = (one.before.port ^ one.after.port).to_bytes(2, "big")
    bits = bytes(2) + bits if one.side else bits + bytes(2)
    total = _WORD.unpack_from(packet, 2 if packet[0] >> 4 == 4 else 4)[0]
    size = total - upper.at + (0 if packet[0] >> 4 == 4 else IPV6_HEADER)
    if size <= 0:  # a quote's header may say anything
        return
    field = packet[upper.at + _SCTP_CHECKSUM :][:4]
    crc = int.from_bytes(field, "little") ^ crc32c.difference(bits, size)
    field[:] = crc.to_bytes(4, "little")
