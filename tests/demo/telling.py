"""How the story is told: headings, what the bridge saw, a table."""

import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Final

from support.capture import SESSION_PORT, Capture
from support.exchanges import plain_kinds
from support.frames import Packet, parse_packet
from support.tencrypt import Json

BOLD, GREEN, RED, DIM = "1", "32", "31", "2"
SHOWN_DATAGRAMS: Final = 3
SHOWN_BYTES: Final = 32
GIGABIT: Final = 1e9
_FIRST_RECORD: Final = 128


class StoryBrokenError(Exception):
    """What the demo promises did not happen."""


def heading(text: str) -> None:
    """Print a chapter's title."""
    say(f"\n{text}", BOLD)


def say(text: str, colour: str) -> None:
    """Print text, in colour where a person reads it."""
    print(f"\033[{colour}m{text}\033[0m" if sys.stdout.isatty() else text, flush=True)


def quote(text: str) -> None:
    """Print what a command printed."""
    for line in text.splitlines():
        say(f"     {line}", DIM)


def show_clear(capture: Capture, secret: str) -> None:
    """Print a request as the bridge saw it."""
    packets = [parse_packet(frame) for frame in capture.holding(secret.encode())]
    if not packets:
        raise StoryBrokenError("the bridge did not see the secret where it is in clear")
    print(f"   The bridge saw, in {len(packets)} packets that hold the secret:")
    for packet in packets[:1]:
        if packet:
            say(f"     {packet.source} -> {packet.destination}  TCP", BOLD)
            lines = _text(packet)
            for line in (lines[0], *(one for one in lines if secret in one)):
                say(f"       {line}", RED if secret in line else DIM)


def show_sealed(capture: Capture, *texts: bytes) -> None:
    """Print what the bridge saw instead; fail if it saw one of the texts, or anything of pods outside sessions."""
    for text in texts:
        if capture.holding(text):
            raise StoryBrokenError(f"{text!r} was seen on the bridge")
    others = {kind: n for kind, n in plain_kinds(capture).items() if kind != "UDP"}
    datagrams = [
        one
        for one in capture.all_datagrams
        if SESSION_PORT in {one.source_port, one.destination_port}
        and one.payload[0] >= _FIRST_RECORD
    ]
    if others or not datagrams:
        raise StoryBrokenError(f"the bridge saw {len(datagrams)} sealed records and {others}")
    print(f"   The bridge saw {len(datagrams)} sealed records, nothing of the request. The first:")
    for datagram in datagrams[:SHOWN_DATAGRAMS]:
        packet, size = datagram.packet, len(datagram.payload)
        where = f"{packet.source} -> {packet.destination}  UDP {datagram.destination_port}"
        say(f"     {where}, {size} bytes", BOLD)
        say(f"       {datagram.payload[:SHOWN_BYTES].hex(' ', 4)} ...", GREEN)


def show_table(status: Json, kinds: Counter[str], plain: float, protected: float) -> None:
    """Print who the peer is, what seals the packets, what was seen and what it costs."""
    session = next(s for s in status["sessions"] if s["state"] == "confirmed")
    until = datetime.fromtimestamp(session["peer_not_after"], UTC)
    seen = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common() if "session" in kind)
    rows = {
        "peer": f"{session['peer']['name']}, {session['peer']['identity']}",
        "its certificate": f"serial {session['peer_serial']}, until {until:%Y-%m-%d %H:%M} UTC",
        "cipher suite": session["cipher"],
        "key exchange": session["group"],
        "on the bridge": seen,
        "iperf3, plain bridge": f"{plain / GIGABIT:.2f} Gbit/s",
        "iperf3, Tencrypt": f"{protected / GIGABIT:.2f} Gbit/s",
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"   {name:<{width}}  {value}")


def _text(packet: Packet) -> list[str]:
    """Give the lines of text in a TCP segment (header length: RFC 9293 section 3.1)."""
    text = packet.payload[4 * (packet.payload[12] >> 4) :]
    return text.decode("ascii", "replace").strip().split("\r\n")
