"""Words of nftables: sets, chains, matches and marks as text (nft(8))."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.flow.clearance import Clearance

IP: Final = {4: "ip", 6: "ip6"}

BYPASS_MARK: Final = 0x7E000000
CLEAR_MARK: Final = 0x7D000000
SEALED_MARK: Final = 0x7F000000
MARK_MASK: Final = 0xFF000000
"""Of conntrack marks, and of packets' marks, which then look in `main`: others' lower bits stay theirs.

BYPASS: a connection to a bypass. Where encryption is permissive, CLEAR: one that began in clear, which is answered so,
for a node that translated a Service's address must see the answers; SEALED: one that tenc0 has seen, to which nothing
in clear belongs any more.
"""

_NAMES: Final = {6: "tcp", 17: "udp", 132: "sctp"}


def marked(value: int) -> str:
    """Match what belongs to a connection with our mark."""
    return f"ct mark & {MARK_MASK:#x} == {value:#x}"


def mark(what: str, value: int) -> str:
    """Set our bits of a packet's mark (``meta``) or of its connection's (``ct``)."""
    return f"{what} mark set {what} mark & {MARK_MASK ^ 0xFFFFFFFF:#x} | {value:#x}"


def match(where: str, one: Clearance, port: str) -> str:
    """Match a listed address with its protocol and ports; ``where`` is saddr or daddr, ``port`` sport or dport."""
    rule = f"{IP[one.network.version]} {where} {one.network}"
    if one.protocol is None:
        return rule
    if one.ports is None:
        return f"{rule} meta l4proto {one.protocol}"
    low, high = one.ports
    name = _NAMES[one.protocol]
    return f"{rule} {name} {port} {low if low == high else f'{low}-{high}'}"


def named_set(name: str, kind: str, elements: Iterable[str] = ()) -> str:
    """Return a set with its elements."""
    listed = ", ".join(elements)
    return f"  set {name} {{ {kind} {f'elements = {{ {listed} }} ' if listed else ''}}}\n"


def chain(name: str, rules: Iterable[str]) -> str:
    """Return a chain that others jump to."""
    lines = "".join(f"    {rule}\n" for rule in rules)
    return f"  chain {name} {{\n{lines}  }}\n"


def hook(name: str, hook: str, rules: Iterable[str]) -> str:
    """Return a chain that the kernel calls."""
    return chain(name, [f"type {hook}; policy accept;", *rules])
