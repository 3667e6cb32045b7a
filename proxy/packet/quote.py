"""Of which packet an ICMP error speaks: a peer may tell our kernel of what we sent to it, and of nothing else."""

from collections.abc import Container
from typing import Final

from proxy.packet.upper import ICMP, ICMPV6, WITH_PORTS, find_upper

_QUOTE_AT: Final = 8
_ERRORS_V4: Final = frozenset({3, 4, 5, 11, 12})
_FIRST_INFORMATIONAL_V6: Final = 128
_HEADER: Final = {4: 20, 6: 40}


def quotes_another(packet: memoryview, own: Container[bytes], peer: Container[bytes]) -> bool:
    """Say whether a parsed packet is an ICMP error about another packet than one from ``own`` to ``peer`` addresses.

    So is one that does not show which, and one in fragments: errors are never that large (RFC 1812 section 4.3.2.3, RFC
    4443 section 2.4).
    """
    is_v4 = packet[0] >> 4 == 4
    if (packet[9] if is_v4 else packet[6]) in WITH_PORTS:
        return False
    upper = find_upper(packet)
    if upper.protocol != (ICMP if is_v4 else ICMPV6) or upper.is_later or upper.at >= len(packet):
        return False
    kind = packet[upper.at]
    if kind not in _ERRORS_V4 if is_v4 else kind >= _FIRST_INFORMATIONAL_V6:
        return False
    quote = packet[upper.at + _QUOTE_AT :]
    version = 4 if is_v4 else 6
    if upper.fragment or len(quote) < _HEADER[version] or quote[0] >> 4 != version:
        return True
    ends = bytes(quote[12:20] if is_v4 else quote[8:40])
    half = len(ends) // 2
    return ends[:half] not in own or ends[half:] not in peer
