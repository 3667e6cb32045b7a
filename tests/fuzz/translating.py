"""Fuzz targets of Services: the endpoints file, and packets that get other addresses and ports."""

import contextlib

from support.endpoints import endpoint, served, service, text_of
from support.naive import Way

from proxy.errors import Dropped
from proxy.flow.endpoints_file import parse_services
from proxy.flow.target_ports import TargetPorts
from proxy.flow.translation import Translation
from proxy.packet.ip import parse_packet

V4 = Way(b"\x0a\0\0\1", 1000, b"\x0a\0\0\xc8", 80)
V6 = Way(b"\xfd" + bytes(14) + b"\1", 1000, b"\xfd" + bytes(14) + b"\xc8", 80)


def endpoints(text: str) -> None:
    parse_services(text, "endpoints.json", "shop")


def endpoints_seeds() -> list[bytes]:
    ports = [{"name": "dns", "protocol": "UDP", "port": 53, "targetPort": "dns"}]
    spec = {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}
    return [
        text_of(
            *served("10.0.0.200", 80, ["10.0.0.2", endpoint("10.0.0.3", ready=False)], 8080),
            service("dns", ["fd00::53"], ports, sessionAffinity="ClientIP", **spec),
        ).encode()
    ]


def translated(data: bytes) -> None:
    """Whatever packet goes to a Service, comes from its pod, or tells of either: it stays a packet of its size."""
    source, destination = parse_packet(memoryview(data))
    pod = bytes(len(source) - 1) + b"\7"
    for opened in (data, turned(data)):
        translation = Translation(frozenset({source}), lambda _: True)
        translation.rendezvous(destination, {pod}, 0.0)
        ports = TargetPorts({80: 8080})
        for one in (opened, data, turned(data)):
            packet = memoryview(bytearray(one))
            with contextlib.suppress(Dropped):
                if parse_packet(packet)[1] == destination:
                    translation.outgoing(packet, 0.0)
                else:
                    translation.incoming(packet, 0.0)
            parse_packet(packet)
            arriving = memoryview(bytearray(one))
            with contextlib.suppress(Dropped):
                ports.arriving(arriving, 0.0)
                ports.leaving(arriving, 0.0)
            parse_packet(arriving)


def turned(data: bytes) -> bytes:
    """Return a packet with its addresses the other way round."""
    if data[0] >> 4 == 4:
        return data[:12] + data[16:20] + data[12:16] + data[20:]
    return data[:8] + data[24:40] + data[8:24] + data[40:]


def packet_seeds() -> list[bytes]:
    seeds = []
    for way in (V4, V6):
        kinds = (way.tcp(b"x", 2), way.udp(b"x"), way.sctp(b"x"), way.echo(b"x"))
        quotes = [way.error(way.turned().udp(b"x")), *way.fragments(way.udp(bytes(100)), 64)]
        seeds += [*kinds, *quotes[:2]]
    return seeds
