"""Vectors of sections 7 and 8: what a session does with each kind of record: answers, deliveries, refusals."""

import random
from dataclasses import dataclass, field
from ipaddress import ip_address
from struct import pack
from typing import Final

from vectors import reference as ref
from vectors.records import Case, draw_keys, shown

PACKET, DONE, CONFIRM, CLOSE, PING, PONG = range(6)

HERE4, THERE4, OTHER4 = "10.0.0.1", "10.0.0.2", "10.0.0.3"
HERE6, THERE6 = "fd00::1", "fd00::2"
"""The receiver's own addresses and those that its peer's certificate names."""

NONCE: Final = bytes(range(0x50, 0x58))
_TCP, _UDP = 6, 17


@dataclass
class _Receiver:
    """One end of a session, its peer's keys, and what comes."""

    keys: ref.Keys
    answering: ref.Keys
    cases: list[Case] = field(default_factory=list)
    _steps: list[Case] = field(default_factory=list)
    _counter: int = 0

    def step(
        self,
        plain: bytes,
        *,
        n: int = 1,
        answer: tuple[str, bytes] | None = None,
        elsewhere: bool = False,
        both_ways: bool = False,
        delivered: bytes | None = None,
        reason: str | None = None,
    ) -> None:
        """Add a record of ``n`` datagrams with this plaintext (prefix and body) and what is to come of it."""
        self._counter += 1
        source = "elsewhere" if elsewhere else "peer"
        to = [source, "peer"] if both_ways else [source]
        self._steps.append(
            {
                "from": source,
                "datagrams": [one.hex() for one in ref.seal(self.keys, self._counter, plain, n)],
                "answer": answer and {"kind": answer[0], "body": answer[1].hex(), "to": to},
                "delivered": delivered and delivered.hex(),
                "reason": reason,
            }
        )

    def case(
        self, name: str, role: str, *, confirmed: bool, generation: int = 1, after: str = "open"
    ) -> None:
        """End a case: ``role`` is the receiver's in the handshake, ``confirmed`` its session's state at the start.

        The session's generation is 1 at the start, and ``generation`` at the end.
        """
        self.cases.append(
            {
                "name": name,
                "role": role,
                "confirmed": confirmed,
                "receiving": shown(self.keys),
                "sending": shown(self.answering),
                "steps": self._steps,
                "after": after,
                "generation": generation,
            }
        )
        self._steps, self._counter = [], 0


def exchanges(draw: random.Random) -> list[Case]:
    """Return records and what a session that begins anew does with each; PINGs of its own are not listed."""
    cases: list[Case] = []
    for suite in ref.SUITES:
        receiver = _Receiver(draw_keys(draw, suite), draw_keys(draw, suite))
        _confirmation(receiver)
        _control(receiver)
        _prefixes(receiver)
        _packets(receiver)
        _super_packets(receiver)
        _forbidden(receiver)
        cases += [{**case, "name": f"{case['name']}; {suite}"} for case in receiver.cases]
    return cases


def _plain(kind: int, body: bytes = b"", flags: int = 0, segment_size: int = 0) -> bytes:
    return pack(">BBH", kind, flags, segment_size) + body


def _done(generation: int) -> bytes:
    return _plain(DONE, pack(">Q", generation))


def _confirmation(one: _Receiver) -> None:
    confirm = ("CONFIRM", b"")
    packet = udp(THERE4, HERE4)
    last = (1 << 63) - 1
    for name, generation in (("", 2), (", the largest generation", last)):
        one.step(_done(generation), answer=confirm)
        one.case(f"DONE confirms{name}", "initiator", confirmed=False, generation=generation)
    one.step(_done(2), answer=confirm)
    one.step(_done(2), answer=confirm)
    one.step(_done(5), answer=confirm)
    one.case("each DONE is answered, the first chose", "initiator", confirmed=False, generation=2)
    one.step(_done(2) + b"more", answer=confirm)
    one.case("bytes after DONE's body are ignored", "initiator", confirmed=False, generation=2)
    for name, plain in (
        ("generation 0", _done(0)),
        ("generation 2^63", _done(last + 1)),
        ("generation 2^64 - 1", _done((1 << 64) - 1)),
        ("a DONE of 7 bytes", _plain(DONE, bytes(6) + b"\2")),
        ("PING before DONE", _plain(PING, NONCE)),
        ("CONFIRM before DONE", _plain(CONFIRM)),
        ("a packet before DONE", _plain(PACKET, packet)),
    ):
        one.step(plain, reason="generation")
        one.step(_done(2), answer=confirm)
        one.case(f"{name}, then a good DONE", "initiator", confirmed=False, generation=2)
    one.step(_done(2), elsewhere=True, reason="wrong_endpoint")
    one.case("DONE from elsewhere", "initiator", confirmed=False, after="unconfirmed")
    one.step(_plain(CONFIRM))
    one.case("CONFIRM confirms", "responder", confirmed=False)
    one.step(_plain(PACKET, packet), delivered=packet)
    one.case("a packet confirms", "responder", confirmed=False)
    one.step(_plain(CONFIRM), elsewhere=True, reason="wrong_endpoint")
    one.case("CONFIRM from elsewhere", "responder", confirmed=False, after="unconfirmed")


def _control(one: _Receiver) -> None:
    pong = ("PONG", NONCE + bytes(8))
    one.step(_plain(PING, NONCE), answer=pong)
    one.step(_plain(PING, NONCE + bytes(1400 - 8)), answer=pong)
    one.step(_plain(PING, NONCE), answer=pong, elsewhere=True, both_ways=True)
    one.case(
        "PING is answered to where it came from, and to the session's address",
        "responder",
        confirmed=True,
    )
    one.step(_plain(PONG, NONCE))
    one.step(_plain(CONFIRM))
    one.step(_plain(CONFIRM, b"more"))
    one.case("PONG and CONFIRM are not answered", "responder", confirmed=True)
    one.step(_plain(CONFIRM), reason="unknown_kind")
    one.case("CONFIRM is the initiator's to send", "initiator", confirmed=True)
    one.step(_done(9), reason="unknown_kind")
    one.case("DONE is the responder's to send", "responder", confirmed=True)
    for kind in (PING, PONG):
        one.step(_plain(kind, NONCE[:7]), reason="packet_malformed")
    one.case("PING and PONG have 8 bytes", "responder", confirmed=True)
    one.step(_done(9), answer=("CONFIRM", b""))
    one.case("a late DONE is answered and chooses nothing", "initiator", confirmed=True)
    one.step(_plain(8), reason="unknown_kind")
    one.step(_plain(255, b"later"), reason="unknown_kind")
    one.case("other kinds are ignored", "responder", confirmed=True)
    one.step(_plain(CLOSE))
    told = ref.hint(one.keys.index, 2)
    one.step(_plain(PING, NONCE), answer=("HINT", told), reason="unknown_index")
    one.case("CLOSE ends it", "responder", confirmed=True, after="closed")


def _prefixes(one: _Receiver) -> None:
    packet = udp(THERE4, HERE4)
    for kind, body in ((PING, NONCE), (CLOSE, b"")):
        one.step(_plain(kind, body, flags=1), reason="packet_malformed")
        one.step(_plain(kind, body, segment_size=1), reason="packet_malformed")
        one.step(_plain(kind, body, segment_size=0x100), reason="packet_malformed")
        one.case(f"kind {kind}: the prefix's other bytes are zero", "responder", confirmed=True)
    one.step(_plain(PACKET, packet, flags=2), reason="packet_malformed")
    one.step(_plain(PACKET, packet, flags=0x81), reason="packet_malformed")
    one.case("no other flag of a packet", "responder", confirmed=True)
    one.step(_plain(CONFIRM, segment_size=1), reason="packet_malformed")
    one.case("and confirm nothing", "responder", confirmed=False, after="unconfirmed")
    for size in (1, 2, 3):
        one.step(bytes(size), reason="packet_malformed")
    one.step(bytes(4), reason="packet_malformed")
    one.case("no prefix, and no packet", "responder", confirmed=True)
    for plain in (_plain(PING, NONCE), _done(2), _plain(CLOSE, b"x")):
        one.step(plain, n=2, reason="packet_malformed")
    one.case("control records of two datagrams", "responder", confirmed=True)


def _packets(one: _Receiver) -> None:
    for packet in (udp(THERE4, HERE4), udp(THERE6, HERE6), udp(THERE4, HERE4, bytes(1000))):
        one.step(_plain(PACKET, packet), delivered=packet)
        one.step(_plain(PACKET, packet), n=2, delivered=packet)
        one.step(_plain(PACKET, packet), elsewhere=True, delivered=packet)
    one.case("packets are delivered", "responder", confirmed=True)
    packet = udp(THERE4, HERE4)
    one.step(_plain(PACKET, udp(OTHER4, HERE4)), reason="foreign_source")
    one.step(_plain(PACKET, udp(HERE4, HERE4)), reason="foreign_source")
    one.step(_plain(PACKET, udp(THERE4, OTHER4)), reason="foreign_destination")
    one.step(_plain(PACKET, udp(THERE4, THERE4)), reason="foreign_destination")
    one.step(_plain(PACKET, packet[:-1]), reason="packet_malformed")
    one.step(_plain(PACKET, packet + b"\0"), reason="packet_malformed")
    one.step(_plain(PACKET, udp(THERE6, HERE6)[:-1]), reason="packet_malformed")
    one.step(_plain(PACKET, b"\x55" + packet[1:]), reason="packet_malformed")
    one.case("only the peer's, to us, whole", "responder", confirmed=True)


def _super_packets(one: _Receiver) -> None:
    for there, here, headers in ((THERE4, HERE4, 28), (THERE6, HERE6, 48)):
        packet = udp(there, here, bytes(3000))
        one.step(_plain(PACKET, udp(there, here), flags=1), delivered=udp(there, here))
        for size in (1408 - headers, 1500 - 28, 1500, 3000, 24, 23, 1):
            # 2 to 128 segments, each of which fits the receiver's MTU of 1,408 with its headers.
            good = 24 <= size <= 1408 - headers
            super_packet = _plain(PACKET, packet, 1, size)
            answer = {"delivered": packet} if good else {"reason": "packet_malformed"}
            one.step(super_packet, n=3, **answer)
        one.step(_plain(PACKET, packet, 0, 1000), n=3, reason="packet_malformed")
    one.case("segments", "responder", confirmed=True)
    for packet in (
        ipv4(1, b"\0\0" + bytes(98)),
        ipv4(_UDP, pack(">HHHH", 1, 2, 99, 0) + bytes(92)),
        ipv4(_TCP, bytes(12) + b"\x40" + bytes(87)),
        ipv4(_TCP, bytes(12) + b"\xf0" + bytes(30)),
        _fragment(udp(THERE4, HERE4, bytes(92)), 0x20, 0),
        _fragment(udp(THERE4, HERE4, bytes(92)), 0, 1),
        ipv6(60, bytes((_UDP, 0)) + bytes(6) + pack(">HHHH", 1, 2, 100, 0) + bytes(92)),
    ):
        one.step(_plain(PACKET, packet, 1), reason="packet_malformed")
        one.step(_plain(PACKET, packet, 1, 50), reason="packet_malformed")
    one.case("only of TCP and UDP right behind IP, whole", "responder", confirmed=True)


def _fragment(packet: bytes, high: int, low: int) -> bytes:
    return packet[:6] + bytes((high, low)) + packet[8:]


def _forbidden(one: _Receiver) -> None:
    for option in (131, 137):
        options = bytes((option, 7, 4)) + ip_address(OTHER4).packed + b"\0"
        one.step(_plain(PACKET, ipv4(_UDP, bytes(8), options)), reason="packet_forbidden")
    one.step(_plain(PACKET, ipv4(1, b"\5\0" + bytes(26))), reason="packet_forbidden")
    routing = bytes((_UDP, 2, 0, 1)) + bytes(20)
    one.step(_plain(PACKET, ipv6(43, routing)), reason="packet_forbidden")
    for kind in (133, 134, 135, 136, 137):
        body = bytes((kind, 0)) + bytes(22)
        one.step(_plain(PACKET, ipv6(58, body)), reason="packet_forbidden")
    one.case("nothing that steers a link", "responder", confirmed=True)


def udp(source: str, destination: str, payload: bytes = b"hello") -> bytes:
    """Return a whole packet with UDP inside; checksums are zero."""
    body = pack(">HHHH", 1000, 2000, 8 + len(payload), 0) + payload
    maker = ipv6 if ":" in source else ipv4
    return maker(_UDP, body, source=source, destination=destination)


def ipv4(
    protocol: int,
    body: bytes,
    options: bytes = b"",
    *,
    source: str = THERE4,
    destination: str = HERE4,
) -> bytes:
    """Return a whole IPv4 packet; checksums are zero."""
    header = 20 + len(options)
    head = pack(">BBHIBBH", 0x40 | header // 4, 0, header + len(body), 0, 64, protocol, 0)
    return head + ip_address(source).packed + ip_address(destination).packed + options + body


def ipv6(
    protocol: int,
    body: bytes,
    options: bytes = b"",
    *,
    source: str = THERE6,
    destination: str = HERE6,
) -> bytes:
    """Return a whole IPv6 packet, ``options`` being extension headers."""
    body = options + body
    head = pack(">IHBB", 6 << 28, len(body), protocol, 64)
    return head + ip_address(source).packed + ip_address(destination).packed + body
