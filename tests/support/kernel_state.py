"""Everything in a pod's kernel that Tencrypt may change: to be compared before and after."""

import json

from support.namespaces import Namespace
from support.tencrypt import Json


def kernel_state(place: Namespace) -> Json:
    """Give links, rules, routes of all tables, filter and rp_filter of a network namespace.

    Without what the kernel adds by itself, and late: routes of link-local addresses (after
    duplicate address detection); carrier and multicast route when a program attaches to tenc0.
    """
    links = json.loads(place.run(["ip", "-j", "link"]).stdout)
    return {
        "links": {
            link["ifname"]: (link["mtu"], "UP" in link["flags"], link.get("ifalias"))
            for link in links
        },
        "rules": place.run(["ip", "rule"]).stdout + place.run(["ip", "-6", "rule"]).stdout,
        "routes": [_routes(place, "-4"), _routes(place, "-6")],
        "filter": place.run(["nft", "-s", "list", "ruleset"]).stdout,
        "rp_filter": place.run(
            ["sh", "-c", "grep . /proc/sys/net/ipv4/conf/*/rp_filter"]
        ).stdout.splitlines(),
    }


def _routes(place: Namespace, family: str) -> list[str]:
    lines = place.run(["ip", family, "route", "show", "table", "all"]).stdout.splitlines()
    return sorted(
        line.replace(" linkdown", "").strip()
        for line in lines
        if not line.startswith("multicast ff00::/8 dev tenc0") and "fe80::" not in line
    )


def refused_count(place: Namespace, counter: str) -> int:
    """Give what the filter has refused so far: `refused_arriving` or `refused_leaving`."""
    command = ["nft", "-j", "list", "counter", "inet", "tencrypt", counter]
    entries = json.loads(place.run(command).stdout)["nftables"]
    return next(int(entry["counter"]["packets"]) for entry in entries if "counter" in entry)
