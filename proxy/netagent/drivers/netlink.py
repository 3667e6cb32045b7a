"""The rtnetlink requests of the net agent, with our own types on their outside.

A `Netlink` belongs to the network namespace in which it was made, and must be closed before the
process forks: the library keeps an event loop in it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Final, Self

from pyroute2 import IPRoute  # type: ignore[import-untyped]  # carries no types
from pyroute2.netlink import nlmsg  # type: ignore[import-untyped]  # carries no types
from pyroute2.netlink.exceptions import (  # type: ignore[import-untyped]  # carries no types
    NetlinkError,
)

from proxy.netagent.errors import MachineLacksError, NetAgentError
from proxy.netagent.plan import (
    MOST_SEGMENTS,
    PROTOCOL,
    SUPER_PACKET,
    TABLE,
    Address,
    Network,
    Route,
    Rule,
)

FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)

# linux/fib_rules.h, linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h, linux/ip.h
_FIB_RULE_INVERT: Final = 0x2
_RTN_UNICAST: Final = 1
_RTN_UNREACHABLE: Final = 7
_RTN_THROW: Final = 9
_RT_SCOPE_UNIVERSE: Final = 0
_RT_TABLE_MAIN: Final = 254
_RTM_SETLINK: Final = 19
_NLM_F_REQUEST_ACK: Final = 0x1 | 0x4
_NLMSG_ERROR: Final = 2
_IFF_UP: Final = 0x1
_IFF_TUN: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFA_F_DADFAILED: Final = 0x08
_IFA_F_TENTATIVE: Final = 0x40
_IFLA_AF_SPEC: Final = 26
_IFLA_INET_CONF: Final = 1
_IPV4_DEVCONF_RP_FILTER: Final = 8
_IN6_ADDR_GEN_MODE_NONE: Final = 1

_LACKS: Final = {
    errno.EPERM: "needs CAP_NET_ADMIN in this network namespace",
    errno.EACCES: "needs CAP_NET_ADMIN in this network namespace",
    errno.EAFNOSUPPORT: "the kernel has this address family turned off",
    errno.EOPNOTSUPP: "the kernel does not support it",
}


@dataclass(frozen=True, slots=True)
class Link:
    """An interface; `tun_owner` is the owning UID where it is a TUN device, `rp_filter` as set."""

    index: int
    name: str
    mtu: int
    is_up: bool
    is_loopback: bool
    alias: str
    rp_filter: int
    has_ipv6: bool
    tun_owner: int | None


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of this network namespace; `is_global` leaves out host and link scope."""

    index: int
    address: Address
    is_global: bool
    is_tentative: bool


@dataclass(frozen=True, slots=True)
class InstalledRoute:
    """A route found in our table."""

    destination: Network
    metric: int
    protocol: int
    kind: int


class Netlink:
    """One rtnetlink socket. Every method raises NetAgentError or MachineLacksError."""

    def __init__(self) -> None:
        """Open it in the present network namespace."""
        self._route = IPRoute()

    def __enter__(self) -> Self:
        """Return itself, to be closed on leaving."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the socket and its event loop."""
        self._route.close()

    def links(self) -> list[Link]:
        """Return every interface, in the kernel's order."""
        with _asking("list the interfaces"):
            return [_link(message) for message in self._route.get_links()]

    def link(self, name: str) -> Link | None:
        """Return the interface `name`, None where there is none."""
        return next((link for link in self.links() if link.name == name), None)

    def bring_up(self, link: Link, mtu: int) -> None:
        """Set MTU, largest super-packets and state, without the link-local address that a device gets by itself."""
        with _asking(f"set up {link.name}"):
            if link.has_ipv6:
                mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE)]}
                self._route.link(
                    "set", index=link.index, IFLA_AF_SPEC={"attrs": [("AF_INET6", mode)]}
                )
            self._route.link("set", index=link.index, mtu=mtu, state="up")
            self._route.link(
                "set",
                index=link.index,
                IFLA_GSO_MAX_SIZE=SUPER_PACKET,
                IFLA_GSO_MAX_SEGS=MOST_SEGMENTS,
            )

    def set_alias(self, link: Link, alias: str) -> None:
        """Set the text that `ip link` shows as alias."""
        with _asking(f"mark {link.name}"):
            self._route.link("set", index=link.index, ifalias=alias)

    def delete_link(self, link: Link) -> None:
        """Remove the interface."""
        with _asking(f"remove {link.name}"):
            self._route.link("del", index=link.index)

    def set_rp_filter(self, link: Link, value: int) -> None:
        """Set IPv4's reverse path filter, without /proc/sys, which containers have read-only."""
        with _asking(f"set rp_filter of {link.name}"):
            _set_devconf(link.index, _IPV4_DEVCONF_RP_FILTER, value)

    def addresses(self) -> list[LocalAddress]:
        """Return the addresses of all interfaces, without those that failed detection."""
        with _asking("list the addresses"):
            found = [_address(message) for message in self._route.get_addr()]
        return [address for address in found if address is not None]

    def default_interface(self) -> int | None:
        """Return the index that the default route of `main` leads to, IPv4's before IPv6's."""
        found: list[tuple[int, int, int]] = []
        with _asking("list the routes"):
            for family in _FAMILIES:
                for message in self._route.get_routes(family=family, table=_RT_TABLE_MAIN):
                    oif = message.get_attr("RTA_OIF")
                    if message["dst_len"] == 0 and message["type"] == _RTN_UNICAST and oif:
                        found.append((family, message.get_attr("RTA_PRIORITY") or 0, oif))
        return min(found)[2] if found else None

    def rules(self) -> list[Rule]:
        """Return the rules of ours, of both families."""
        with _asking("list the rules"):
            return [
                _rule(version, message)
                for version, family in FAMILY.items()
                for message in self._route.get_rules(family=family)
                if message.get_attr("FRA_PROTOCOL") == PROTOCOL
            ]

    def change_rule(self, command: str, rule: Rule) -> None:
        """Do `command`, "add" or "del", with a rule.

        For "all but a UID range" the kernel inverts the whole match of a rule. The other way
        round, `uidrange lookup main`, loops: where `main` holds no route, the lookup goes on to
        our table, and the daemon's datagrams into its own tunnel.
        """
        with _asking(f"{command} the rule {rule.command()}"):
            self._route.rule(command, **_rule_request(rule))

    def routes(self) -> list[InstalledRoute]:
        """Return what our table holds, of whomever."""
        with _asking("list the routes"):
            return [
                _installed(message)
                for family in _FAMILIES
                for message in self._route.get_routes(family=family, table=TABLE)
            ]

    def replace_route(self, route: Route, tunnel: Link | None) -> None:
        """Put the route into our table, in the place of one of its destination and metric."""
        with _asking(f"set the route to {route.destination}"):
            if route.source is None or tunnel is None:
                kind = _RTN_THROW if route.throw else _RTN_UNREACHABLE
                self._route.route("replace", type=kind, **_key(route))
            else:
                self._route.route(
                    "replace",
                    type=_RTN_UNICAST,
                    oif=tunnel.index,
                    prefsrc=str(route.source),
                    **_key(route),
                )

    def delete_route(self, route: InstalledRoute) -> None:
        """Take a route out of our table."""
        with _asking(f"remove the route to {route.destination}"):
            self._route.route("del", type=route.kind, **_key(route))

    def drop_route(self, route: Route) -> None:
        """Take a route out of our table, if it is there."""
        kind = _RTN_THROW if route.throw else _RTN_UNREACHABLE
        kind = _RTN_UNICAST if route.source is not None else kind
        with _asking(f"remove the route to {route.destination}"):
            try:
                self._route.route("del", type=kind, **_key(route))
            except NetlinkError as error:
                if error.code != errno.ESRCH:
                    raise


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn a refusal by the kernel into one line of ours."""
    try:
        yield
    except NetlinkError as error:
        code = int(error.code)
        if code in _LACKS:
            raise MachineLacksError(f"cannot {what}: {_LACKS[code]}") from error
        raise NetAgentError(f"cannot {what}: {os.strerror(code)}") from error


def _link(message: nlmsg) -> Link:
    specific = message.get_attr("IFLA_AF_SPEC")
    ipv4 = specific.get_attr("AF_INET") if specific else None
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    data = info.get_attr("IFLA_INFO_DATA") if kind == "tun" else None
    if data is not None and data.get_attr("IFLA_TUN_TYPE") != _IFF_TUN:
        data = None
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        mtu=message.get_attr("IFLA_MTU"),
        is_up=bool(message["flags"] & _IFF_UP),
        is_loopback=bool(message["flags"] & _IFF_LOOPBACK),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        rp_filter=ipv4["rp_filter"] if ipv4 else 0,
        has_ipv6=bool(specific and specific.get_attr("AF_INET6")),
        tun_owner=data.get_attr("IFLA_TUN_OWNER") if data else None,
    )


def _address(message: nlmsg) -> LocalAddress | None:
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    if text is None or flags & _IFA_F_DADFAILED:
        return None
    return LocalAddress(
        index=message["index"],
        address=ip_address(text),
        is_global=message["scope"] == _RT_SCOPE_UNIVERSE,
        is_tentative=bool(flags & _IFA_F_TENTATIVE),
    )


def _installed(message: nlmsg) -> InstalledRoute:
    nothing = "::" if message["family"] == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - a prefix
    destination = message.get_attr("RTA_DST") or nothing
    return InstalledRoute(
        destination=ip_network(f"{destination}/{message['dst_len']}"),
        metric=message.get_attr("RTA_PRIORITY") or 0,
        protocol=message["proto"],
        kind=message["type"],
    )


def _rule(version: int, message: nlmsg) -> Rule:
    to = message.get_attr("FRA_DST")
    mark = message.get_attr("FRA_FWMARK")
    return Rule(
        version,
        message.get_attr("FRA_PRIORITY") or 0,
        message.get_attr("FRA_TABLE") or 0,
        but_uids=_range(message.get_attr("FRA_UID_RANGE")),
        to=ip_network(f"{to}/{message['dst_len']}") if to else None,
        protocol=message.get_attr("FRA_IP_PROTO"),
        sport=_range(message.get_attr("FRA_SPORT_RANGE")),
        dport=_range(message.get_attr("FRA_DPORT_RANGE")),
        mark=(mark, message.get_attr("FRA_FWMASK")) if mark else None,
    )


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    low, high = map(int, text.split(":"))
    return low, high


def _rule_request(rule: Rule) -> dict[str, str | int]:
    request: dict[str, str | int] = {
        "family": FAMILY[rule.version],
        "priority": rule.preference,
        "table": rule.table,
        "protocol": PROTOCOL,
    }
    if rule.but_uids is not None:
        request |= {"uid_range": "{}:{}".format(*rule.but_uids), "flags": _FIB_RULE_INVERT}
    if rule.to is not None:
        request |= {"dst": str(rule.to.network_address), "dst_len": rule.to.prefixlen}
    if rule.protocol is not None:
        request["ip_proto"] = rule.protocol
    if rule.sport is not None:
        request["sport_range"] = "{}:{}".format(*rule.sport)
    if rule.dport is not None:
        request["dport_range"] = "{}:{}".format(*rule.dport)
    if rule.mark is not None:
        request |= {"fwmark": rule.mark[0], "fwmask": rule.mark[1]}
    return request


def _key(route: Route | InstalledRoute) -> dict[str, str | int]:
    return {
        "family": FAMILY[route.destination.version],
        "dst": str(route.destination),
        "table": TABLE,
        "priority": route.metric,
        "proto": PROTOCOL,
    }


def _set_devconf(index: int, setting: int, value: int) -> None:
    """RTM_SETLINK with IFLA_AF_SPEC / AF_INET / IFLA_INET_CONF, which pyroute2 only reads.

    0               2               4
    | length        | type          | value, padded to 4
    """
    conf = _attribute(_IFLA_INET_CONF, _attribute(setting, struct.pack("=I", value)))
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
    body += _attribute(_IFLA_AF_SPEC, _attribute(socket.AF_INET, conf))
    header = struct.pack("=IHHII", 16 + len(body), _RTM_SETLINK, _NLM_F_REQUEST_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.bind((0, 0))
        route.send(header + body)
        answer = route.recv(4096)
    _, kind, _, _, _, result = struct.unpack_from("=IHHIIi", answer)
    if kind != _NLMSG_ERROR or result != 0:
        raise NetlinkError(-result or errno.EPROTO)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
