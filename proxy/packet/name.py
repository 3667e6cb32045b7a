"""Which flow a packet is of, as bytes: addresses, ports and protocol; and of an ICMP error, that of which it speaks.

    name = source address, destination address (4 or 16 bytes each), source port, destination port (2 each), protocol

An echo's identifier stands for the port of who asks (RFC 792); the other port is 0.
"""

from typing import Final

from proxy.packet.ip import IPV4_HEADER, IPV6_HEADER
from proxy.packet.rewrite import QUOTE_AT, End
from proxy.packet.upper import ICMP, ICMPV6, WITH_PORTS, Upper, find_upper

_ECHO_REQUESTS: Final = frozenset({(ICMP, 8), (ICMPV6, 128)})
_ECHO_REPLIES: Final = frozenset({(ICMP, 0), (ICMPV6, 129)})
_ERRORS: Final = frozenset({(ICMP, 3), (ICMP, 11), (ICMP, 12)}) | frozenset(
    (ICMPV6, kind) for kind in (1, 2, 3, 4)
)


def flow_name(packet: memoryview, upper: Upper) -> bytes | None:
    """Return the name of the flow of a parsed packet that is no later fragment; None where it is of none."""
    at, protocol = upper.at, upper.protocol
    if protocol in WITH_PORTS:
        ports = bytes(packet[at : at + 4])
    else:
        if protocol != (ICMP if packet[0] >> 4 == 4 else ICMPV6) or at >= len(packet):
            return None
        kind, identifier = (protocol, packet[at]), bytes(packet[at + 4 : at + 6])
        if kind in _ECHO_REQUESTS:
            ports = identifier + bytes(2)
        elif kind in _ECHO_REPLIES:
            ports = bytes(2) + identifier
        else:
            return None
    return b"%b%b%c" % (addresses(packet), ports, protocol) if len(ports) == 4 else None


def addresses(packet: memoryview) -> bytes:
    """Return source and destination of a parsed packet, with which its flow's name begins."""
    return bytes(packet[12:20] if packet[0] >> 4 == 4 else packet[8:40])


def ends(name: bytes) -> tuple[End, End, int]:
    """Return source, destination and protocol of a name."""
    size = (len(name) - 5) // 2
    source, destination, ports = name[:size], name[size:-5], name[-5:-1]
    return (
        End(source, int.from_bytes(ports[:2], "big")),
        End(destination, int.from_bytes(ports[2:], "big")),
        name[-1],
    )


def made_name(source: End, destination: End, protocol: int) -> bytes:
    """Return the name of a flow's packets from ``source`` to ``destination``."""
    ports = source.port << 16 | destination.port
    return source.address + destination.address + ports.to_bytes(4, "big") + bytes((protocol,))


def turned(name: bytes) -> bytes:
    """Return the name of the answers."""
    source, destination, protocol = ends(name)
    return made_name(destination, source, protocol)


def quoted(packet: memoryview, upper: Upper) -> tuple[bytes, Upper] | None:
    """Return name and upper layer of the packet that a parsed ICMP error quotes; None for any other packet.

    None too where the quote is too short to tell, or is a later fragment.
    """
    protocol, at = upper.protocol, upper.at
    is_v4 = packet[0] >> 4 == 4
    if protocol != (ICMP if is_v4 else ICMPV6) or len(packet) < at + QUOTE_AT + IPV4_HEADER:
        return None
    quote = packet[at + QUOTE_AT :]
    if (protocol, packet[at]) not in _ERRORS or quote[0] >> 4 != (4 if is_v4 else 6):
        return None
    if not is_v4 and len(quote) < IPV6_HEADER:
        return None
    if is_v4 and quote[0] & 15 < 5:
        return None
    try:
        inner = find_upper(quote)
    except IndexError:  # cut among IPv6's extension headers
        return None
    name = None if inner.is_later else flow_name(quote, inner)
    return None if name is None else (name, inner)
