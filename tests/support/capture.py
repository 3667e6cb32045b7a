"""Listening as an attacker would: tcpdump at any interface of any namespace.

A capture proves something only if it is whole. So one starts when tcpdump says that it listens,
ends when a marker frame sent afterwards has reached the file, and is refused if the kernel
dropped anything. No `--immediate-mode`: libpcap then takes a 64 KB slot for every frame and the
buffer overflows; without it the marker reaches the file within tcpdump's one second.
"""

import os
import re
import socket
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from signal import SIGINT
from typing import Final, Self

from support.frames import (
    MARKER_ETHERTYPE,
    Datagram,
    FrameError,
    kind_of,
    parse_packet,
    parse_pcap,
)
from support.namespaces import BRIDGE, Fabric, Namespace
from support.processes import HarnessError

BUFFER_KIB: Final = 65536
MARKER_SECONDS: Final = 20.0
SESSION_PORT: Final = 15443
# What a link says by itself; the rest is what somebody said.
LINK_KINDS: Final = frozenset(
    {"ARP", "IGMP", "neighbour discovery", "multicast listener discovery"}
)


@dataclass(frozen=True)
class Capture:
    """All frames that passed one point, in order."""

    point: str
    frames: list[bytes] = field(repr=False)

    def holding(self, canary: bytes) -> list[bytes]:
        """Give the frames that hold `canary`, which must lie in one frame whole: repeat it."""
        return [frame for frame in self.frames if canary in frame]

    @cached_property
    def all_datagrams(self) -> list[Datagram]:
        """Every UDP datagram (the first fragment of a fragmented one)."""
        found = []
        for frame in self.frames:
            try:
                packet = parse_packet(frame)
            except FrameError:
                continue
            datagram = packet.udp() if packet else None
            if datagram:
                found.append(datagram)
        return found

    def datagrams(self, port: int = SESSION_PORT) -> list[Datagram]:
        """Give the UDP datagrams from and to `port`: those of sessions."""
        return [d for d in self.all_datagrams if d.source_port == d.destination_port == port]

    def kinds(self, session_port: int = SESSION_PORT) -> Counter[str]:
        """Count frames by what a listener sees in them; see `frames.kind_of`."""
        return Counter(kind_of(frame, session_port) for frame in self.frames)

    def said(self, session_port: int = SESSION_PORT) -> Counter[str]:
        """`kinds` less what links say by themselves."""
        kinds = self.kinds(session_port)
        return Counter({kind: n for kind, n in kinds.items() if kind not in LINK_KINDS})


class Tap:
    """One tcpdump at one interface."""

    def __init__(self, place: Namespace, interface: str) -> None:
        """Start it; it listens once `wait_until_listening` returned."""
        self.point = f"{place.label}:{interface}"
        self._place = place
        self._interface = interface
        serial = len(place.processes)
        self._file: Path = place.directory / f"{place.label}.{serial}.{interface}.pcap"
        self._marker = b"tencrypt capture ends here " + os.urandom(16)
        size = ("-s", "0", "-B", str(BUFFER_KIB))
        self._process = place.start(
            ["tcpdump", "-n", "-U", "-Z", "root", *size, "-i", interface, "-w", self._file]
        )

    def wait_until_listening(self) -> None:
        """Return when no later frame can be missed."""
        self._process.wait_until("listening", lambda: "listening on" in self._process.stderr)

    def send_marker(self) -> None:
        """Send the frame that ends the capture; others ignore its type."""
        with self._place.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((self._interface, MARKER_ETHERTYPE))
            own = raw.getsockname()[4]
            raw.send(own + own + MARKER_ETHERTYPE.to_bytes(2, "big") + self._marker)

    def stop(self) -> Capture:
        """End it after its marker; `HarnessError` if the kernel dropped frames."""
        with self._file.open("rb") as file:
            held = b""

            def marked() -> bool:
                nonlocal held
                held = held[-len(self._marker) :] + file.read()
                return self._marker in held

            self._process.wait_until("the marker was captured", marked, MARKER_SECONDS)
        self._process.stop(SIGINT)
        dropped = re.search(
            r"^(\d+) packets? dropped by kernel", self._process.stderr, re.MULTILINE
        )
        if dropped is None or int(dropped[1]):
            raise HarnessError(f"{self.point}: an incomplete capture: {self._process.describe()}")
        frames = parse_pcap(self._file.read_bytes())
        self._file.unlink()
        marker = MARKER_ETHERTYPE.to_bytes(2, "big")
        return Capture(self.point, [frame for frame in frames if frame[12:14] != marker])


class Taps:
    """Captures at several points over the same time; see `everywhere`."""

    def __init__(self, *points: tuple[Namespace, str]) -> None:
        """Listen at each interface; returns when all do."""
        self._taps = [Tap(place, interface) for place, interface in points]
        for tap in self._taps:
            tap.wait_until_listening()

    @classmethod
    def everywhere(cls, fabric: Fabric) -> Self:
        """Listen at the bridge and at both ends of each pod's veth pair."""
        pods = fabric.pods.values()
        return cls(
            (fabric.node, BRIDGE),
            *((fabric.node, pod.node_port) for pod in pods),
            *((pod, "eth0") for pod in pods),
        )

    def stop(self) -> dict[str, Capture]:
        """End all and give what each has captured, by point (`node:br0`, `nginx1:eth0`, ...)."""
        for tap in self._taps:
            tap.send_marker()
        return {tap.point: tap.stop() for tap in self._taps}
