"""What two pods say to each other, one way for each protocol, and what a listener may see of it.

An exchange carries a canary in both directions where the protocol has two, and fails if anything
arrives changed: the payload, or the caller's address and port.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from socket import SOCK_DGRAM
from typing import Final, Literal, TypeAlias

from support.capture import LINK_KINDS, SESSION_PORT, Capture
from support.frames import kind_of, parse_packet
from support.namespaces import BRIDGE_IPV4, BRIDGE_IPV6, Pod
from support.processes import HarnessError
from support.servers import (
    ask,
    bound,
    connect_many,
    sctp_packet,
    send_raw,
    tcp_echo,
    udp_echo,
)

Family: TypeAlias = Literal["ipv4", "ipv6"]

FAMILIES: Final[tuple[Family, ...]] = ("ipv4", "ipv6")
SERVER_PORT: Final = 9000
CLIENT_PORT: Final = 9001
LARGEST_UDP: Final = 65_507  # an IPv4 datagram's most (RFC 791: 65,535 less two headers)
LARGEST_TUNNEL_MTU: Final = 1428  # 1,500 less IPv4, UDP and a record's header, prefix and tag
_FIRST_RECORD_TYPE: Final = 128


@dataclass(frozen=True)
class Exchange:
    """`run` talks; `kinds` are what a listener finds it in, `size` is what each direction takes."""

    name: str
    kinds: frozenset[str]
    run: Callable[[Pod, Pod, Family, bytes], None]
    size: int = 1
    answered: bool = True

    def canary(self, family: Family) -> bytes:
        """Give the text of 16 bytes at most (ping takes no more) that is this exchange's alone."""
        return f"canary {self.name} {family[-1]}".encode("ascii")


def address(pod: Pod, family: Family) -> str:
    """Give the pod's address of the family."""
    return pod.ipv4 if family == "ipv4" else pod.ipv6


def _tcp(client: Pod, server: Pod, family: Family, canary: bytes) -> None:
    there = (address(server, family), SERVER_PORT)
    with tcp_echo(server, *there) as callers:
        calling = connect_many(client, address(client, family), there, 1, canary)
        _same("callers", callers, calling)


def udp(client: Pod, server: Pod, family: Family, payload: bytes) -> None:
    """Send one UDP datagram there and back."""
    here, there = address(client, family), (address(server, family), SERVER_PORT)
    with udp_echo(server, *there) as callers, bound(client, here, SOCK_DGRAM, CLIENT_PORT) as own:
        _same("datagram", ask(own, there, payload), payload)
        _same("callers", callers, {(here, CLIENT_PORT)})


def _largest_udp(client: Pod, server: Pod, family: Family, canary: bytes) -> None:
    udp(client, server, family, (canary * LARGEST_UDP)[:LARGEST_UDP])


def _icmp(client: Pod, server: Pod, family: Family, canary: bytes) -> None:
    pattern = ("-p", canary.hex(), "-s", "64")
    source = ("-I", address(client, family))
    client.run(["ping", "-n", "-c1", "-W10", *pattern, *source, address(server, family)])


def _raw(protocol: int, wrap: Callable[[bytes], bytes]) -> Callable[..., None]:
    def run(client: Pod, server: Pod, family: Family, canary: bytes) -> None:
        payload = wrap(canary)
        arrived = send_raw(client, server, address(server, family), protocol, payload)
        _same("packet", arrived, (payload, address(client, family)))

    return run


def _same(what: str, arrived: object, sent: object) -> None:
    if arrived != sent:
        raise HarnessError(f"{what} arrived as {str(arrived)[:200]}, not as {str(sent)[:200]}")


ICMP_KINDS: Final = frozenset({"ICMP", "ICMPv6"})
EXCHANGES: Final = (
    Exchange("tcp", frozenset({"TCP"}), _tcp),
    Exchange("udp", frozenset({"UDP"}), udp),
    Exchange("large", frozenset({"UDP", "UDP fragment"}), _largest_udp, LARGEST_UDP),
    Exchange("icmp", ICMP_KINDS, _icmp),
    Exchange("253", frozenset({"protocol 253"}), _raw(253, bytes), answered=False),
    Exchange(
        "sctp", frozenset({"SCTP"}), _raw(132, lambda said: sctp_packet(1, 2, said)), answered=False
    ),
)


def sealed_bytes(capture: Capture, sender: Pod, receiver: Pod) -> int:
    """Count the bytes of records on their way, however many datagrams a capture shows as one.

    One session of a family carries packets of both.
    """
    ways = [(ip_address(address(sender, f)), ip_address(address(receiver, f))) for f in FAMILIES]
    return sum(
        len(datagram.payload)
        for datagram in capture.datagrams()
        if datagram.payload[:1] >= bytes((_FIRST_RECORD_TYPE,))
        and (datagram.packet.source, datagram.packet.destination) in ways
    )


def leaks(captures: Mapping[str, Capture], *texts: bytes) -> dict[str, object]:
    """Give, by point, all that pods said to each other outside sessions, and each text seen."""
    found: dict[str, object] = {}
    for point, capture in captures.items():
        plain = plain_kinds(capture)
        seen = [text for text in texts if capture.holding(text)]
        if plain or seen:
            found[point] = (plain, seen)
    return found


def plain_kinds(capture: Capture) -> Counter[str]:
    """Count, by kind, what pods said to each other outside sessions."""
    return Counter(kind for frame in capture.frames if (kind := _plain_kind(frame)))


def _plain_kind(frame: bytes) -> str | None:
    """Name what a frame shows; None for sessions, for links, and for what concerns the CA."""
    kind = kind_of(frame, SESSION_PORT)
    if kind.startswith("session ") or kind in LINK_KINDS:
        return None
    packet = parse_packet(frame) if kind != "malformed" else None
    ends = {str(packet.source), str(packet.destination)} if packet else set()
    return None if ends & {BRIDGE_IPV4, BRIDGE_IPV6} else kind
