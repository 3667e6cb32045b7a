"""Carries out what the daemon orders: all that waits in one transaction of nftables, and the routes that go with it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from proxy.netagent.drivers import nft
from proxy.netagent.drivers.netlink import Netlink
from proxy.netagent.errors import NetAgentError
from proxy.netagent.orders import AUDIT, FRESH, Changes, Order, OrderError, Sets, parse_order
from proxy.netagent.plan import BROKEN, TUNNEL
from proxy.netagent.settings import Address, NetSettings

_MOST_FLOWS: Final = 500
"""Told of an audit: an answer is one message of a socket."""

DONE: Final = b"done"
REFUSED: Final = b"no"


class Orders:
    """The agent's part of an order."""

    def __init__(self, settings: NetSettings, kept: Iterable[Address]) -> None:
        """Begin as after `set_up`; ``kept`` are members that were added before it."""
        self._sets = Sets(settings, kept)

    def carry(self, lines_untrusted: Iterable[bytes]) -> list[bytes]:
        """Do what lines ask for; return an answer to each that is an order.

        Filter before routes for what comes, routes before filter for what goes: in between is refused, not clear.
        """
        changes, orders, answers = Changes(), list[Order](), list[bytes]()
        for line in lines_untrusted:
            try:
                order = parse_order(line)
            except OrderError:
                continue
            try:
                _check_glass(order)
                self._sets.carry(order, changes)
                orders.append(order)
            except (OrderError, NetAgentError) as error:
                answers.append(b"%s %d %s" % (REFUSED, order.number, str(error).encode()))
        try:
            if changes:
                _apply(changes)
            answers += [b"%s %d %s" % (DONE, order.number, _told(order)) for order in orders]
        except NetAgentError as error:
            answers += [b"%s %d %s" % (REFUSED, one.number, str(error).encode()) for one in orders]
        return answers


def _check_glass(order: Order) -> None:
    """Let no list limit what an operator has opened, since we began, for an emergency: the CA may be away for long."""
    if order.verb == FRESH and any(note.startswith(BROKEN) for note in nft.notes()):
        raise OrderError("the glass is broken: clear has no limit")


def _apply(changes: Changes) -> None:
    if changes.nft:
        nft.apply("\n".join([*changes.nft, ""]))
    if changes.add or changes.drop:
        with Netlink() as netlink:
            tunnel = netlink.link(TUNNEL)
            for route in changes.add:
                netlink.replace_route(route, tunnel)
            for route in changes.drop:
                netlink.drop_route(route)


def _told(order: Order) -> bytes:
    if order.verb != AUDIT:
        return b""
    flows = [
        [flow.direction, flow.address, flow.protocol, flow.port, flow.connections, flow.age]
        for flow in nft.flows()
    ]
    return json.dumps(flows[:_MOST_FLOWS], separators=(",", ":")).encode()
