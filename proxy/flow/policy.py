"""What the rules say to a packet: only openings are judged, and answers to them pass.

A TCP segment that is no opening passes where either end could have opened its connection: nothing is remembered, so a
restart loses none. Rules that change cut at once what neither end may open any more; a connection that was opened one
way lives on where the other way is still open. Of other protocols a table remembers what was opened, and the rules are
asked again whether it still may be.
"""

from collections import Counter, OrderedDict
from typing import Final, TypeVar

from policy.identity import PodIdentity
from policy.rules import Rules
from proxy.packet import upper as up
from proxy.packet.upper import Upper, find_upper

MOST_FLOWS: Final = 16_384
UDP_IDLE: Final = 180.0
OTHER_IDLE: Final = 600.0
"""Seconds without a packet, either way, after which a flow is forgotten."""

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

_Known = TypeVar("_Known")

Audited = tuple[str, str, int, int | None]
"""Out or in, the peer's SPIFFE id, protocol and destination port of what would have been refused."""


class Policy:
    """Rules as seen from one pod."""

    def __init__(self, own: PodIdentity, rules: Rules, *, enforce: bool) -> None:
        """Judge what ``own`` opens and what is opened to it."""
        self._own = own
        self.replace(rules, enforce=enforce)
        self.audited: Counter[Audited] = Counter()
        self._flows: OrderedDict[bytes, float] = OrderedDict()
        self._fragments: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()

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
            return not self.enforce or self._follows(upper.fragment, now)
        allowed, port = self._judge(peer, packet, upper, now, outgoing=outgoing)
        if not allowed and not self.enforce:
            key = _audited(peer, upper.protocol, port, outgoing=outgoing)
            if key in self.audited or len(self.audited) < MOST_AUDITED:
                self.audited[key] += 1
            allowed = True
        if upper.fragment:
            fate = allowed, now + FRAGMENT_LIFE
            _remember(self._fragments, upper.fragment, fate, MOST_FRAGMENTED)
        return allowed

    def _follows(self, fragment: bytes, now: float) -> bool:
        """Say whether a later fragment's first passed; one that comes before its first does not."""
        known = self._fragments.get(fragment)
        return known is not None and known[0] and now < known[1]

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
            return self._is_tcp_answer(peer, ports[0], outgoing=outgoing), ports[1]
        name = bytes((protocol,)) + bytes(packet[upper.at : upper.at + 4])
        return self._judge_flow(peer, packet, name, ports[1], now, outgoing=outgoing), ports[1]

    def _is_tcp_answer(self, peer: PodIdentity, port: int, *, outgoing: bool) -> bool:
        """Say whether the other end could have opened a connection to ``port``, from which a segment comes.

        In audit, one that was counted could: its answers are no openings of their own.
        """
        opener = not outgoing
        return self._may(peer, up.TCP, port, outgoing=opener) or (
            not self.enforce and _audited(peer, up.TCP, port, outgoing=opener) in self.audited
        )

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
        ends = now + (UDP_IDLE if name[0] == up.UDP else OTHER_IDLE)
        key = b"%d" % outgoing + name + source + destination
        if not is_answer and self._may(peer, name[0], port, outgoing=outgoing):
            _remember(self._flows, key, ends, MOST_FLOWS)
            return True
        half = (len(name) - 1) // 2
        turned = name[:1] + name[1 + half :] + name[1 : 1 + half]
        opened = b"%d" % (not outgoing) + turned + destination + source
        # What was opened is asked for again: rules may have changed, and an address may be another pod's now.
        opened_port = None if port is None else name[1] << 8 | name[2]
        if now < self._flows.get(opened, 0.0) and (
            not self.enforce or self._may(peer, name[0], opened_port, outgoing=not outgoing)
        ):
            _remember(self._flows, opened, ends, MOST_FLOWS)
            return True
        if not (self.enforce or is_answer):
            # It passes, so its answers will come, and are no openings of their own.
            _remember(self._flows, key, ends, MOST_FLOWS)
        return False

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


def _audited(peer: PodIdentity, protocol: int, port: int | None, *, outgoing: bool) -> Audited:
    return "out" if outgoing else "in", peer.uri, protocol, port


def _remember(table: OrderedDict[bytes, _Known], key: bytes, value: _Known, most: int) -> None:
    """Note what was seen now, and forget what was not seen for longest where there are more than ``most``."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
