"""What tells an application, or a peer's, at once that its packet was refused: TCP reset, or an ICMP error."""

from struct import Struct
from typing import Final

from proxy.packet.checksum import TCP, checksum
from proxy.packet.icmp import error_v4, error_v6, header_v4, header_v6
from proxy.packet.transport import find_transport
from proxy.packet.upper import ICMPV6, find_upper

_TCP_HEADER: Final = Struct(">HHIIBBHHH")
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


def refuse(packet: memoryview, *, prohibited: bool = True, passes: bool = False) -> bytes | None:
    """Return the packet that tells a parsed packet's sender, from its destination; None where none may be sent.

    TCP: a reset that the sender's kernel believes, for it fits the segment (RFC 9293 section 3.10.7.1); else ICMP
    "administratively prohibited", or "port unreachable" where nobody prohibits it (RFC 1812 section 5.2.7.1, RFC 4443
    section 3.1).

    Where the reason ``passes``, as a peer that starts anew, a connection that is open must not end by it: it hears that
    there is no way now, ICMP "host unreachable" or ICMPv6 "no route", which its kernel keeps as a soft error (RFC 1122
    section 4.2.3.9) and takes as leave to try again soon (RFC 6069).
    """
    transport = find_transport(packet)
    is_v4 = packet[0] >> 4 == 4
    if not is_v4 and _is_unanswerable_v6(packet):
        return None
    if transport is None or transport[0] != TCP:
        code_v4, code_v6 = (13, 1) if prohibited else (3, 4)
        return error_v4(packet, 3, code_v4) if is_v4 else error_v6(packet, 1, code_v6)
    _, at, payload = transport
    source, destination, sequence, acknowledged, _, flags, _, _, _ = _TCP_HEADER.unpack_from(
        packet, at
    )
    if flags & _RST:
        return None
    if passes and flags & (_SYN | _ACK) != _SYN:
        return error_v4(packet, 3, 1) if is_v4 else error_v6(packet, 1, 0)
    if flags & _ACK:
        numbers, answer = (acknowledged, 0), _RST
    else:
        length = len(packet) - payload + bool(flags & _SYN) + bool(flags & _FIN)
        numbers, answer = (0, (sequence + length) & 0xFFFFFFFF), _RST | _ACK
    tcp = bytearray(_TCP_HEADER.pack(destination, source, *numbers, 5 << 4, answer, 0, 0, 0))
    head = (header_v4 if is_v4 else header_v6)(packet, TCP, len(tcp))
    addresses = head[12:20] if is_v4 else head[8:40]
    pseudo = addresses + len(tcp).to_bytes(4, "big") + bytes((0, 0, 0, TCP))
    tcp[16:18] = checksum(pseudo + tcp).to_bytes(2, "big")
    return head + bytes(tcp)


def _is_unanswerable_v6(packet: memoryview) -> bool:
    """Say whether it is a later fragment, or an ICMPv6 error wherever extension headers put it (RFC 4443 2.4 (e))."""
    upper = find_upper(packet)
    is_error = upper.protocol == ICMPV6 and upper.at < len(packet) and packet[upper.at] < 128
    return upper.is_later or is_error
