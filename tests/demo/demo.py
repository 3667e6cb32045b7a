"""The demo: a request that anybody on the bridge can read, and the same one that nobody can.

Run by `make demo`, as root. Exit codes: 0 the story held, 1 it did not, 130 interrupted.
"""

import secrets
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[1]))

# The tests' folder is on the path only now.
from support.capture import SESSION_PORT, Capture, Taps
from support.frames import Packet, parse_packet
from support.namespaces import BRIDGE, Fabric, Pod, clean_stale
from support.processes import HarnessError
from support.servers import iperf3, start_nginx
from support.tencrypt import Json, ProjectCA, Proxy

IPERF3_SECONDS = 3
SHOWN_DATAGRAMS = 4
SHOWN_BYTES = 32
GIGABIT = 1e9
BOLD, GREEN, RED, DIM = "1", "32", "31", "2"


class StoryBrokenError(Exception):
    """What the demo promises did not happen."""


def main() -> int:
    """Tell the story; everything it made is gone afterwards, however it ends."""
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        for left in clean_stale():
            say(f"Removed what an earlier run left: {left}", DIM)
        with Fabric("nginx1", "nginx2") as fabric:
            tell(fabric)
    except KeyboardInterrupt:
        print("\nInterrupted; everything is cleaned up.")
        return 130
    except (StoryBrokenError, HarnessError) as error:
        say(f"\nThe story did not hold: {error}", RED)
        for note in getattr(error, "__notes__", []):
            say(note, DIM)
        return 1
    return 0


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """End the story at the first signal; later ones must not disturb the cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def tell(fabric: Fabric) -> None:
    """Show the request in clear, start Tencrypt, show that it is gone, and what it costs."""
    one, two = fabric["nginx1"], fabric["nginx2"]
    secret = f"letmein-{secrets.token_hex(4)}"
    canary = secret.encode()
    started = time.monotonic()  # noqa: TID251 - the demo says how long it took

    heading("1. Two pods on a bridge, as a container runtime makes them")
    for pod in (one, two):
        print(f"   {pod.label}   eth0 {pod.ipv4}, {pod.ipv6}")
    start_nginx(two, secret)
    print(f"   nginx listens in {two.label}. Somebody captures on the bridge {BRIDGE}.")

    heading("2. Without Tencrypt")
    before = curl(fabric, one, two, secret)
    show_clear(before, canary)
    plain = iperf3(one, two, two.ipv4, IPERF3_SECONDS)

    heading("3. Tencrypt in both pods, certificates from the project's own CA")
    proxies = start_tencrypt(fabric, one, two)

    heading("4. The same request")
    after = curl(fabric, one, two, secret)
    show_sealed(after, canary)
    protected = iperf3(one, two, two.ipv4, IPERF3_SECONDS)

    heading("5. What protects it")
    show_table(proxies[0].status(), after.kinds(), plain, protected)
    for proxy in proxies:
        if proxy.stop() != 0:
            raise StoryBrokenError(f"{proxy.pod.label}: the orderly stop failed")
    seconds = time.monotonic() - started  # noqa: TID251 - as above
    say(f"\nNothing of the request was on the bridge. {seconds:.0f} s.", GREEN)


def curl(fabric: Fabric, client: Pod, server: Pod, secret: str) -> Capture:
    """Make the request; what passed the bridge meanwhile."""
    words = ["curl", "-sS", "-I", "--max-time", "10", "-H", f"Authorization: Bearer {secret}"]
    taps = Taps((fabric.node, BRIDGE))
    answer = client.run([*words, f"http://{server.ipv4}/"]).stdout
    (capture,) = taps.stop().values()
    print(f"   {client.label}$ curl -I -H 'Authorization: Bearer {secret}' http://{server.ipv4}/")
    for line in answer.splitlines()[:2]:
        say(f"   {line}", DIM)
    if not answer.startswith("HTTP/1.1 200") or secret not in answer:
        raise StoryBrokenError(f"nginx did not answer: {answer!r}")
    return capture


def show_clear(capture: Capture, canary: bytes) -> None:
    """Print the request as the bridge saw it."""
    packets = [parse_packet(frame) for frame in capture.holding(canary)]
    directions = {packet.source for packet in packets if packet}
    if len(directions) != 2:
        raise StoryBrokenError("the capture without Tencrypt does not hold request and answer")
    print(f"   The bridge saw, in {len(packets)} packets that hold the secret:")
    for packet in packets:
        if packet:
            say(f"     {packet.source} -> {packet.destination}  TCP", BOLD)
            for line in tcp_text(packet):
                say(f"       {line}", RED if canary.decode() in line else DIM)


def tcp_text(packet: Packet) -> list[str]:
    """Give the lines of text in a TCP segment (header length: RFC 9293 section 3.1)."""
    text = packet.payload[4 * (packet.payload[12] >> 4) :]
    return text.decode("ascii", "replace").strip().split("\r\n")


def start_tencrypt(fabric: Fabric, *pods: Pod) -> list[Proxy]:
    """Make the CA, give each pod a token, and run Tencrypt in each."""
    ca = ProjectCA(fabric)
    print(f"   CA of {ca.trust_domain} at {ca.address}\n   root {ca.fingerprint}")
    members = [address for pod in pods for address in (pod.ipv4, pod.ipv6)]
    proxies = [Proxy(pod, ca, members) for pod in pods]
    for proxy in proxies:
        proxy.start_and_wait()
        print(f"   {proxy.pod.label}$ tencrypt run --config {proxy.configuration.name}   ready")
    return proxies


def show_sealed(capture: Capture, canary: bytes) -> None:
    """Print what the bridge saw instead; fail if it saw anything else than sessions."""
    others = [kind for kind in capture.said() if not kind.startswith("session ")]
    records = capture.kinds()["session RECORD"]
    for text in (canary, b"HTTP/", b"nginx"):
        if capture.holding(text):
            raise StoryBrokenError(f"{text!r} was seen on the bridge")
    if others or not records:
        raise StoryBrokenError(f"the bridge saw {records} sealed records and {others}")
    datagrams = [d for d in capture.datagrams(SESSION_PORT) if d.payload[0] >= 128]
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
    seen = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
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


def heading(text: str) -> None:
    """Print a chapter's title."""
    say(f"\n{text}", BOLD)


def say(text: str, colour: str) -> None:
    """Print text, in colour where a person reads it."""
    print(f"\033[{colour}m{text}\033[0m" if sys.stdout.isatty() else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
