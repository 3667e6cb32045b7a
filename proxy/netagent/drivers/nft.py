"""nftables through the program `nft`, each change one transaction."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address

from proxy.netagent.errors import MachineLacksError, NetAgentError
from proxy.netagent.filter import AUDIT_SECONDS, NFT_TABLE
from proxy.netagent.settings import Address

# Where PATH leaves the system's folders out, as it does for a user's sudo on Debian.
_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"
_SECONDS = 30
# Sets of what the daemon has ordered and believes to be there until it orders otherwise.
_ADDRESSES = tuple(
    f"{name}{version}" for name in ("members", "served", "bypass") for version in (4, 6)
)
_ORDERED = frozenset((*_ADDRESSES, "fresh4", "fresh6"))


@dataclass(frozen=True, slots=True)
class Flow:
    """Connections in clear: whom we spoke to or heard from, protocol and port of the side that listens."""

    direction: str
    address: str
    protocol: str
    port: int
    connections: int
    age: int  # seconds since the latest began


def find_nft() -> str:
    """Return the program's path. Raises MachineLacksError."""
    found = shutil.which("nft", path=_FOLDERS)
    if found is None:
        raise MachineLacksError("the program nft is missing (Debian package nftables)")
    return found


def apply(text: str) -> None:
    """Carry `text` out whole or not at all. Raises NetAgentError."""
    _run("-f", "-", text=text)


def replace(text: str) -> None:
    """Carry a whole ruleset out over one that a running agent changes; what it adds meanwhile to its sets stays.

    ``text`` is `proxy.netagent.filter.ruleset`'s, which begins by deleting the table. Here chains and sets are deleted
    one by one instead, but for those that hold what was ordered. Raises NetAgentError.
    """
    delete = f"delete table inet {NFT_TABLE}\n"
    listed = json.loads(_run("-j", "list", "table", "inet", NFT_TABLE))["nftables"]
    lines = [f"flush table inet {NFT_TABLE}"]
    for kind in ("chain", "set"):
        lines += [
            f"delete {kind} inet {NFT_TABLE} {one[kind]['name']}"
            for one in listed
            if kind in one and not _stays(one[kind], text)
        ]
    apply(text.replace(delete, "\n".join([*lines, ""]), 1))


def _stays(listed: dict[str, object], text: str) -> bool:
    """Say whether a chain or set, as nft's JSON has it, keeps what is in it under the new ruleset."""
    name = str(listed["name"])
    declared = re.search(rf"^  set {name} {{(.*)$", text, re.MULTILINE)
    if name not in _ORDERED or declared is None:
        return False
    if not name.startswith("fresh"):
        return True
    # A broken glass is open without a limit: what is limited must not outlive its beginning, nor it its end.
    elements = listed.get("elem", [])
    timed = isinstance(elements, list) and all("timeout" in str(one) for one in elements)
    return timed and "elements" not in declared[1]


def has_table() -> bool:
    """Say whether our table is there."""
    return f"table inet {NFT_TABLE}" in _run("list", "tables", "inet").splitlines()


def members() -> list[Address]:
    """Return the addresses that orders have added to our table's members; empty without a table."""
    if not has_table():
        return []
    return [
        ip_address(str(element))
        for version in (4, 6)
        for element in _set_elements(f"members{version}")
    ]


def ordered() -> set[Address]:
    """Return all addresses that orders have added to sets of our table, members or not; each has routes."""
    found = set[Address]()
    for name in _ADDRESSES:
        for listed in _set_elements(name):
            match listed:
                case {"elem": {"val": str(text)}} | str(text):
                    found.add(ip_address(text))
                case _:
                    raise NetAgentError(f"nft lists what we did not put there: {str(listed)[:80]}")
    return found


def notes() -> list[str]:
    """Return the notes in our table; empty without it or them."""
    if not has_table() or "chain notes {" not in table():
        return []
    listed = json.loads(_run("-j", "list", "chain", "inet", NFT_TABLE, "notes"))
    rules = [one["rule"] for one in listed["nftables"] if "rule" in one]
    return [str(rule["comment"]) for rule in rules if "comment" in rule]


def table() -> str:
    """Return our table as nft writes it. Raises NetAgentError where there is none."""
    return _run("list", "table", "inet", NFT_TABLE)


def flows() -> list[Flow]:
    """Return the clear flows that were counted where encryption is permissive, the busiest first."""
    found = []
    for direction in ("spoken", "heard"):
        for version in (4, 6):
            for listed in _set_elements(f"{direction}{version}"):
                match listed:
                    case {
                        "elem": {
                            "val": {"concat": [str(address), str() | int() as protocol, int(port)]},
                            "expires": int(left),
                            "counter": {"packets": int(packets)},
                        }
                    }:
                        age = max(0, AUDIT_SECONDS - left)
                        found.append(Flow(direction, address, str(protocol), port, packets, age))
                    case _:
                        raise NetAgentError(
                            f"nft lists what we did not put there: {str(listed)[:80]}"
                        )
    return sorted(found, key=lambda flow: -flow.connections)


def _set_elements(name: str) -> list[object]:
    """Return the elements of a set of ours as nft's JSON has them (libnftables-json(5)); none without the set."""
    if f"set {name} {{" not in table():
        return []
    listed = json.loads(_run("-j", "list", "set", "inet", NFT_TABLE, name))
    found = [one["set"] for one in listed["nftables"] if "set" in one]
    return list(found[0].get("elem", [])) if found else []


def delete_table() -> None:
    """Remove our table, if it is there."""
    apply(f"table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n")


def _run(*arguments: str, text: str = "") -> str:
    command = [find_nft(), *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - fixed program and arguments, no shell
            command, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetAgentError(f"cannot run nft: {error}") from error
    if done.returncode == 0:
        return done.stdout
    reason = " ".join(done.stderr.split())
    if "Operation not permitted" in reason:
        raise MachineLacksError(
            "cannot change nftables: needs CAP_NET_ADMIN in this network namespace"
        )
    raise NetAgentError(f"nft failed: {reason}")
