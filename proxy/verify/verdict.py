"""What follows from what both ends saw (``docs/decisions/0007``), as plain data and as text."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from proxy.credentials.certificate import PodCertificate
from proxy.session.session import Session
from proxy.status import JsonObject, draw_table
from proxy.verify.frames import IPV6, OUTGOING, UDP
from proxy.verify.messages import Seen
from proxy.verify.orders import Flowed

PROVEN, LEAK, NOT_PROVEN = "proven", "leak", "not proven"

_HEADS: Final = ("SEALED", "CLEAR", "FOREIGN", "CANARIES", "MISSED", "REFUSED")


@dataclass(frozen=True, slots=True)
class Side:
    """One end: the pod, what its interface has shown, and in words what should not have been there."""

    pod: str
    seen: Seen
    texts: tuple[str, ...] = ()


def judge(flows: Sequence[Flowed], sides: Sequence[Side]) -> tuple[str, list[str]]:
    """Return the verdict and its reasons; a leak outweighs all else."""
    leaks = [reason for side in sides for reason in _leaks(side)]
    if leaks:
        return LEAK, leaks
    doubts = [
        f"{flow.protocol} {flow.source} -> {flow.destination}: {flow.error}"
        for flow in flows
        if flow.error
    ]
    carried = sum(flow.sent + flow.returned for flow in flows)
    expected = _inside(flows)
    doubts += [reason for side in sides for reason in _doubts(side, carried, expected)]
    if not flows:
        doubts.append("no canary could be sent")
    return (NOT_PROVEN, doubts) if doubts else (PROVEN, [])


def _inside(flows: Iterable[Flowed]) -> int:
    """Return what tenc0 must have shown at each end: both canaries of each flow."""
    bits = 0
    for flow in flows:
        kind = (flow.protocol == "UDP") * UDP + ("[" in flow.source) * IPV6
        bits |= 1 << kind | 1 << kind + OUTGOING
    return bits


def _leaks(side: Side) -> Iterable[str]:
    seen = side.seen
    if seen.canaries_out:
        yield f"{side.pod}: {seen.canaries_out} frames with a canary in clear left it"
    if seen.clear_out:
        yield f"{side.pod}: {seen.clear_out} frames to the peer left it in clear"
    if seen.foreign_out:
        yield f"{side.pod}: {seen.foreign_out} datagrams that are of no session left its session port"
    if seen.canaries_in:
        yield f"{side.pod}: {seen.canaries_in} frames with a canary in clear came, by the peer or on their way"


def _doubts(side: Side, carried: int, expected: int) -> Iterable[str]:
    seen = side.seen
    if seen.missed:
        yield f"{side.pod}: {seen.missed} frames could not be looked at: it is too busy for that"
    if seen.unreadable:
        yield (
            f"{side.pod}: {seen.unreadable} frames that its kernel cannot describe:"
            " before Linux 6.2, leave gso and gro out of offloads on both pods for this"
        )
    if seen.inside & expected != expected:
        yield f"{side.pod}: not every canary was seen on tenc0"
    if seen.sealed_bytes < carried:
        yield f"{side.pod}: {seen.sealed_bytes} sealed bytes seen, {carried} of canaries were under way"


def report(
    session: Session, wall: float, flows: Sequence[Flowed], sides: Sequence[Side]
) -> JsonObject:
    """Return verdict, reasons, the peer as its certificate names it, flows and what was seen."""
    word, reasons = judge(flows, sides)
    return {
        "verdict": word,
        "reasons": reasons,
        "peer": _peer(session.peer, wall),
        "cipher": session.suite,
        "group": session.group,
        "flows": [asdict(flow) for flow in flows],
        "seen": [
            {"pod": side.pod, **asdict(side.seen), "texts": list(side.texts)} for side in sides
        ],
    }


def _peer(peer: PodCertificate, wall: float) -> JsonObject:
    return {
        "name": peer.pod,
        "identity": peer.identity.uri,
        "addresses": peer.address_texts(),
        "serial": f"{peer.serial:x}",
        "not_after": peer.not_after,
        "remaining_seconds": round(peer.not_after - wall),
    }


def unproven(reason: str) -> JsonObject:
    """Return the answer where nothing could be looked at."""
    return {"verdict": NOT_PROVEN, "reasons": [reason], "peer": None, "flows": [], "seen": []}


def draw(answer_untrusted: JsonObject) -> str:
    """Return the answer as text; KeyError or TypeError where it is none."""
    lines = [*_draw_peer(answer_untrusted)]
    flows = [
        (flow["protocol"], flow["source"], flow["destination"], flow["error"] or "there and back")
        for flow in _dicts(answer_untrusted["flows"])
    ]
    if flows:
        lines += draw_table([("FLOW", "FROM", "TO", "CANARIES"), *(map(_texts, flows))])
        lines.append("")
    seen = _dicts(answer_untrusted["seen"])
    if seen:
        lines += draw_table([("SEEN BY", *_HEADS), *map(_draw_seen, seen)])
        lines += [f"{one['pod']}: {text}" for one in seen for text in _list(one["texts"])]
        lines.append("")
    reasons = _list(answer_untrusted["reasons"])
    lines += [f"{answer_untrusted['verdict']}: {reason}" for reason in reasons]
    if not reasons:
        lines.append(
            f"{answer_untrusted['verdict']}: the canaries arrived by tenc0, "
            "and outside was nothing but sealed datagrams"
        )
    return "\n".join(lines)


def _draw_peer(answer: JsonObject) -> Iterable[str]:
    peer = answer["peer"]
    if isinstance(peer, dict):
        yield f"{peer['name']}  {peer['identity']}  {' '.join(map(str, _list(peer['addresses'])))}"
        yield (
            f"certificate {peer['serial']}, {peer['remaining_seconds']} s left; "
            f"{answer['cipher']}, {answer['group']}"
        )
        yield ""


def _draw_seen(one: JsonObject) -> tuple[str, ...]:
    sealed = f"{one['sealed']} ({float(str(one['sealed_bytes'])) / 1000:.1f} KB)"
    canaries, missed, refused = (
        sum(int(str(one[key])) for key in keys)
        for keys in (
            ("canaries_out", "canaries_in"),
            ("missed", "unreadable"),
            ("clear_in", "foreign_in"),
        )
    )
    return _texts(
        (one["pod"], sealed, one["clear_out"], one["foreign_out"], canaries, missed, refused)
    )


def _texts(row: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, row))


def _dicts(value: object) -> list[JsonObject]:
    rows = _list(value)
    if not all(isinstance(row, dict) for row in rows):
        raise TypeError("not an answer to verify")
    return rows  # type: ignore[return-value]  # checked one line up


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("not an answer to verify")
    return value
