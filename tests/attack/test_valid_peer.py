"""A pod of the project, with a good certificate, that seals what it must not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from socket import AF_INET, IPPROTO_IPIP, SOCK_DGRAM, SOCK_RAW

import pytest
from attack.conftest import Stage
from support import meters
from support.exchanges import SERVER_PORT
from support.forge import ip_packet, udp_segment
from support.namespaces import BRIDGE_IPV4, Pod
from support.rogue import PLAIN_PREFIX, Rogue
from support.servers import SOCKET_SECONDS, bound
from support.siege import Siege

from proxy.drops import Drop
from proxy.session.wire import LISTS, PONG, VERIFY

TIMES = 50
CANARY = b"the one good packet"
JUNK = b"a packet that nobody may have"
ICMP, ICMPV6, UDP, IPV6_IN_IPV4, GRE = 1, 58, 17, 41, 47
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
EMPTY_OPTIONS = bytes((1, 4, 0, 0, 0, 0))  # PadN (RFC 8200 4.2), after next header and length

Besiege = Callable[..., Siege]


def packed(text: str) -> bytes:
    return ip_address(text).packed


class Talk:
    """Inner packets of the rogue pod to the victim."""

    def __init__(self, rogue: Pod, victim: Pod, peer: Pod) -> None:
        self.rogue, self.victim, self.peer = rogue, victim, peer
        self.v4 = (packed(rogue.ipv4), packed(victim.ipv4))
        self.v6 = (packed(rogue.ipv6), packed(victim.ipv6))

    def udp(self, here: str | bytes, there: str | bytes, payload: bytes = JUNK) -> bytes:
        source, destination = (packed(a) if isinstance(a, str) else a for a in (here, there))
        segment = udp_segment(source, destination, (SERVER_PORT, SERVER_PORT), payload)
        return ip_packet(source, destination, UDP, segment)

    def v4_with(self, options: bytes) -> bytes:
        """A packet with IPv4 options, whose length is a multiple of 4."""
        body = udp_segment(*self.v4, (SERVER_PORT, SERVER_PORT), JUNK)
        whole = bytearray(ip_packet(*self.v4, UDP, options + body))
        whole[0] += len(options) // 4
        return bytes(whole)

    def v6_with(self, *headers: tuple[int, bytes], last: int, body: bytes) -> bytes:
        """A packet with extension headers: their own number, and what follows `next header`."""
        kinds = [kind for kind, _ in headers] + [last]
        chain = b"".join(
            bytes((following,)) + rest
            for following, (_, rest) in zip(kinds[1:], headers, strict=True)
        )
        return ip_packet(*self.v6, kinds[0], chain + body)


def foreign_sources(talk: Talk) -> Iterator[bytes]:
    victim, peer = talk.victim, talk.peer
    for here in (peer.ipv4, victim.ipv4, BRIDGE_IPV4, "127.0.0.1", "0.0.0.0", "224.0.0.1"):  # noqa: S104 - a source
        yield PLAIN_PREFIX + talk.udp(here, victim.ipv4)
    mapped = f"::ffff:{talk.rogue.ipv4}"
    for here in (peer.ipv6, victim.ipv6, mapped, "::1", "::", "fe80::1", "ff02::1"):
        yield PLAIN_PREFIX + talk.udp(here, victim.ipv6)


def foreign_destinations(talk: Talk) -> Iterator[bytes]:
    rogue, peer = talk.rogue, talk.peer
    everybody = ("10.77.0.255", "255.255.255.255", "224.0.0.1")
    for there in (peer.ipv4, rogue.ipv4, BRIDGE_IPV4, "127.0.0.1", "0.0.0.0", *everybody):  # noqa: S104 - a destination
        yield PLAIN_PREFIX + talk.udp(rogue.ipv4, there)
    mapped = f"::ffff:{talk.victim.ipv4}"
    for there in (peer.ipv6, rogue.ipv6, mapped, "::1", "::", "fe80::1", "ff02::1"):
        yield PLAIN_PREFIX + talk.udp(rogue.ipv6, there)


def malformed(talk: Talk) -> Iterator[bytes]:
    v4, v6 = talk.udp(*talk.v4), talk.udp(*talk.v6)
    # What stands in front: a lying segment size, an unknown flag, less than there must be.
    yield from (b"\0\0" + size.to_bytes(2, "big") + v4 for size in (1, 1448, 0xFFFF))
    yield from (b"\0" + bytes((reserved,)) + b"\0\0" + v4 for reserved in (2, 128, 255))
    yield from (b"\0\1" + size.to_bytes(2, "big") + v4 for size in (1448, 0xFFFF))
    # One segment, 129 segments, and no protocol that has them.
    large = talk.udp(*talk.v4, bytes(129))
    yield from (b"\0\1" + size.to_bytes(2, "big") + large for size in (129, 1))
    yield b"\0\1\0\x32" + ip_packet(*talk.v4, ICMP, bytes(200))
    yield bytes((PONG, 1, 0, 0))
    # VERIFY: no type, one that is none, families that are none, and each cut short.
    for body in (b"", b"\0" * 60, b"\6" * 60, b"\1\0" + bytes(60), b"\1\4" + bytes(60)):
        yield bytes((VERIFY, 0, 0, 0)) + body
    for kind in range(1, 6):
        yield bytes((VERIFY, 0, 0, 0, kind, 1)) + bytes(15)
    # LISTS: no type, one that is none, each cut short, a piece that is empty or too long.
    for body in (
        b"",
        b"\0" * 60,
        b"\4" * 60,
        b"\1" + bytes(15),
        b"\2" + bytes(19),
        b"\3" + bytes(24),
    ):
        yield bytes((LISTS, 0, 0, 0)) + body
    yield bytes((LISTS, 0, 0, 0, 3)) + bytes(24) + bytes(1200)
    yield from (bytes(size) for size in (1, 2, 3))
    # What is no packet.
    bodies = [b"", b"\x45", v4[:19], v6[:39], v4[:-1], v6[:-1], v4 + b"\0", v6 + b"\0"]
    bodies += [bytes((first,)) + v4[1:] for first in (0x05, 0x35, 0x55, 0x65, 0xF5)]
    bodies += [bytes((first,)) + v4[1:] for first in (0x40, 0x44)]
    bodies += [b"\x4f" + v4[1:20], b"\x45\0\0\0" + v4[4:]]
    bodies += [talk.v4_with(bytes((7, length, 0, 0))) for length in (0, 1)]
    options = (HOP_BY_HOP, b"\0" + EMPTY_OPTIONS)
    bodies += [talk.v6_with(*(options,) * 9, last=UDP, body=v6[40:])]
    bodies += [talk.v6_with(last=DESTINATION_OPTIONS, body=bytes(7))]
    yield from (PLAIN_PREFIX + body for body in bodies)


def forbidden(talk: Talk) -> Iterator[bytes]:
    route = (3, 4)  # length of the option and pointer, then one address would follow
    bodies = [
        *(talk.v4_with(bytes((option, *route, 0))) for option in (131, 137)),
        talk.v4_with(bytes((1, 131, *route))),
        ip_packet(*talk.v4, ICMP, bytes((5, 1, 0, 0)) + packed(talk.rogue.ipv4) + bytes(28)),
    ]
    options = b"\0" + EMPTY_OPTIONS
    first_fragment = bytes((0, 0, 0, 0, 0, 0, 7))
    for kind in range(133, 138):  # RFC 4861 section 4
        message = bytes((kind,)).ljust(24, b"\0")
        bodies += [
            ip_packet(*talk.v6, ICMPV6, message),
            talk.v6_with((HOP_BY_HOP, options), last=ICMPV6, body=message),
            talk.v6_with((DESTINATION_OPTIONS, options), last=ICMPV6, body=message),
            talk.v6_with((FRAGMENT, first_fragment), last=ICMPV6, body=message),
        ]
    bodies += [talk.v6_with((ROUTING, bytes(7)), last=UDP, body=talk.udp(*talk.v6)[40:])]
    yield from (PLAIN_PREFIX + body for body in bodies)


def unknown_kinds(talk: Talk) -> Iterator[bytes]:
    packet = talk.udp(*talk.v4)
    yield from (bytes((kind, 0, 0, 0)) + packet for kind in range(LISTS + 1, 256, 7))


FORMS: dict[Drop, Callable[[Talk], Iterator[bytes]]] = {
    Drop.FOREIGN_SOURCE: foreign_sources,
    Drop.FOREIGN_DESTINATION: foreign_destinations,
    Drop.PACKET_MALFORMED: malformed,
    Drop.PACKET_FORBIDDEN: forbidden,
    Drop.UNKNOWN_KIND: unknown_kinds,
}


@pytest.mark.parametrize("reason", FORMS, ids=str)
def test_what_a_valid_peer_must_not_seal_is_counted_by_its_reason_and_reaches_nobody(
    stage: Stage, besiege: Besiege, rogue: Rogue, reason: Drop
) -> None:
    victim = stage.pod("one")
    talk = Talk(stage.mallory, victim, stage.pod("two"))
    with ExitStack() as stack:
        applications = [
            stack.enter_context(bound(victim, address, SOCK_DGRAM, SERVER_PORT))
            for address in (victim.ipv4, victim.ipv6)
        ]
        siege = stack.enter_context(besiege())
        session = rogue.handshake(victim)
        for form in FORMS[reason](talk):
            records = (
                record for _ in range(TIMES * stage.factor) for record in rogue.seal(session, form)
            )
            siege.throw(records, [f"drop {reason}"], lambda one: rogue.send(session, one))

        good = [talk.udp(*way, CANARY) for way in (talk.v4, talk.v6)]
        for packet in good:
            rogue.send(session, *rogue.seal(session, PLAIN_PREFIX + packet))
        for application in applications:
            # The first that comes is the last that was sent: so nothing came before it.
            assert application.recv(1500) == CANARY
        assert packets_in(stage, siege) == len(good)


def packets_in(stage: Stage, siege: Siege) -> int:
    """Count what the victim's kernel was given of the rogue's latest session."""
    status = meters.status(siege.victim)
    name = stage.mallory.label
    return next(
        int(session["packets_in"])
        for session in status["sessions"]
        if session["peer"]["name"] == name
    )


def test_a_packet_in_a_packet_is_delivered_as_what_it_says_it_is_and_never_unwrapped(
    stage: Stage, besiege: Besiege, rogue: Rogue
) -> None:
    victim = stage.pod("one")
    talk = Talk(stage.mallory, victim, stage.pod("two"))
    junk = [
        talk.udp(talk.peer.ipv4, victim.ipv4),
        talk.udp(talk.peer.ipv6, victim.ipv6),
        talk.udp("127.0.0.1", "127.0.0.1"),
        bytes(64),
        b"",
    ]
    with (
        bound(victim, victim.ipv4, SOCK_DGRAM, SERVER_PORT) as application,
        victim.socket(AF_INET, SOCK_RAW, IPPROTO_IPIP) as raw,
        besiege() as siege,
    ):
        raw.settimeout(SOCKET_SECONDS)
        session = rogue.handshake(victim)
        for inner in junk:
            for protocol in (IPPROTO_IPIP, IPV6_IN_IPV4, GRE):
                body = bytes(4) * (protocol == GRE) + inner
                plain = PLAIN_PREFIX + ip_packet(*talk.v4, protocol, body)
                siege.thrown += rogue.send(session, *rogue.seal(session, plain))
            arrived, source = raw.recvfrom(1500)
            assert (arrived[20:], source[0]) == (inner, stage.mallory.ipv4)
        plain = PLAIN_PREFIX + talk.udp(*talk.v4, CANARY)
        rogue.send(session, *rogue.seal(session, plain))
        assert application.recv(1500) == CANARY
        assert packets_in(stage, siege) == siege.thrown + 1


def test_records_that_a_valid_peer_never_completes_cost_nothing(
    stage: Stage, besiege: Besiege, rogue: Rogue
) -> None:
    victim = stage.pod("one")
    talk = Talk(stage.mallory, victim, stage.pod("two"))
    big = PLAIN_PREFIX + talk.udp(*talk.v4, bytes(60_000))
    with bound(victim, victim.ipv4, SOCK_DGRAM, SERVER_PORT) as application, besiege() as siege:
        session = rogue.handshake(victim)

        def send(one: bytes) -> int:
            return rogue.send(session, one)

        def firsts(records: int, copies: int) -> Iterator[bytes]:
            return (one for _ in range(records) for one in rogue.seal(session, big)[:1] * copies)

        # First pieces only: each is taken, and given up for a later one. Nobody counts that.
        count = TIMES * stage.factor
        siege.thrown += siege.attacker.throw(firsts(20 * count, 1), send)
        # The same piece again contradicts the first.
        siege.thrown += siege.attacker.throw(firsts(count, 4), send) - 3 * count
        siege.settle(3 * count, 0, [f"drop {Drop.REASSEMBLY}"])
        plain = PLAIN_PREFIX + talk.udp(*talk.v4, CANARY)
        rogue.send(session, *rogue.seal(session, plain))
        assert application.recv(1500) == CANARY
