"""nftables through the program `nft`, each change one transaction."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address

from proxy.netagent.errors import MachineLacksError, NetAgentError
from proxy.netagent.filter import NFT_TABLE
from proxy.netagent.settings import Address

# Where PATH leaves the system's folders out, as it does for a user's sudo on Debian.
_FOLDERS = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"
_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Flow:
    """Connections in clear: whom we spoke to or heard from, protocol and port of the side that listens."""

    direction: str
    address: str
    protocol: str
    port: int
    connections: int


def find_nft() -> str:
    """Return the program's path. Raises MachineLacksError."""
    found = shutil.which("nft", path=_FOLDERS)
    if found is None:
        raise MachineLacksError("the program nft is missing (Debian package nftables)")
    return found


def apply(text: str) -> None:
    """Carry `text` out whole or not at all. Raises NetAgentError."""
    _run("-f", "-", text=text)


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
                            "counter": {"packets": int(packets)},
                        }
                    }:
                        found.append(Flow(direction, address, str(protocol), port, packets))
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
