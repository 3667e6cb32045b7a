"""Set-ups whose whole text is kept in tests/golden, to be read by people. Run as a program, it writes them anew."""

import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from support import netagent

from proxy.flow.clearance import parse_clearance
from proxy.netagent.plan import NetSettings, Plan, plan

FOLDER: Final = Path(__file__).parents[1] / "golden"

_MEMBERS: Final = replace(netagent.SETTINGS, session_port=15820)
_CLUSTER: Final = replace(
    _MEMBERS,
    members=(),
    ranges=(ip_network("10.0.0.0/8"), ip_network("fd00::/16")),
    resolvers=(ip_address("10.96.0.10"),),
    dns_port=15053,
    clear_in=(parse_clearance("10.9.0.254 any"), parse_clearance("10.9.7.7 tcp/8080")),
    clear_out=(parse_clearance("10.96.0.1 tcp/443"), parse_clearance("10.5.0.0/16 udp/5000-5009")),
    ca_address=ip_address("10.96.0.20"),
    ca_port=8443,
)
SETTINGS: Final[dict[str, NetSettings]] = {
    "members": _MEMBERS,
    "strict": _CLUSTER,
    "strict-with-bypass": replace(_CLUSTER, dns_bypass=True),
    "permissive": replace(_CLUSTER, strict=False),
}


def golden_plan(name: str) -> Plan:
    """Return a set-up as `tencrypt net up` would make it where two members were known before."""
    kept = (ip_address("10.9.3.3"), ip_address("fd00:9:3::3")) if name != "members" else ()
    return plan(SETTINGS[name], (), kept)


if __name__ == "__main__":
    for one in SETTINGS:
        (FOLDER / f"{one}.txt").write_text(golden_plan(one).describe() + "\n", encoding="ascii")
