"""What tells an application that its packet does not fit the path."""

from proxy.packet.icmp import IPV6_LEAST, error_v4, error_v6


def may_split(packet: memoryview) -> bool:
    """Say whether a packet may go as several datagrams: IPv4 without DF, IPv6 that nobody may ask to be smaller."""
    if packet[0] >> 4 == 4:
        return not packet[6] & 0x40
    return len(packet) <= IPV6_LEAST


def too_big(packet: memoryview, size: int) -> bytes | None:
    """Return the ICMP error for a parsed packet of which ``size`` bytes would fit (RFC 1191 4, RFC 4443 3.2).

    None where none may be sent.
    """
    if packet[0] >> 4 == 4:
        return error_v4(packet, 3, 4, size)
    return error_v6(packet, 2, 0, max(size, IPV6_LEAST))
