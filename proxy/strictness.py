"""What `tencrypt check --ready-for strict` says: which flows in clear strict would refuse, and what to do."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy.flow.membership import Kind, Verdict
from proxy.status import JsonObject, draw_span, draw_table

SPOKEN, HEARD = "spoken", "heard"
_WAYS: Final = {SPOKEN: "out", HEARD: "in"}


@dataclass(frozen=True, slots=True)
class ClearFlow:
    """Connections in clear that the kernel counted: with whom, and the port of who was called.

    ``age`` is in seconds since the latest began.
    """

    direction: str
    address: str
    protocol: str
    port: int
    connections: int
    age: float


def parse_flows(text_untrusted: str) -> list[ClearFlow]:
    """Return what the net agent answers to an audit; raises ValueError."""
    found = json.loads(text_untrusted)
    flows = []
    for one in found if isinstance(found, list) else [found]:
        match one:
            case [
                "spoken" | "heard" as direction,
                str(address),
                str(protocol),
                int(port),
                int(connections),
                int() | float() as age,
            ]:
                flows.append(
                    ClearFlow(str(direction), address, protocol, port, connections, float(age))
                )
            case _:
                raise ValueError(f"no clear flow: {str(one)[:80]}")
    return flows


def advise(
    flow: ClearFlow, verdict: Verdict, name: str, unpatched: Iterable[str] | None
) -> str | None:
    """Say what to do before strict, None where strict changes nothing: a member is called sealed already.

    ``name`` is what the address is known by, empty without one; ``unpatched`` are endpoints without certificates where
    the address is a Service's, None where it is not known as one.
    """
    listed = f'["{flow.address} {flow.protocol}/{flow.port}"]'
    is_member = verdict.kind is Kind.MEMBER
    if flow.direction == HEARD:
        if is_member:
            return "has Tencrypt and calls in clear, as by a Service of unknown endpoints: make it strict first"
        return f"give that pod Tencrypt, or list it: clear_in = {listed}"
    if is_member:
        return None
    if unpatched is not None:
        return f"give its endpoints Tencrypt: {', '.join(unpatched)}" if unpatched else None
    if name:
        return (
            f"a pod: give it Tencrypt; a Service: tell its endpoints (endpoints_file); else list it: "
            f"clear_out = {listed}"
        )
    return f"give that pod Tencrypt, or list it: clear_out = {listed}"


def draw(answer_untrusted: JsonObject) -> tuple[str, bool]:
    """Return an answer as a screen, and whether strict would break nothing; raises KeyError or TypeError."""
    ready = answer_untrusted["ready"] is True
    lines = [str(answer_untrusted["summary"])]
    flows = answer_untrusted["flows"]
    if not isinstance(flows, list):
        raise TypeError("not an answer of check")
    if flows:
        rows = [("DIRECTION", "PEER", "NAME", "PORT", "CONNECTIONS", "LAST", "WHAT TO DO")]
        for one in flows:
            port = f"{one['protocol']}/{one['port']}"
            seen = draw_span(one["last_seconds"])
            way = _WAYS[one["direction"]]
            name = str(one["name"]) or "-"
            count = str(one["connections"])
            rows.append((way, str(one["address"]), name, port, count, seen, str(one["what"])))
        lines += ["", *draw_table(rows)]
    return "\n".join(lines), ready
