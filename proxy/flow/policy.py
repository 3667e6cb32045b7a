"""What the rules say to a packet: only openings are judged, and answers to them pass.

A TCP segment that is no opening passes where either end could have opened its connection: nothing is remembered, so a
restart loses none, and rules that change cut at once. Of other protocols a table remembers what was opened.
"""

from collections import Counter
from typing import Final

from policy.identity import PodIdentity
from policy.rules import Rules
from proxy.packet import upper as up
from proxy.packet.upper import Upper, find_upper

MOST_FLOWS: Final = 16_384
UDP_IDLE: Final = 180.0
OTHER_IDLE: Final = 600.0
FRAGMENT_LIFE: Final = 30.0
"""Seconds (RFC 791 section 3.2 lets reassembly take as long)."""

MOST_FRAGMENTED: Final = 1024
MOST_AUDITED: Final = 1024
_MOST_DECIDED: Final = 16_384

# RFC 792, RFC 4443: what speaks of another packet, and answers to echo requests.
_ICMP_ERRORS: Final = frozenset({(up.ICMP, 3), (up.ICMP, 11), (up.ICMP, 12)}) | frozenset(
    (up.ICMPV6, kind) for kind in (1, 2, 3, 4)
)
_ECHO_REPLIES: Final = frozenset({(up.ICMP, 0), (up.ICMPV6, 129)})
_ECHO: Final = frozenset({(up.ICMP, 0), (up.ICMP, 8), (up.ICMPV6, 128), (up.ICMPV6, 129)})

Audited = tuple[str, str, int, int | None]
"""Out or in, the peer's SPIFFE id, protocol and destination port of what would have been refused."""


class Policy:
    """Rules as seen from one pod."""

    def __init__(self, own: PodIdentity, rules: Rules, *, enforce: bool) -> None:
        """Judge what ``own`` opens and what is opened to it."""
        self._own = own
        self.replace(rules, enforce=enforce)
        self.audited: Counter[Audited] = Counter()
        self._flows: dict[bytes, float] = {}
        self._fragments: dict[bytes, tuple[bool, float]] = {}

    def replace(self, rules: Rules, *, enforce: bool) -> None:
        """Judge by these rules from the next packet on."""
        self.rules, self.enforce = rules, enforce
        self.idle = not rules.count
        """Nothing is refused, so nobody needs to ask."""
        self._decided: dict[tuple[bool, PodIdentity, int, int | None], bool] = {}

    def outgoing(self, peer: PodIdentity, packet: memoryview, now: float) -> bool:
        """Say whether a parsed packet of ours may go to a peer."""
        return self._passes(peer, packet, now, outgoing=True)

    def incoming(self, peer: PodIdentity, packet: memoryview, now: float) -> bool:
        """Say whether a peer's parsed packet may come to us."""
        return self._passes(peer, packet, now, outgoing=False)

    def _passes(self, peer: PodIdentity, packet: memoryview, now: float, *, outgoing: bool) -> bool:
        upper = find_upper(packet)
        if upper.is_later:
            known = self._fragments.get(upper.fragment)
            return known is not None and known[0] and now < known[1]
        allowed, port = self._judge(peer, packet, upper, now, outgoing=outgoing)
        if not allowed and not self.enforce:
            key = ("out" if outgoing else "in", peer.uri, upper.protocol, port)
            if key in self.audited or len(self.audited) < MOST_AUDITED:
                self.audited[key] += 1
            allowed = True
        if upper.fragment:
            _make_room(self._fragments, MOST_FRAGMENTED)
            self._fragments[upper.fragment] = allowed, now + FRAGMENT_LIFE
        return allowed

    def _judge(
        self, peer: PodIdentity, packet: memoryview, upper: Upper, now: float, *, outgoing: bool
    ) -> tuple[bool, int | None]:
        """Say whether a packet with its header may pass, and to which port it goes."""
        protocol = upper.protocol
        if protocol not in up.WITH_PORTS:
            return self._judge_portless(peer, packet, upper, now, outgoing=outgoing), None
        ports = up.ports(packet, upper)
        if ports is None:
            return False, None
        if protocol == up.TCP:
            if upper.at + 14 > len(packet):
                return False, ports[1]
            flags = packet[upper.at + 13]
            opening = self._may(peer, protocol, ports[1], outgoing=outgoing)
            if opening or flags & up.RST:
                return True, ports[1]
            if flags & (up.SYN | up.ACK) == up.SYN:
                return False, ports[1]
            return self._may(peer, protocol, ports[0], outgoing=not outgoing), ports[1]
        name = bytes((protocol,)) + bytes(packet[upper.at : upper.at + 4])
        return self._judge_flow(peer, packet, name, ports[1], now, outgoing=outgoing), ports[1]

    def _judge_portless(
        self, peer: PodIdentity, packet: memoryview, upper: Upper, now: float, *, outgoing: bool
    ) -> bool:
        at, protocol = upper.at, upper.protocol
        kind = (protocol, packet[at]) if at < len(packet) else (protocol, -1)
        if kind in _ICMP_ERRORS:
            return True
        # An echo's identifier stands for both ports (RFC 792).
        identifier = bytes(packet[at + 4 : at + 6]) if kind in _ECHO else b""
        name = bytes((protocol,)) + identifier * 2
        is_answer = kind in _ECHO_REPLIES
        return self._judge_flow(
            peer, packet, name, None, now, outgoing=outgoing, is_answer=is_answer
        )

    def _judge_flow(  # noqa: PLR0913 - what makes a flow
        self,
        peer: PodIdentity,
        packet: memoryview,
        name: bytes,
        port: int | None,
        now: float,
        *,
        outgoing: bool,
        is_answer: bool = False,
    ) -> bool:
        """Let an opening pass where it may, and the answers to one."""
        source, destination = _addresses(packet)
        if not is_answer and self._may(peer, name[0], port, outgoing=outgoing):
            idle = UDP_IDLE if name[0] == up.UDP else OTHER_IDLE
            key = b"%d" % outgoing + name + source + destination
            if key not in self._flows:
                _make_room(self._flows, MOST_FLOWS)
            self._flows[key] = now + idle
            return True
        half = (len(name) - 1) // 2
        turned = name[:1] + name[1 + half :] + name[1 : 1 + half]
        return now < self._flows.get(b"%d" % (not outgoing) + turned + destination + source, 0.0)

    def _may(self, peer: PodIdentity, protocol: int, port: int | None, *, outgoing: bool) -> bool:
        """Say whether one end may open this to the other; remembered."""
        key = (outgoing, peer, protocol, port)
        decided = self._decided.get(key)
        if decided is None:
            if len(self._decided) >= _MOST_DECIDED:
                self._decided.clear()
            source, destination = (self._own, peer) if outgoing else (peer, self._own)
            decided = self.rules.decide(source, destination, protocol, port).allowed
            self._decided[key] = decided
        return decided


def _addresses(packet: memoryview) -> tuple[bytes, bytes]:
    if packet[0] >> 4 == 4:
        return bytes(packet[12:16]), bytes(packet[16:20])
    return bytes(packet[8:24]), bytes(packet[24:40])


def _make_room(table: dict[bytes, float] | dict[bytes, tuple[bool, float]], most: int) -> None:
    """Forget what was remembered first."""
    if len(table) >= most:
        del table[next(iter(table))]
