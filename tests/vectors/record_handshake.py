"""Record one whole handshake of two pods as ``handshake.json``: ``python tests/vectors/record_handshake.py``.

Made once and kept: TLS draws its own randoms, so another run gives another handshake. It refuses to write over a file.
"""

import json
import sys
from pathlib import Path
from typing import Final
from unittest import mock

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from cryptography.hazmat.primitives.serialization import Encoding
from sim.world import Node, World, udp_packet
from support.pki import Authority, Leaf

from proxy.session.keys import Exporter, SessionKeys, derive
from proxy.session.wire import FLIGHT

FILE: Final = Path(__file__).parent / "handshake.json"
SEED: Final = 1
INITIATOR, RESPONDER = "10.0.0.1", "10.0.0.2"


class _Recorder:
    """What two nodes said to each other, and what TLS exported at either end."""

    def __init__(self) -> None:
        self.datagrams: list[dict[str, object]] = []
        self.contexts: set[bytes] = set()
        self.exports: dict[str, str] = {}
        self._flights = 0

    def network(self, data: bytes, source: str, _to: str) -> list[bytes]:
        """Keep a datagram; one piece of the responder's flight is lost, and so repeated."""
        is_flight = data[0] == FLIGHT and source == RESPONDER
        self._flights += is_flight
        lost = is_flight and self._flights == 2
        sender = "initiator" if source == INITIATOR else "responder"
        self.datagrams.append({"from": sender, "lost": lost, "datagram": data.hex()})
        return [] if lost else [data]

    def derive(
        self, export: Exporter, context: bytes, suite: str, *, initiator: bool
    ) -> SessionKeys:
        """Derive, and keep what was exported."""
        self.contexts.add(context)

        def heard(label: bytes, size: int, with_context: bytes) -> bytes:
            output = export(label, size, with_context)
            if self.exports.setdefault(label.decode(), output.hex()) != output.hex():
                raise ValueError("the ends disagree")
            return output

        return derive(heard, context, suite, initiator=initiator)


def record() -> dict[str, object]:
    """Return the vector."""
    recorder, world, authority = _Recorder(), World(SEED), Authority()
    nodes = [
        world.join(authority.issue(Leaf(pod=pod, addresses=(address,))))
        for pod, address in (("a", INITIATOR), ("b", RESPONDER))
    ]
    a, b = nodes
    world.tamper = recorder.network
    packets = [
        udp_packet(INITIATOR, RESPONDER, b"there"),
        udp_packet(RESPONDER, INITIATOR, b"and back"),
    ]
    with mock.patch("proxy.session.handshake.derive", recorder.derive):
        a.send_packet(packets[0])
        world.run(1)
        b.send_packet(packets[1])
        world.run(1)
    if (b.received, a.received) != (packets[:1], packets[1:]):
        raise ValueError("the packets did not arrive")
    (context,) = recorder.contexts
    (session,) = a.table.sessions.values()
    return {
        "name": "two pods, one lost piece, a packet each way",
        "certificates": {"initiator": _leaf(a), "responder": _leaf(b)},
        "datagrams": recorder.datagrams,
        "suite": session.suite,
        "group": session.group,
        "context": context.hex(),
        "exports": recorder.exports,
        "session_id": session.session_id.hex(),
        "generation": session.generation,
        "packets": {"initiator": packets[0].hex(), "responder": packets[1].hex()},
    }


def _leaf(node: Node) -> str:
    return node.credential.chain[0].public_bytes(Encoding.DER).hex()


def main() -> None:
    """Write the file, once."""
    with FILE.open("x", encoding="ascii") as file:
        file.write(json.dumps([record()], indent=1) + "\n")


if __name__ == "__main__":
    main()
