"""ICMP errors that arrive in clear: heard about what may be clear, and about nothing that is sealed."""

import socket
import struct
import subprocess
from dataclasses import replace
from ipaddress import ip_address

import pytest
from netns.test_interlock import BOTH, STRICT, listed
from support.netagent import FAMILY, OWN, PEER, PORT, UID, Pair, inside, udp

from proxy.netagent.drivers import apply, nft
from proxy.netagent.plan import plan
from proxy.packet.checksum import checksum

THERE = 4242


def port_unreachable(version: int, source_port: int) -> bytes:
    """Return the ICMP message that quotes a datagram of ours to ``THERE``, as its receiver would send it."""
    own, peer = ip_address(OWN[version]).packed, ip_address(PEER[version]).packed
    datagram = struct.pack("!4H", source_port, THERE, 8, 0)
    if version == 6:
        quote = struct.pack("!IHBB", 6 << 28, 8, socket.IPPROTO_UDP, 64) + own + peer + datagram
        return struct.pack("!BBHI", 1, 4, 0, 0) + quote  # the kernel fills in ICMPv6's checksum
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, socket.IPPROTO_UDP, 0, own, peer)
    message = struct.pack("!BBHI", 3, 3, 0, 0) + header + datagram
    return message[:2] + checksum(message).to_bytes(2, "big") + message[4:]


def hears(pair: Pair, version: int) -> bool:
    """Say whether a program that sent a datagram to the peer is told by a forged error that nobody took it."""
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    with inside(pair.b):
        forging = socket.socket(FAMILY[version], socket.SOCK_RAW, protocol)
        behind = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
    with (
        forging,
        behind,
        udp(pair.a, version, 0) as program,
        udp(pair.a, version, PORT, uid=UID) as daemon,
    ):
        program.connect((PEER[version], THERE))
        program.send(b"datagram")
        forging.sendto(port_unreachable(version, program.getsockname()[1]), (OWN[version], 0))
        behind.sendto(b"behind it", (OWN[version], PORT))
        assert daemon.recv(100) == b"behind it"
        program.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            program.recv(100)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:
            return False
        raise AssertionError("nobody sent that")


@BOTH
def test_an_error_in_clear_is_heard_about_what_is_listed_and_not_about_what_is_sealed(
    pair: Pair, version: int
) -> None:
    for known in (f"udp/{THERE}", f"udp/{THERE + 1}"):
        with inside(pair.a):
            apply.set_up(plan(replace(STRICT, clear_out=listed(version, known))))
        assert hears(pair, version) == (known == f"udp/{THERE}")


@BOTH
@pytest.mark.parametrize("strict", [True, False])
def test_a_router_outside_says_nothing_about_sealed_connections(
    pair: Pair, version: int, *, strict: bool
) -> None:
    """The peer is sealed, and the ranges are elsewhere: what comes from it in clear is not judged by its address."""
    with inside(pair.a):
        planned = plan(replace(STRICT, strict=strict, clear_out=listed(version, "tcp/1")))
        apply.set_up(planned)
        # Lead the peer into the tunnel, but leave its address out of the sets.
        nft.apply(f"flush set inet tencrypt inside{version}\n")
        if not strict:
            subprocess.run(
                [
                    "ip",
                    f"-{version}",
                    "route",
                    "add",
                    PEER[version],
                    "dev",
                    "tenc0",
                    "table",
                    "126",
                ],
                check=True,
            )
    assert not hears(pair, version)
