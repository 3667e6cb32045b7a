"""Somebody on the bridge with raw sockets: sends frames from any address, as fast as one core can.

Frames leave in bursts of what the victim's socket holds for sure, and the next burst leaves when
that has been taken. So nothing is lost that a test must answer for, on a machine of any speed.
`throw_blindly` does not wait: then the socket overflows, and the kernel counts it.
"""

import random
import socket
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from pathlib import Path
from typing import Final

from support import meters
from support.capture import SESSION_PORT
from support.forge import hardware_address, ip_packet, udp_segment
from support.namespaces import Pod
from support.processes import wait_for
from support.tencrypt import Proxy

DRAIN_SECONDS: Final = 30.0
_ASKED_BUFFER: Final = 8 << 20  # proxy/drivers/udp.py
_COST: Final = 4352  # a full frame in a socket's queue: a page and the kernel's struct sk_buff
_UDP: Final = 17
_FIRST_V4: Final = int(IPv4Address("10.128.0.1"))
_FIRST_V6: Final = int(IPv6Address("fd99::1"))
Send = Callable[[bytes], int]
STRANGERS: Final = {4: "10.99.0.1", 6: "fd99::1"}
"""Sources outside all member prefixes, by IP version."""


def spoofed(version: int, count: int) -> Iterator[bytes]:
    """Give so many packed addresses outside the member prefixes; of IPv6, all of one /64.

    Off the link: neighbour discovery of each would fill a table that all namespaces share.
    """
    first, size = (_FIRST_V4, 4) if version == 4 else (_FIRST_V6, 16)
    return (number.to_bytes(size, "big") for number in range(first, first + count))


class Attacker:
    """Throws datagrams at one pod from `place`."""

    def __init__(self, place: Pod, victim: Proxy) -> None:
        """Open the raw socket; frames keep its own MAC address: the bridge learns nothing wrong."""
        self.victim = victim
        self._raw = place.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._raw.bind(("eth0", 0))
        macs = hardware_address(victim.pod, "eth0") + hardware_address(place, "eth0")
        self._heads = {4: macs + b"\x08\x00", 16: macs + b"\x86\xdd"}
        self._victims = {
            4: ip_address(victim.pod.ipv4).packed,
            16: ip_address(victim.pod.ipv6).packed,
        }
        held = min(_ASKED_BUFFER, int(Path("/proc/sys/net/core/rmem_max").read_text("ascii")))
        self._burst = max(1, held // _COST)  # the kernel doubles what is asked for: half is left

    def close(self) -> None:
        """Close the socket."""
        self._raw.close()

    def own(self, here: bytes) -> bytes:
        """Give the victim's packed address of the family of `here`."""
        return self._victims[len(here)]

    def datagram(self, source: str | bytes, payload: bytes, port: int = SESSION_PORT) -> bytes:
        """Make the frame of one UDP datagram to the session port."""
        here = ip_address(source).packed if isinstance(source, str) else source
        there = self.own(here)
        segment = udp_segment(here, there, (port, SESSION_PORT), payload)
        return self.packet(here, _UDP, segment)

    def packet(self, here: bytes, protocol: int, body: bytes, fragment: int = 0) -> bytes:
        """Make the frame of one IP packet; see `forge.ip_packet`."""
        there = self.own(here)
        return self._heads[len(here)] + ip_packet(here, there, protocol, body, fragment)

    def throw(self, frames: Iterable[bytes], send: Send | None = None) -> int:
        """Send all, burst after burst; how many there were. `send` in place of the raw socket's."""
        rest, thrown = iter(frames), 0
        while burst := list(islice(rest, self._burst)):
            thrown += self.throw_blindly(burst, send)
            wait_for("the victim to take a burst", self._taken, DRAIN_SECONDS)
        return thrown

    def throw_blindly(self, frames: Iterable[bytes], send: Send | None = None) -> int:
        """Send all without a pause; how many there were."""
        send = send or self._raw.send
        return sum(send(frame) > 0 for frame in frames)

    def _taken(self) -> bool:
        return not meters.waiting_bytes(self.victim, SESSION_PORT)


def flipped(chance: random.Random, data: bytes) -> bytes:
    """Change one bit."""
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)
