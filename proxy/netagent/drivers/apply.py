"""Carries a plan out, and undoes it; at every moment in between traffic is refused, not clear.

    set_up      filter, unreachable routes, rules | tenc0, rp_filter, routes | what is stale goes
    tear_down   rules, tenc0 with its routes, unreachable routes, rp_filter, filter

Nothing is kept in memory or in files: what `tear_down` has to know is in the kernel. rp_filter's
former value stands in tenc0's alias, so an agent of later undoes what one that was killed did.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.drivers import tun
from proxy.netagent.drivers import nft
from proxy.netagent.drivers.netlink import Link, Netlink
from proxy.netagent.errors import MachineLacksError, NetAgentError
from proxy.netagent.plan import PROTOCOL, TABLE, TUNNEL, Plan, single

# Loose: a reply's source must have a route, not one by this interface; ours is by tenc0. The
# kernel takes the larger of `all` and the device's, so this holds whatever `all` says.
_LOOSE: Final = 2
_ALIAS: Final = re.compile(r"tencrypt: rp_filter of ([A-Za-z0-9._-]{1,15}) was ([0-2])")
_IN_USE: Final = f"{TUNNEL} is in use: Tencrypt already runs in this network namespace"
_DETECTION_LOOKS: Final = 100
_DETECTION_PAUSE: Final = 0.05


def set_up(plan: Plan) -> bool:
    """Carry the plan out, over whatever an earlier run left, and say whether it left an interlock.

    Raises NetAgentError or MachineLacksError. Then nothing is left of a first set-up; where an
    earlier interlock was in place, it stays.
    """
    with Netlink() as netlink:
        _check(netlink, plan)
        earlier = _has_interlock(netlink)
        try:
            _set_interlock(netlink, plan)
            tunnel = _make_tunnel(netlink, plan)
            _loosen(netlink, plan.interface, tunnel)
            _await_detection(netlink, plan)
            for route in plan.tunnel_routes:
                netlink.replace_route(route, tunnel)
            _remove_stale(netlink, plan)
        except (NetAgentError, OSError):
            if not earlier:
                _tear_down(netlink)
            raise
    return earlier


def refit(plan: Plan) -> None:
    """Replace filter, rules and routes of a set-up that stands, whether a daemon runs or not; tenc0 stays.

    Its agent may carry out orders at the same time: what these add is neither lost nor taken for stale.

    Raises NetAgentError or MachineLacksError, and then refuses at least what one of both does.
    """
    with Netlink() as netlink:
        if not _has_interlock(netlink):
            raise NetAgentError("nothing is set up in this network namespace")
        _set_interlock(netlink, plan, nft.replace if nft.has_table() else nft.apply)
        tunnel = netlink.link(TUNNEL)
        for route in plan.tunnel_routes:
            if tunnel is not None:
                netlink.replace_route(route, tunnel)
        _remove_stale(netlink, plan)


def is_used() -> bool:
    """Say whether a daemon runs in this network namespace."""
    with Netlink() as netlink:
        if netlink.link(TUNNEL) is None:
            return False
    try:
        _check_unused()
    except NetAgentError:
        return True
    return False


def differences(plan: Plan) -> list[str]:
    """Return what of a plan's rules and routes is missing or too much here, a line each; members by order are not."""
    with Netlink() as netlink:
        rules, routes = netlink.rules(), netlink.routes()
        tunnel = netlink.link(TUNNEL)
    lines = [f"missing: {rule.command()}" for rule in plan.rules if rule not in rules]
    lines += [f"too much: {rule.command()}" for rule in rules if rule not in plan.rules]
    present = {(route.destination, route.metric) for route in routes}
    wanted = (*plan.interlock_routes, *plan.tunnel_routes)
    lines += [
        f"missing: {route.command()}"
        for route in wanted
        if (route.destination, route.metric) not in present
    ]
    if tunnel is None:
        lines.append(f"missing: {TUNNEL}")
    if not nft.has_table():
        lines.append("missing: the filter, table inet tencrypt")
    return lines


def tear_down() -> None:
    """Remove all that is ours and nothing else; right after a crash and where nothing is left.

    Raises NetAgentError or MachineLacksError.
    """
    with Netlink() as netlink:
        _tear_down(netlink)


def _tear_down(netlink: Netlink) -> None:
    for rule in netlink.rules():
        netlink.change_rule("del", rule)
    tunnel = netlink.link(TUNNEL)
    if tunnel is not None and _ALIAS.fullmatch(tunnel.alias):
        _restore(netlink, tunnel)
        netlink.delete_link(tunnel)
    for route in netlink.routes():
        if route.protocol == PROTOCOL:
            netlink.delete_route(route)
    nft.delete_table()


def _check(netlink: Netlink, plan: Plan) -> None:
    """Find what would fail half-way, before anything is touched."""
    nft.find_nft()
    if not Path(tun.DEVICE).is_char_device():
        raise MachineLacksError(
            f"{tun.DEVICE} is missing: load the module tun, or give the container the device"
        )
    if netlink.link(plan.interface) is None:
        raise NetAgentError(f"no interface {plan.interface} in this network namespace")
    present = {local.address for local in netlink.addresses()}
    missing = [str(address) for address in plan.addresses if address not in present]
    if missing:
        raise NetAgentError(f"no interface holds {', '.join(missing)}")
    if any(route.protocol != PROTOCOL for route in netlink.routes()):
        raise NetAgentError(f"routing table {TABLE} holds routes that are not Tencrypt's")
    tunnel = netlink.link(TUNNEL)
    if tunnel is not None and not _is_ours(tunnel, plan):
        raise NetAgentError(f"an interface {TUNNEL} exists that is not Tencrypt's")
    if tunnel is not None:
        _check_unused()


def _check_unused() -> None:
    """Find a proxy that runs, by the only thing that two cannot share, before its filter is changed."""
    try:
        tun.Tun.open(TUNNEL).close()
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise NetAgentError(_IN_USE) from error
        # Anything else is told where the device is made.


def _is_ours(tunnel: Link, plan: Plan) -> bool:
    """By the alias; by the owner where a crash came between making the device and naming it."""
    if tunnel.tun_owner is None:
        return False
    return tunnel.tun_owner == plan.uid or _ALIAS.fullmatch(tunnel.alias) is not None


def _has_interlock(netlink: Netlink) -> bool:
    return nft.has_table() or bool(netlink.routes() or netlink.rules())


def _set_interlock(
    netlink: Netlink, plan: Plan, carry_out: Callable[[str], None] = nft.apply
) -> None:
    carry_out(plan.nft)
    for route in plan.interlock_routes:
        netlink.replace_route(route, None)
    present = netlink.rules()
    for rule in plan.rules:
        if rule not in present:
            netlink.change_rule("add", rule)


def _make_tunnel(netlink: Netlink, plan: Plan) -> Link:
    try:
        tun.make_persistent(TUNNEL, plan.uid)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise NetAgentError(_IN_USE) from error
        raise MachineLacksError(
            f"cannot make {TUNNEL} by {tun.DEVICE}: {os.strerror(error.errno or 0)}"
        ) from error
    tunnel = _present(netlink, TUNNEL)
    former = _ALIAS.fullmatch(tunnel.alias)
    if former is None or former[1] != plan.interface:
        _restore(netlink, tunnel)
        before = _present(netlink, plan.interface).rp_filter
        netlink.set_alias(tunnel, f"tencrypt: rp_filter of {plan.interface} was {before}")
    netlink.bring_up(tunnel, plan.tunnel_mtu)
    return tunnel


def _loosen(netlink: Netlink, interface: str, tunnel: Link) -> None:
    netlink.set_rp_filter(tunnel, _LOOSE)
    netlink.set_rp_filter(_present(netlink, interface), _LOOSE)


def _restore(netlink: Netlink, tunnel: Link) -> None:
    """Give rp_filter its former value, where the interface is still there."""
    former = _ALIAS.fullmatch(tunnel.alias)
    interface = netlink.link(former[1]) if former is not None else None
    if former is not None and interface is not None:
        netlink.set_rp_filter(interface, int(former[2]))


def _await_detection(netlink: Netlink, plan: Plan) -> None:
    """Wait for duplicate address detection: until then IPv6 takes no route with that source."""
    for _ in range(_DETECTION_LOOKS):
        if not _tentative(netlink, plan):
            return
        time.sleep(_DETECTION_PAUSE)
    waiting = ", ".join(_tentative(netlink, plan))
    raise NetAgentError(f"{waiting} stays tentative: is the link of {plan.interface} down?")


def _tentative(netlink: Netlink, plan: Plan) -> list[str]:
    own = {route.source for route in plan.tunnel_routes}
    return [
        str(local.address)
        for local in netlink.addresses()
        if local.is_tentative and local.address in own
    ]


def _remove_stale(netlink: Netlink, plan: Plan) -> None:
    """Remove what a run with other settings left; its filter went when ours came."""
    for rule in netlink.rules():
        if rule not in plan.rules:
            netlink.change_rule("del", rule)
    wanted = {
        (route.destination, route.metric) for route in (*plan.interlock_routes, *plan.tunnel_routes)
    }
    routes = netlink.routes()
    # Asked for after the routes: an order adds to the filter first.
    held = {single(address) for address in nft.ordered()}
    for route in routes:
        if (route.destination, route.metric) not in wanted and route.destination not in held:
            netlink.delete_route(route)


def _present(netlink: Netlink, name: str) -> Link:
    link = netlink.link(name)
    if link is None:
        raise NetAgentError(f"interface {name} has gone")
    return link
