"""A Service's port that is not the container's, where peers know no endpoints: mapped where the packets arrive.

A peer that found us by a call to a virtual address sends to the Service's port; the program listens on another. What
arrives for the one goes to the other, and the answers leave as the peer knows them. Who sends to the program's port
gets answers from it.
"""

from collections.abc import Mapping

from proxy.flow.flows import Flow, Flows, opening
from proxy.packet.name import ends, flow_name, turned
from proxy.packet.rewrite import DESTINATION, SOURCE, End, change
from proxy.packet.upper import WITH_PORTS, find_upper


class TargetPorts:
    """Ports of Services to ports of this pod, whatever the protocol."""

    def __init__(self, ports: Mapping[int, int], flows: Flows | None = None) -> None:
        """Map ``ports``: a Service's to ours."""
        self._ports = {port: target for port, target in ports.items() if port != target}
        self._flows = Flows() if flows is None else flows
        self._now = 0.0

    def arriving(self, packet: memoryview, now: float, *, unfinished: bool = False) -> None:
        """Give a parsed packet of a peer's our port, in place; raises `Dropped` as `proxy.packet.rewrite.rewrite`."""
        self._now = now
        if self._flows.translate(packet, now, unfinished=unfinished):
            return
        upper = find_upper(packet)
        name = None if upper.is_later else flow_name(packet, upper)
        if name is None or upper.protocol not in WITH_PORTS:
            return
        if self._begin(name, now, opening(packet, upper)):
            self._flows.translate(packet, now, unfinished=unfinished)

    def restore(self, name: bytes, now: float) -> None:
        """Take up a flow that was open before we started, as `proxy.flow.translation.Translation.restore`."""
        if self._flows.find(name, now) is None:
            self._begin(name, now, b"")

    def _begin(self, name: bytes, now: float, first: bytes) -> bool:
        """Keep a flow to a port that is mapped; False to any other."""
        _, own, _ = ends(name)
        target = self._ports.get(own.port)
        if target is None:
            return False
        ours = End(own.address, target)
        there = (change(DESTINATION, own, ours),)
        back = (change(SOURCE, ours, own),)
        answers = turned(name[:-3] + target.to_bytes(2, "big") + name[-1:])
        former = self._flows.find(answers, now)
        if former is not None:
            # Two of its ports lead to one of ours, and the peer uses one port for both: the later has the answers.
            self._flows.remove(former[0])
        self._flows.add(Flow(name, answers, there, back, first), now)
        return True

    def leaving(self, packet: memoryview, now: float, *, unfinished: bool = False) -> None:
        """Give an answer the port by which its receiver knows it; raises as `arriving`."""
        self._now = now
        if len(self._flows):
            self._flows.translate(packet, now, unfinished=unfinished)

    def back(self, packet: memoryview) -> None:
        """Give a packet that tells our program of one of its own our port."""
        if len(self._flows):
            self._flows.translate(packet, self._now)
