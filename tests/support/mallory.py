"""Somebody on the bridge, root in a pod of her own: speaks with any address, and takes it from its neighbours."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self

from support.cluster import IN_CLUSTER, Cluster
from support.exchanges import Family, udp
from support.forge import hardware_address, internet_checksum, ip_packet, udp_segment
from support.namespaces import Fabric, Namespace, Pod
from support.processes import wait_for
from support.tencrypt import Setting

TCP, UDP, ODD = 6, 17, 253
ICMP: Final = {4: 1, 16: 58}
"""By the length of a packed address."""

_ECHO: Final = {4: 8, 16: 128}
_TYPE: Final = {4: 0x0800, 16: 0x86DD}
_NEIGHBOUR_ADVERTISEMENT, _OVERRIDE, _LINK_ADDRESS = 136, 0x20000000, 2
_PAUSE: Final = 0.05


class Mallory:
    """Sends frames from a pod; a context manager."""

    def __init__(self, pod: Pod) -> None:
        """Open the raw socket."""
        self.pod = pod
        self.mac = hardware_address(pod, "eth0")
        self._raw = pod.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._raw.bind(("eth0", 0))

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket."""
        self._raw.close()

    def throw(self, victim: Pod, source: str, destination: str, protocol: int, body: bytes) -> None:
        """Send one IP packet to the victim's interface; the frame's own source is the attacker's."""
        here, there = ip_address(source).packed, ip_address(destination).packed
        head = hardware_address(victim, "eth0") + self.mac + struct.pack("!H", _TYPE[len(here)])
        self._raw.send(head + ip_packet(here, there, protocol, body))

    def datagram(
        self, victim: Pod, ends: tuple[str, str], ports: tuple[int, int], payload: bytes
    ) -> None:
        """Send one UDP datagram from and to these addresses and ports."""
        here, there = (ip_address(end).packed for end in ends)
        self.throw(victim, *ends, UDP, udp_segment(here, there, ports, payload))

    @contextlib.contextmanager
    def taking(self, host: str, *victims: Pod) -> Iterator[None]:
        """Take an address: the victims' neighbour tables lead it here while the context lasts, and it is answered here.

        By ARP replies and neighbour advertisements (RFC 826, RFC 4861 section 4.4), again and again: its owner answers
        too.
        """
        taken = ip_address(host).packed
        length, nodad = (32, "") if len(taken) == 4 else (128, "nodad")
        frames = [self._claim(taken, victim) for victim in victims]
        stop = threading.Event()

        def claim() -> None:
            while not stop.wait(_PAUSE):
                for frame in frames:
                    self._raw.send(frame)

        self.pod.ip(f"addr add {host}/{length} dev eth0 {nodad}\n")
        thread = threading.Thread(target=claim)
        thread.start()
        try:
            for victim in victims:
                wait_for("the neighbour to believe", lambda v=victim: self._believed(v, host))  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
            yield
        finally:
            stop.set()
            thread.join()
            self.pod.ip(f"addr del {host}/{length} dev eth0\n")
            for victim in victims:
                victim.ip(f"neigh flush to {host} dev eth0\n")

    def _believed(self, victim: Namespace, host: str) -> bool:
        shown = victim.run(["ip", "neigh", "show", "to", host, "dev", "eth0"]).stdout
        if not shown:  # an entry is only changed, never made, by what nobody asked for
            victim.run(["ping", "-c1", "-W1", host], accept=(0, 1, 2))
        return self.mac.hex(":") in shown

    def _claim(self, taken: bytes, victim: Pod) -> bytes:
        theirs = hardware_address(victim, "eth0")
        if len(taken) == 4:
            told = ip_address(victim.ipv4).packed
            arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
            return theirs + self.mac + b"\x08\x06" + arp + self.mac + taken + theirs + told
        told = ip_address(victim.ipv6).packed
        option = bytes((_LINK_ADDRESS, 1)) + self.mac
        message = struct.pack("!BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE) + taken + option
        packet = bytearray(ip_packet(taken, told, ICMP[16], icmp(message, taken, told)))
        packet[7] = 255  # the hop limit: from a neighbour
        return theirs + self.mac + struct.pack("!H", _TYPE[16]) + bytes(packet)


def icmp(message: bytes, here: bytes, there: bytes) -> bytes:
    """Fill in the checksum of an ICMP or ICMPv6 message between two packed addresses."""
    pseudo = b"" if len(here) == 4 else here + there + struct.pack("!II", len(message), ICMP[16])
    return message[:2] + internet_checksum(pseudo + message).to_bytes(2, "big") + message[4:]


def plaintext(source: str, destination: str, port: int, text: bytes) -> Iterator[tuple[int, bytes]]:
    """Give protocol and body of a first packet of each kind: UDP, TCP, echo request, protocol 253."""
    here, there = ip_address(source).packed, ip_address(destination).packed
    yield UDP, udp_segment(here, there, (port, port), text)
    syn = struct.pack("!HHIIHHHH", port, port, 7, 0, 5 << 12 | 2, 65535, 0, 0)
    pseudo = here + there + struct.pack("!II", len(syn), TCP)
    yield TCP, syn[:16] + internet_checksum(pseudo + syn).to_bytes(2, "big") + syn[18:]
    echo = struct.pack("!BBHHH", _ECHO[len(here)], 0, 0, port, 1) + text
    yield ICMP[len(here)], icmp(echo, here, there)
    yield ODD, text


class Ears:
    """Raw sockets for each kind of plaintext at a pod: they hear all that its filter lets in, whoever it is for."""

    def __init__(self, pod: Pod) -> None:
        """Begin to listen."""
        kinds = (
            (socket.AF_INET, (ICMP[4], TCP, UDP, ODD)),
            (socket.AF_INET6, (ICMP[16], TCP, UDP, ODD)),
        )
        self._sockets = {
            (family, protocol): pod.socket(family, socket.SOCK_RAW, protocol)
            for family, protocols in kinds
            for protocol in protocols
        }
        for opened in self._sockets.values():
            opened.setblocking(False)  # noqa: FBT003 - the standard library's signature

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sockets."""
        for opened in self._sockets.values():
            opened.close()

    def heard(self, source: str, port: int, text: bytes) -> set[int]:
        """Give the protocols of the plaintext that came from an address since they were last asked."""
        found = set()
        for (family, protocol), opened in self._sockets.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, sender = opened.recvfrom(65535)
                    body = data[20:] if family is socket.AF_INET else data
                    mine = (
                        body[2:4] == port.to_bytes(2, "big")
                        if protocol in {TCP, UDP}
                        else text in body
                    )
                    if mine and sender[0] == source:
                        found.add(protocol)
        return found


KNOWN: Final[dict[str, tuple[dict[str, Setting], Sequence[Family]]]] = {
    "dns": ({}, ("ipv4", "ipv6")),
    "roster": ({"dns": "off", "resolvers": None, "roster": "on"}, ("ipv6", "ipv4")),
}
"""How pods know each other, without a list; and the family by which they talk first, which their session keeps."""


@dataclass(frozen=True)
class Stage:
    """`nginx1` and `nginx2` are protected and have a session; `plain` is not, and shows that an attack is one."""

    cluster: Cluster
    mallory: Mallory
    outer: Family

    def __getitem__(self, pod_name: str) -> Pod:
        """Give the pod of that name."""
        return self.cluster.fabric[pod_name]

    def talk(self, family: Family = "ipv4") -> None:
        """Have the two exchange a datagram."""
        udp(self["nginx1"], self["nginx2"], family, b"an honest word")

    def drops(self, pod_name: str) -> dict[str, int]:
        """Tell what a pod's daemon has refused, by reason."""
        found: dict[str, int] = self.cluster.project[pod_name].status()["drops"]
        return found


@contextlib.contextmanager
def staged(known: str) -> Iterator[Stage]:
    """Make a stage whose two pods know each other in one of the `KNOWN` ways."""
    settings, order = KNOWN[known]
    with Fabric("nginx1", "nginx2", "plain", "mallory") as fabric:
        cluster = Cluster(fabric, {**IN_CLUSTER, **settings})
        cluster.records = cluster.records[:2]  # the zone has the two alone
        cluster.serve_again()
        cluster.project.start("nginx1", "nginx2")
        if known == "roster":
            for name, other in (("nginx1", "nginx2"), ("nginx2", "nginx1")):
                wait_for(
                    "the roster",
                    lambda n=name, o=other: fabric[o].ipv4 in members(cluster, n),  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
                )
        with Mallory(fabric["mallory"]) as mallory:
            made = Stage(cluster, mallory, order[0])
            for family in order:
                made.talk(family)
            yield made


def members(cluster: Cluster, pod_name: str) -> dict[str, str]:
    """Tell whom a pod takes for a member, and why."""
    found: dict[str, str] = cluster.project[pod_name].status()["project"]["members"]
    return found


def second_address(pod: Pod, family: Family) -> str:
    """Give an address of eth0 that is not one of the project's: the link's of IPv6, one that is added of IPv4."""
    if family == "ipv4":
        extra = f"{pod.ipv4}0"
        pod.ip(f"addr replace {extra}/32 dev eth0\n")
        return extra
    shown = json.loads(pod.run(["ip", "-j", "addr", "show", "dev", "eth0"]).stdout)
    (link,) = (one["local"] for one in shown[0]["addr_info"] if one["scope"] == "link")
    return str(link)


def index_in(pod: Pod) -> int:
    """Give the index of the pod's eth0."""
    return pod.call(lambda: socket.if_nametoindex("eth0"))
