"""Paths that real kernels make: narrow ones, marked ones, and source NAT that changes its mind."""

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
from support.capture import Taps
from support.exchanges import FAMILIES, SERVER_PORT, Family, address, udp
from support.namespaces import BRIDGE, BRIDGE_IPV4, Fabric, Pod
from support.processes import wait_for
from support.project import Project
from support.servers import bound, bulk_transfer, udp_echo

NARROW = 1300
DSCP_EF, ECT_0, CE = 46 << 2, 2, 3
NAT = "10.77.0.9"


@pytest.fixture
def project(fabric: Fabric) -> Project:
    made = Project(fabric)
    made.start()
    return made


def pods(project: Project) -> tuple[Pod, Pod]:
    return project.fabric["nginx1"], project.fabric["nginx2"]


def datagram_bytes(project: Project, pod: str) -> int:
    (session,) = project[pod].status()["sessions"]
    return int(session["datagram_bytes"])


@pytest.mark.parametrize("family", FAMILIES)
def test_megabytes_cross_a_path_that_became_narrow_and_tells_nobody(
    project: Project, family: Family
) -> None:
    one, two = pods(project)
    udp(one, two, family, b"hello")
    # The bridge drops what its port does not carry, without a word.
    for pod in (one, two):
        project.fabric.node.ip(f"link set {pod.node_port} mtu {NARROW}\n")
    sent, arrived = bulk_transfer(
        one, two, (address(two, family), SERVER_PORT), 3_000_000, b"canary"
    )
    assert sent == arrived
    headers = {"ipv4": 28, "ipv6": 48}
    # Which family carries a session is the first packet's choice.
    wait_for(
        "the path's size to be found",
        lambda: datagram_bytes(project, "nginx1") in range(NARROW - 64, NARROW - 27),
        timeout=30,
    )
    assert datagram_bytes(project, "nginx1") <= NARROW - headers[family]


def test_application_with_df_is_told_and_one_without_is_served(project: Project) -> None:
    one, two = pods(project)
    udp(one, two, "ipv4", b"hello")
    for pod in (one, two):
        project.fabric.node.ip(f"link set {pod.node_port} mtu {NARROW}\n")
    with (
        udp_echo(two, two.ipv4, SERVER_PORT),
        bound(one, one.ipv4, socket.SOCK_DGRAM, 0) as client,
    ):
        client.connect((two.ipv4, SERVER_PORT))
        client.settimeout(0.2)
        client.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO

        def comes_back() -> bool:
            client.send(bytes(1350))
            with contextlib.suppress(TimeoutError):
                return client.recv(2000) == bytes(1350)
            return False  # lost before both ends knew the path

        with pytest.raises(OSError, match="too long"):
            wait_for("a datagram that may not be fragmented", comes_back, timeout=30)
        client.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_PMTUDISC_DONT
        wait_for("a datagram that may", comes_back, timeout=30)
        assert project["nginx1"].status()["drops"]["too_big"]


def test_ecn_goes_outside_and_dscp_does_not(project: Project) -> None:
    one, two = pods(project)
    udp(one, two, "ipv4", b"hello")
    taps = Taps.everywhere(project.fabric)
    for family in FAMILIES:
        assert receive_tos(one, two, family, DSCP_EF | ECT_0) == DSCP_EF | ECT_0
    for capture in taps.stop().values():
        worn = {
            frame[15] for frame in capture.frames if frame[12:14] == b"\x08\0" and len(frame) > 200
        }
        assert worn <= {0, ECT_0}
        assert ECT_0 in worn


def test_mark_of_a_router_reaches_the_application(project: Project) -> None:
    one, two = pods(project)
    udp(one, two, "ipv4", b"hello")
    one.run(
        ["nft", "-f", "-"],
        stdin="""\
table inet congested { chain leaving { type filter hook postrouting priority 310
  udp sport 15443 ip ecn ect0 ip ecn set ce
  udp sport 15443 ip6 ecn ect0 ip6 ecn set ce
  }
}
""",
    )
    for family in FAMILIES:
        assert receive_tos(one, two, family, DSCP_EF | ECT_0) == DSCP_EF | CE


def receive_tos(one: Pod, two: Pod, family: Family, tos: int) -> int:
    """Send a datagram with a TOS or traffic class; the one that arrived."""
    level, kind, ask = {
        "ipv4": (socket.IPPROTO_IP, socket.IP_TOS, socket.IP_RECVTOS),
        "ipv6": (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS),
    }[family]
    here, there = address(one, family), address(two, family)
    with (
        bound(two, there, socket.SOCK_DGRAM, SERVER_PORT) as server,
        bound(one, here, socket.SOCK_DGRAM, 0) as client,
    ):
        server.setsockopt(level, ask, 1)
        client.setsockopt(level, kind, tos)
        client.sendto(b"marked" * 40, (there, SERVER_PORT))
        _, ancillary, _, _ = server.recvmsg(2000, 100)
    (value,) = (data for _, _, data in ancillary)
    return value[0] if len(value) == 1 else int(struct.unpack("i", value)[0])


@contextlib.contextmanager
def source_nat(fabric: Fabric, pod: Pod, other: Pod, *, hides: bool = True) -> Iterator[None]:
    """Make the node a router between two pods, with an address for `map_to` to put one behind.

    Where it hides the pod, the other does not reach the pod's session port past it.
    """
    node = fabric.node
    node.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
    for name in ("all", BRIDGE):
        node.run(["sh", "-c", f"echo 0 >/proc/sys/net/ipv4/conf/{name}/send_redirects"])
    node.ip(f"addr add {NAT}/32 dev {BRIDGE}\n")
    pod.ip(f"route add {other.ipv4}/32 via {BRIDGE_IPV4} dev eth0\n")
    if hides:
        node.run(
            ["nft", "-f", "-"],
            stdin=f"""\
table bridge hidden {{ chain arriving {{ type filter hook prerouting priority -400
  ip saddr {other.ipv4} ip daddr {pod.ipv4} udp dport 15443 drop
  }}
}}
""",
        )
    yield


def map_to(fabric: Fabric, pod: Pod, port: int) -> None:
    """Hide the pod's session port behind the NAT's address and `port` from now on: one mapping, no state."""
    fabric.node.run(
        ["nft", "-f", "-"],
        stdin=f"""table ip nat
delete table ip nat
table ip nat {{
  chain arriving {{
    type filter hook prerouting priority -300
    ip daddr {NAT} udp dport {port} udp dport set 15443 ip daddr set {pod.ipv4}
  }}
  chain leaving {{
    type filter hook postrouting priority 300
    ip saddr {pod.ipv4} udp dport 15443 udp sport set {port} ip saddr set {NAT}
  }}
}}
""",
    )


def test_pod_behind_source_nat_is_followed_when_its_mapping_changes(fabric: Fabric) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    with source_nat(fabric, one, two):
        map_to(fabric, one, 40_000)
        project = Project(fabric)
        project.start()
        udp(one, two, "ipv4", b"through NAT")
        (session,) = project["nginx2"].status()["sessions"]
        assert session["endpoint"] == f"{NAT}:40000"

        map_to(fabric, one, 40_001)
        with bound(one, one.ipv4, socket.SOCK_DGRAM, 0) as client:
            client.sendto(b"from elsewhere", (two.ipv4, SERVER_PORT))
        project["nginx2"].wait_for_event("session_moved")
        udp(two, one, "ipv4", b"found you")
        (moved,) = project["nginx2"].status()["sessions"]
        assert moved["endpoint"] == f"{NAT}:40001"
        assert moved["generation"] == session["generation"]
        assert moved["role"] == session["role"]


def test_pod_that_can_be_reached_past_its_nat_is_reached_where_its_certificate_says(
    fabric: Fabric,
) -> None:
    """As where a node masquerades what pods send: the mapping may end, the pod's address stays."""
    one, two = fabric["nginx1"], fabric["nginx2"]
    with source_nat(fabric, one, two, hides=False):
        map_to(fabric, one, 40_000)
        project = Project(fabric)
        project.start()
        udp(one, two, "ipv4", b"through NAT")
        project["nginx2"].wait_for_event("session_moved")
        udp(two, one, "ipv4", b"directly")
        (session,) = project["nginx2"].status()["sessions"]
        assert session["endpoint"] == f"{one.ipv4}:15443"
