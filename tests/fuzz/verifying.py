"""Fuzz targets of `verify`: frames of an interface, what pods say, what daemon and watcher say to each other."""

import json
from dataclasses import asdict
from ipaddress import ip_address

from proxy.verify import messages, orders, verdict
from proxy.verify.frames import ENTRY, Tallies, Watch
from proxy.verify.messages import Ask, End, Ready, Reason, Refused, Report, Seen

RUN, SHARE, THERE, BACK = b"r" * 16, b"s" * 32, b"t" * 16, b"b" * 16
OWN, PEER = ip_address("10.0.0.1"), ip_address("10.0.0.2")
OWN6, PEER6 = ip_address("fd00::1"), ip_address("fd00::2")
PORT = 15443


def seen_frame(data: bytes) -> None:
    """Look at a frame everywhere, both ways, as one and as a super-packet: what is kept is what `ENTRY` says."""
    for outgoing in (False, True):
        for segment in (0, 1, 40):
            watch = Watch((OWN.packed, OWN6.packed), (PEER.packed, PEER6.packed), PORT)
            watch.arm(THERE, BACK)
            buffer = bytearray(data).ljust(60, b"\0")
            watch.inside(buffer, len(data), outgoing=outgoing)
            watch.outside(buffer, len(data), segment, outgoing=outgoing)
            assert all(size <= len(data) for _, size, _ in ENTRY.iter_unpack(watch.entries))
            assert all(text.isprintable() for text in watch.texts)


def frame_seeds() -> list[bytes]:
    udp = PORT.to_bytes(2, "big") * 2 + (8 + 60).to_bytes(2, "big") + bytes(2) + b"\x80" + bytes(59)
    tcp = b"\x12\x34\x00\x50" + bytes(16) + THERE * 3
    frames = []
    for body, protocol in ((udp, 17), (tcp, 6)):
        v4 = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + bytes(5) + bytes([protocol, 0, 0])
        v6 = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes([protocol, 64])
        frames += [
            bytes(12) + b"\x08\0" + v4 + OWN.packed + PEER.packed + body,
            bytes(12) + b"\x86\xdd" + v6 + OWN6.packed + PEER6.packed + body,
        ]
    return frames


def message_seeds() -> list[bytes]:
    return [
        Ask(RUN, messages.IPV4 | messages.IPV6, SHARE).encode(),
        Ready(RUN, SHARE, (1, 2, 3, 4)).encode(),
        End(RUN).encode(),
        Report(RUN, Seen(inside=1, sealed_bytes=1 << 40)).encode(),
        Refused(RUN, Reason.BUSY).encode(),
    ]


def order_seeds() -> list[bytes]:
    return [
        orders.Look((PEER, PEER6), ((PEER, PORT),), (OWN,), SHARE).encode(),
        orders.Flows(
            (orders.Flow(OWN, PEER, 1, 2), orders.Flow(OWN6, PEER6, 3, 4)), SHARE
        ).encode(),
        orders.Finish().encode(),
    ]


def told_seeds() -> list[bytes]:
    flowed = orders.Flowed("TCP", "10.0.0.1:1", "10.0.0.2:2", 5, 5, "")
    return [
        orders.Looking(SHARE, ((1, 2),)).encode(),
        orders.AllFlowed((flowed,)).encode(),
        orders.Ended(Tallies(1, 2, 3), ("clear left: TCP 10.0.0.1:1 -> 10.0.0.2:2",)).encode(),
        *orders.batches(ENTRY.pack(*(1, 100, bytes(24))) * 3),
    ]


def proof_seeds() -> list[bytes]:
    seen = {"pod": "a", **asdict(Seen()), "texts": ["clear left: x"]}
    flow = {"protocol": "TCP", "source": "a", "destination": "b", "error": ""}
    peer = {"name": "b", "identity": "spiffe://x", "addresses": ["10.0.0.2"], "serial": "1"}
    answer = {
        **verdict.unproven("why"),
        "cipher": "c",
        "group": "g",
        "peer": {**peer, "remaining_seconds": 60},
        "flows": [flow],
        "seen": [seen],
    }
    return [json.dumps(verdict.unproven("why")).encode(), json.dumps(answer).encode()]
