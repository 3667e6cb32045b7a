"""Speaking as somebody else: frames with any source, and a pod that never stops talking."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from support.exchanges import SERVER_PORT
from support.namespaces import Namespace, Pod, family_of
from support.processes import HarnessError
from support.servers import SOCKET_SECONDS

CHATTER_PORT: Final = 9009
CHATTER_PAUSE: Final = 0.005
_ETHERTYPES: Final = {4: 0x0800, 6: 0x86DD}
_UDP: Final = 17


def hardware_address(place: Namespace, interface: str) -> bytes:
    """Give an interface's MAC address."""
    (link,) = json.loads(place.run(["ip", "-j", "link", "show", interface]).stdout)
    return bytes.fromhex(link["address"].replace(":", ""))


def send_forged_udp(
    place: Namespace, interface: str, source: str, receiver: Pod, payload: bytes
) -> None:
    """Send one plain UDP datagram to the pod's echo port that claims to come from `source`.

    The frame's own source stays the interface's: the bridge learns nothing wrong.
    """
    destination = receiver.ipv6 if ":" in source else receiver.ipv4
    packet = udp_packet(source, destination, SERVER_PORT, payload)
    macs = hardware_address(receiver, "eth0") + hardware_address(place, interface)
    ethertype = _ETHERTYPES[packet[0] >> 4].to_bytes(2, "big")
    with place.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        raw.send(macs + ethertype + packet)


def udp_packet(source: str, destination: str, port: int, payload: bytes) -> bytes:
    """Make an IP packet of one UDP datagram, from and to `port`, all checksums right."""
    here, there = ip_address(source).packed, ip_address(destination).packed
    return ip_packet(here, there, _UDP, udp_segment(here, there, (port, port), payload))


def udp_segment(here: bytes, there: bytes, ports: tuple[int, int], payload: bytes) -> bytes:
    """Make UDP header and payload between two packed addresses, its checksum right."""
    size = 8 + len(payload)
    datagram = struct.pack("!HHHH", *ports, size, 0) + payload
    checksum = internet_checksum(here + there + struct.pack("!II", size, _UDP) + datagram)
    return datagram[:6] + (checksum or 0xFFFF).to_bytes(2, "big") + payload


def ip_packet(here: bytes, there: bytes, protocol: int, body: bytes, fragment: int = 0) -> bytes:
    """Make an IPv4 or IPv6 packet between two packed addresses; `fragment` is IPv4's second word."""
    if len(here) == 16:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + here + there + body
    size = 20 + len(body)
    header = struct.pack("!BBHIBBH", 0x45, 0, size, fragment, 64, protocol, 0) + here + there
    return header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:] + body


def internet_checksum(data: bytes) -> int:
    """RFC 1071: the sum of 16-bit words with carries added back is the number modulo 65,535."""
    number = int.from_bytes(data + bytes(len(data) % 2), "big")
    return ~(number % 0xFFFF or (0xFFFF if number else 0)) & 0xFFFF


@contextlib.contextmanager
def chatter(one: Pod, two: Pod, canary: bytes) -> Iterator[None]:
    """Have both pods send to each other all the time: UDP, TCP and protocol 253, both families.

    What their kernels refuse to send is theirs to refuse. Each kind was tried at least once when
    the context begins, and is once more before it ends.
    """
    stop, begun = threading.Event(), threading.Event()
    with contextlib.ExitStack() as stack:
        ways = [
            (stack.enter_context(sender.socket(family_of(there), kind, protocol)), (there, port))
            for sender, receiver in ((one, two), (two, one))
            for there in (receiver.ipv4, receiver.ipv6)
            for kind, protocol, port in (
                (socket.SOCK_DGRAM, 0, CHATTER_PORT),
                (socket.SOCK_RAW, 253, 0),
            )
        ]

        def say_once() -> None:
            for speaking, where in ways:
                with contextlib.suppress(OSError):
                    speaking.sendto(canary, where)
            for sender, receiver in ((one, two), (two, one)):
                for there in (receiver.ipv4, receiver.ipv6):
                    _knock(sender, there)

        def talk() -> None:
            while not stop.wait(CHATTER_PAUSE):
                say_once()
                begun.set()
            say_once()

        thread = threading.Thread(target=talk)
        thread.start()
        try:
            if not begun.wait(SOCKET_SECONDS):
                raise HarnessError("the chatter did not begin")
            yield
        finally:
            stop.set()
            thread.join()


def _knock(sender: Pod, there: str) -> None:
    """Send a first TCP segment."""
    with sender.socket(family_of(there), socket.SOCK_STREAM) as knocking:
        knocking.setblocking(False)  # noqa: FBT003 - the standard library's signature
        with contextlib.suppress(OSError):
            knocking.connect((there, CHATTER_PORT))


def claim(attacker: Namespace, address: str, victim: Namespace, victim_address: str) -> None:
    """Tell a victim by ARP (RFC 826) that an IPv4 address is at the attacker's eth0."""
    here, there = hardware_address(attacker, "eth0"), hardware_address(victim, "eth0")
    ends = here + ip_address(address).packed + there + ip_address(victim_address).packed
    reply = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + ends
    with attacker.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(there + here + (0x0806).to_bytes(2, "big") + reply)
