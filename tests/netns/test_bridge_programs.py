"""Programs of a strict pod that would speak past Tencrypt by what sockets can be told; a pod without is the control."""

import contextlib
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

import pytest
from support.capture import SESSION_PORT, Capture, Taps
from support.exchanges import FAMILIES, Family, address, plain_kinds
from support.forge import udp_packet, udp_segment
from support.frames import kind_of
from support.mallory import ICMP, UDP, Stage, index_in, second_address, staged
from support.namespaces import Pod, family_of

from proxy.netagent.nft_text import BYPASS_MARK, CLEAR_MARK

PORT = 7006
OUTSIDE: Final = {"ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}
# linux/in.h, in6.h, seg6.h and if_ether.h; Python names none of these.
IP_UNICAST_IF, IPV6_UNICAST_IF, IPV6_TRANSPARENT = 50, 76, 75
LOOSE_SOURCE_ROUTE, SEGMENT_ROUTING, ETH_P_ALL = 131, 4, 3

DEVICE: Final = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
BROADCAST: Final = (socket.SOL_SOCKET, socket.SO_BROADCAST, 1)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged("dns") as made:
        yield made


Speak = Callable[[Pod, str, bytes], None]


def by(
    *options: tuple[int, int, Any], flags: int = 0, source: tuple[str | int, ...] | None = None
) -> Speak:
    """Send a datagram by a socket with these options, bound to `source`."""

    def speak(pod: Pod, there: str, text: bytes) -> None:
        with pod.socket(family_of(there), socket.SOCK_DGRAM) as program:
            for option in options:
                program.setsockopt(*option)
            if source is not None:
                program.bind(source)
            program.sendto(text, flags, (there, PORT))

    return speak


def by_interface(family: Family) -> Speak:
    """Name the interface by its index."""

    def speak(pod: Pod, there: str, text: bytes) -> None:
        index = socket.htonl(index_in(pod))
        option = (socket.IPPROTO_IP, IP_UNICAST_IF, index)
        if family == "ipv6":
            option = (socket.IPPROTO_IPV6, IPV6_UNICAST_IF, index)
        by(option)(pod, there, text)

    return speak


def by_session_port(pod: Pod, there: str, text: bytes) -> None:
    """Send from the session port of another address of the pod."""
    other = second_address(pod, "ipv6" if ":" in there else "ipv4")
    scope = (0, index_in(pod)) if ":" in other else ()
    by(DEVICE, source=(other, SESSION_PORT, *scope))(pod, there, text)


def by_raw_session_port(pod: Pod, there: str, text: bytes) -> None:
    """Send what looks as the daemon's own."""
    here = address(pod, "ipv6" if ":" in there else "ipv4")
    ends = (ip_address(here).packed, ip_address(there).packed)
    with pod.socket(family_of(there), socket.SOCK_RAW, UDP) as program:
        program.setsockopt(*DEVICE)
        program.sendto(udp_segment(*ends, (SESSION_PORT, SESSION_PORT), text), (there, 0))


def by_own_header(pod: Pod, there: str, text: bytes) -> None:
    """Write the IP header too."""
    packet = udp_packet(address(pod, "ipv6" if ":" in there else "ipv4"), there, PORT, text)
    with pod.socket(family_of(there), socket.SOCK_RAW, socket.IPPROTO_RAW) as program:
        program.setsockopt(*DEVICE)
        program.sendto(packet, (there, 0))


def by_mapped_address(pod: Pod, there: str, text: bytes) -> None:
    """Call an IPv4 address by a socket of IPv6."""
    by(DEVICE)(pod, f"::ffff:{there}", text)


def by_echo(pod: Pod, there: str, text: bytes) -> None:
    """Send an echo request."""
    kind = ICMP[len(ip_address(there).packed)]
    with pod.socket(family_of(there), socket.SOCK_RAW, kind) as program:
        program.setsockopt(*DEVICE)
        echo = 8 if kind == ICMP[4] else 128
        program.sendto(struct.pack("!BBHHH", echo, 0, 0, 0, 1) + text, (there, 0))


def by_source_route(pod: Pod, there: str, text: bytes) -> None:
    """Have a router outside, to whom anybody may speak, send it on (RFC 791; RFC 8754 section 2)."""
    if ":" not in there:
        hop = ip_address(OUTSIDE["ipv4"]).packed
        route = bytes((1, LOOSE_SOURCE_ROUTE, 7, 4)) + hop
        by((socket.IPPROTO_IP, socket.IP_OPTIONS, route))(pod, there, text)
        return
    segments = ip_address(there).packed + ip_address(OUTSIDE["ipv6"]).packed
    header = struct.pack("!6BH", 0, 4, SEGMENT_ROUTING, 1, 1, 0, 0) + segments
    by((socket.IPPROTO_IPV6, socket.IPV6_RTHDR, header))(pod, there, text)


def tricks(family: Family) -> dict[str, Speak]:
    mark = (socket.SOL_SOCKET, socket.SO_MARK)
    transparent = (socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
    if family == "ipv6":
        transparent = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    stranger = ("10.77.0.99" if family == "ipv4" else "fd77:7465:6e63::99", 0)
    found = {
        "nothing": by(),
        "the mark of a bypass": by((*mark, BYPASS_MARK)),
        "the mark of what is clear": by((*mark, CLEAR_MARK)),
        "the interface": by(DEVICE),
        "the interface's index": by_interface(family),
        "no router": by(flags=socket.MSG_DONTROUTE),
        "another's address": by(transparent, DEVICE, source=stranger),
        "the session port": by_session_port,
        "the session port, raw": by_raw_session_port,
        "a header of its own": by_own_header,
        "a source route": by_source_route,
        "an echo request": by_echo,
    }
    return found | ({"a mapped address": by_mapped_address} if family == "ipv4" else {})


def try_all(pod: Pod, ways: dict[str, Callable[[bytes], None]]) -> None:
    for name, speak in ways.items():
        with contextlib.suppress(OSError):  # what the kernel refuses
            speak(text_of(pod, name))


def text_of(pod: Pod, name: str) -> bytes:
    return f"{pod.label} by {name}.".encode("ascii")


def seen(capture: Capture, pod: Pod, names: Iterable[str]) -> set[str]:
    return {name for name in names if capture.holding(text_of(pod, name))}


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_that_a_socket_can_be_told_leads_past_the_tunnel_to_a_member(
    stage: Stage, family: Family
) -> None:
    plain, one = stage["plain"], stage["nginx1"]
    member, ways = address(stage["nginx2"], family), tricks(family)
    taps = Taps((plain, "eth0"), (one, "eth0"))
    for pod in (one, plain):
        try_all(pod, {name: partial(speak, pod, member) for name, speak in ways.items()})
    of_plain, of_one = taps.stop().values()
    assert seen(of_plain, plain, ways) == set(ways)
    assert seen(of_one, one, ways) == set()
    assert not plain_kinds(of_one)
    stage.talk(family)


GROUPS: Final = {
    "ipv4": ("224.0.0.1", "224.0.0.251", "239.1.1.1", "255.255.255.255", "10.77.0.255"),
    "ipv6": ("ff02::1", "ff02::fb", "ff05::2", "ff0e::1"),
}


def to_link(pod: Pod, there: str, text: bytes, *, port: int = PORT, own: int = 0) -> None:
    """Send to neighbours: a datagram to a group, to all, or to an address of the link."""
    with pod.socket(family_of(there), socket.SOCK_DGRAM) as program:
        program.setsockopt(*DEVICE)
        program.setsockopt(*BROADCAST)
        program.bind(("", own))
        program.sendto(text, (there, port))


def join(pod: Pod, group: str) -> socket.socket:
    """Join a group, which the kernel tells the neighbours."""
    program = pod.socket(family_of(group), socket.SOCK_DGRAM)
    index = index_in(pod)
    packed = ip_address(group).packed
    if len(packed) == 4:
        request = packed + bytes(4) + struct.pack("@i", index)
        program.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    else:
        request = packed + struct.pack("@i", index)
        program.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
    return program


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_leaves_for_groups_and_links_but_what_the_link_needs(
    stage: Stage, family: Family
) -> None:
    plain, one, two = stage["plain"], stage["nginx1"], stage["nginx2"]
    link = "169.254.9.9" if family == "ipv4" else second_address(two, "ipv6")
    if family == "ipv4":
        two.ip("addr replace 169.254.9.9/32 dev eth0\n")
        for pod in (plain, one):
            pod.ip("route replace 169.254.0.0/16 dev eth0\n")
    ways = (link, *GROUPS[family])
    lease = (
        (b"a lease, please", "255.255.255.255") if family == "ipv4" else (b"a lease", "ff02::1:2")
    )
    ports = {"port": 67, "own": 68} if family == "ipv4" else {"port": 547, "own": 546}
    taps = Taps((plain, "eth0"), (one, "eth0"))
    for pod in (one, plain):
        try_all(pod, {there: partial(to_link, pod, there) for there in ways})
    to_link(one, lease[1], lease[0], **ports)
    of_plain, of_one = taps.stop().values()
    assert seen(of_plain, plain, ways) == set(ways)
    assert seen(of_one, one, ways) == set()
    assert len(of_one.holding(lease[0])) == 1
    told = "IGMP" if family == "ipv4" else "multicast listener discovery"
    with stage.cluster.fabric.node.socket(socket.AF_PACKET, socket.SOCK_RAW) as bridge:
        bridge.bind((one.node_port, ETH_P_ALL))
        bridge.settimeout(10)
        with join(one, GROUPS[family][1]):
            while kind_of(bridge.recv(2000), SESSION_PORT) != told:
                pass
