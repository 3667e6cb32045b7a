"""Everything in a pod's kernel that Tencrypt may change: to be compared before and after."""

import json
from typing import Final

from support.namespaces import Namespace
from support.tencrypt import Json

# One program for all: it is run before and after each of many small tests.
_LOOK: Final = """\
set -e
ip -j link; echo ----
ip rule; ip -6 rule; echo ----
ip route show table all; ip -6 route show table all; echo ----
nft -s list ruleset; echo ----
grep . /proc/sys/net/ipv4/conf/*/rp_filter
"""


def kernel_state(place: Namespace) -> Json:
    """Give links, rules, routes of all tables, filter and rp_filter of a network namespace.

    Without what the kernel adds by itself, and late: routes of link-local addresses (after
    duplicate address detection); carrier and multicast route when a program attaches to tenc0.
    """
    links, rules, routes, ruleset, rp_filter = place.run(["sh", "-c", _LOOK]).stdout.split("----\n")
    return {
        "links": {
            link["ifname"]: (link["mtu"], "UP" in link["flags"], link.get("ifalias"))
            for link in json.loads(links)
        },
        "rules": rules.splitlines(),
        "routes": sorted(
            line.replace(" linkdown", "").strip()
            for line in routes.splitlines()
            if not line.startswith("multicast ff00::/8 dev tenc0") and "fe80::" not in line
        ),
        "filter": ruleset,
        "rp_filter": rp_filter.splitlines(),
    }


def refused_count(place: Namespace, counter: str) -> int:
    """Give what the filter has refused so far: `refused_arriving` or `refused_leaving`."""
    command = ["nft", "-j", "list", "counter", "inet", "tencrypt", counter]
    entries = json.loads(place.run(command).stdout)["nftables"]
    return next(int(entry["counter"]["packets"]) for entry in entries if "counter" in entry)
