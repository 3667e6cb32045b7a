"""What the tests of the independent client share: inner packets, and the real pod's view."""

import os
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

from independent.client import Client, Session
from independent.packets import unfinished
from independent.wire import PACKET, PING
from support.forge import udp_packet
from support.namespaces import Pod
from support.project import Project
from support.servers import bound, udp_echo
from support.tencrypt import Json

PORT = 9000
UDP_SEGMENT = 103  # linux/udp.h: the socket's option


def address(client: Client, version: int = 4) -> str:
    """Give the client's address of that IP version."""
    (found,) = [a for a in client.own.addresses if ip_address(a).version == version]
    return found


def packet_to(pod: Pod, client: Client, said: bytes) -> bytes:
    """Make the client's inner packet to the pod's application: IPv4, UDP."""
    return udp_packet(address(client), pod.ipv4, PORT, said)


def super_packet(pod: Pod, client: Client, said: bytes, version: int = 4) -> bytes:
    """Make a UDP packet of all that is said, its checksum not finished, from the client's address."""
    there = pod.ipv4 if version == 4 else pod.ipv6
    return unfinished(udp_packet(address(client, version), there, PORT, said))


def counts(client: Client, session: Session) -> tuple[int, int]:
    """Ask the pod how many records of several datagrams have opened, and were given up."""
    asked, known = os.urandom(8), len(session.pongs)
    client.send(session, PING, asked)
    client.wait_for("the PONG", lambda: any(b[:8] == asked for b in session.pongs[known:]))
    (answer,) = [body for body in session.pongs[known:] if body[:8] == asked]
    whole, given_up = struct.unpack("!II", answer[8:])
    return whole, given_up


def payload(packet: bytes) -> bytes:
    """Return what a UDP packet without options carries."""
    return packet[28:] if packet[0] >> 4 == 4 else packet[48:]


def heard(session: Session) -> list[bytes]:
    """Return the payloads that came over a session."""
    return [payload(packet) for packet in session.packets]


def pieces(said: bytes, size: int) -> list[bytes]:
    """Cut what is said as UDP_SEGMENT does."""
    return [said[at : at + size] for at in range(0, len(said), size)]


def send_until_heard(
    client: Client, session: Session, send: Callable[[], object], count: int, tries: int = 12
) -> None:
    """Send until so many packets have come of one time: pieces wait 20 ms, a busy machine longer."""
    for _ in range(tries):
        session.packets.clear()
        session.prefixes.clear()
        send()
        try:
            client.wait_for("the packets", lambda: len(session.packets) >= count, 0.5)
        except TimeoutError:
            continue
        return
    raise TimeoutError(f"{count} packets never came of one time")


def application(pod: Pod, version: int = 4) -> socket.socket:
    """Open a UDP socket in the real pod, as a program there that knows nothing of Tencrypt."""
    return bound(pod, pod.ipv4 if version == 4 else pod.ipv6, socket.SOCK_DGRAM, PORT)


def overheard(client: Client) -> list[bytes]:
    """Return what reaches the client from now on, as it grows."""
    kept: list[bytes] = []

    def takes(data: bytes) -> bool:
        kept.append(data)
        return True

    client.takes = takes
    return kept


def serve_until(client: Client, what: str, holds: Callable[[], bool]) -> None:
    """Serve between looks that take long, as each `tencrypt status` does."""
    for _ in range(40):
        client.listen(0.25)
        if holds():
            return
    raise TimeoutError(f"in vain for {what}")


def echo_over(client: Client, session: Session, pod: Pod, said: bytes) -> None:
    """Send a UDP packet to an echo server in the pod and expect it back over the session."""
    with udp_echo(pod, pod.ipv4, PORT) as callers:
        client.send(session, PACKET, packet_to(pod, client, said))
        client.wait_for("the echo", lambda: said in heard(session))
    assert callers == {(address(client), PORT)}


def sessions_with(project: Project, client: Client) -> list[Json]:
    """Return what the real pod's status says of its sessions with this client."""
    sessions: list[Json] = project["real"].status()["sessions"]
    return [s for s in sessions if s["peer"]["name"] == client.own.pod]


def drops(project: Project, reason: str) -> int:
    """Return how often the real pod has dropped something for this reason."""
    return int(project["real"].status()["drops"].get(reason, 0))


def logged(project: Project, name: str) -> list[Json]:
    """Return the events of that name that the real pod has logged."""
    return [event for event in project["real"].events() if event["event"] == name]
