"""What `tencrypt status` shows: gathered from the running parts as plain data, and drawn as text."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

from proxy.credentials.certificate import PodCertificate
from proxy.drops import Drops
from proxy.session.profile import DEFAULT_PROFILE
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.session.wire import MOST_DATAGRAMS

JsonObject = dict[str, object]


def report(  # noqa: PLR0913, PLR0917 - what it is about
    own: PodCertificate,
    renewal: JsonObject,
    table: SessionTable,
    drops: Drops,
    now: float,
    offloads: Mapping[str, bool],
) -> JsonObject:
    """Return the status as JSON-ready data; ages and lives in seconds, times as Unix seconds.

    ``renewal`` says how the own certificate's renewals fare, ``offloads`` which are in use.
    """
    wall = now + table.wall_offset
    sessions = sorted(table.sessions.values(), key=lambda s: (s.peer.pod, -s.generation))
    return {
        "pod": _pod(own),
        "certificate": {
            "serial": f"{own.serial:x}",
            "not_after": own.not_after,
            "remaining_seconds": round(own.not_after - wall),
            "renewal": renewal,
        },
        "tls": {"suites": list(table.profile.suites), "groups": list(table.profile.groups)},
        "offloads": dict(offloads),
        "sessions": [_session(session, now) for session in sessions],
        "datagrams": {"sent": dict(table.sent), "received": dict(table.received)},
        "drops": {str(reason): count for reason, count in sorted(drops.items()) if count},
    }


def _pod(certificate: PodCertificate) -> JsonObject:
    return {
        "name": certificate.pod,
        "identity": certificate.identity.uri,
        "addresses": certificate.address_texts(),
    }


def _session(session: Session, now: float) -> JsonObject:
    return {
        "peer": _pod(session.peer),
        "peer_serial": f"{session.peer.serial:x}",
        "peer_not_after": session.peer.not_after,
        "endpoint": f"{draw_host(session.endpoint[0])}:{session.endpoint[1]}",
        "state": session.state,
        "role": "initiator" if session.is_initiator else "responder",
        "generation": session.generation,
        "datagram_bytes": session.path.size,
        "cipher": session.suite,
        "group": session.group,
        "age_seconds": round(now - session.opened, 3),
        "record_datagrams": session.limit.most,
        "records_incomplete": session.opener.incomplete,
        "packets_in": session.packets_in,
        "packets_out": session.packets_out,
        "bytes_in": session.bytes_in,
        "bytes_out": session.bytes_out,
    }


def draw_host(host: str) -> str:
    """Return an address as it stands before a colon and a port."""
    return f"[{host}]" if ip_address(host).version == 6 else host


def draw(status_untrusted: JsonObject) -> str:
    """Return the status as text for people; raises KeyError or TypeError where it is not a status."""
    pod, certificate = _dict(status_untrusted["pod"]), _dict(status_untrusted["certificate"])
    lines = [
        f"{pod['name']}  {pod['identity']}  {' '.join(map(str, _list(pod['addresses'])))}",
        f"certificate {certificate['serial']}, {draw_span(certificate['remaining_seconds'])} left",
        *_limits(_dict(status_untrusted["tls"])),
        *_missing(_dict(status_untrusted["offloads"])),
        *_trouble(_dict(certificate["renewal"])),
        *_project(status_untrusted),
        "",
    ]
    sessions = [_dict(session) for session in _list(status_untrusted["sessions"])]
    rows = [_row(session) for session in sessions]
    heads = ("PEER", "IDENTITY", "ENDPOINT", "STATE", "CIPHER", "GROUP", "AGE", "IN", "OUT")
    lines += draw_table([heads, *rows]) if rows else ["no sessions"]
    lines += [
        f"{_dict(session['peer'])['name']}: the path loses, records of {session['record_datagrams']} datagrams at most"
        for session in sessions
        if session["record_datagrams"] != MOST_DATAGRAMS
    ]
    drops = _dict(status_untrusted["drops"])
    lines += (
        ["", *(draw_table([("REFUSED", "COUNT"), *((k, str(v)) for k, v in drops.items())]))]
        if drops
        else []
    )
    return "\n".join(lines)


def _limits(tls: JsonObject) -> list[str]:
    """Return what TLS may agree on, where that is not the default."""
    suites, groups = (tuple(map(str, _list(tls[key]))) for key in ("suites", "groups"))
    if (suites, groups) == (DEFAULT_PROFILE.suites, DEFAULT_PROFILE.groups):
        return []
    return [f"TLS limited to {', '.join(suites)}; {', '.join(groups)}"]


def _missing(offloads: JsonObject) -> list[str]:
    """Return which offloads are not in use, if any: packets then cost more."""
    off = [name for name, used in offloads.items() if not used]
    return [f"without offloads: {', '.join(off)}"] if off else []


def _trouble(renewal: JsonObject) -> list[str]:
    if not renewal["failures"]:
        return []
    pause = draw_span(renewal["next_seconds"])
    return [
        f"renewal failed ({renewal['failures']} in a row), again in {pause}: {renewal['last_error']}"
    ]


def _project(status: JsonObject) -> list[str]:
    """Return what is not as it should be, or not yet."""
    project = _dict(status.get("project", {}))
    lines = []
    glass = project.get("break_glass")
    if glass is not None:
        lines.append(f"THE GLASS IS BROKEN, plaintext passes: {_dict(glass).get('reason')}")
    if project.get("encryption") == "permissive":
        lines.append("encryption is permissive: clear to addresses without a certificate")
    rules = _dict(project.get("rules", {}))
    if rules.get("error") is not None:
        lines.append(f"rules refused, the former are in force: {rules['error']}")
    if rules.get("mode") == "audit" and rules.get("audited"):
        lines.append("rules are in audit: something was not refused that enforce would refuse")
    return lines


def _row(session: JsonObject) -> tuple[str, ...]:
    peer = _dict(session["peer"])
    return (
        str(peer["name"]),
        str(peer["identity"]),
        str(session["endpoint"]),
        str(session["state"]),
        str(session["cipher"]),
        str(session["group"]),
        draw_span(session["age_seconds"]),
        _volume(session["bytes_in"]),
        _volume(session["bytes_out"]),
    )


def draw_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows, the first of them headings, as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def draw_span(seconds: object) -> str:
    """Return seconds as people read them: 3m05s."""
    left = int(float(str(seconds)))
    if left < 0:
        return "none"
    hours, minutes = left // 3600, left % 3600 // 60
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{left % 60:02}s"


def _volume(size: object) -> str:
    value, units = float(str(size)), iter(("B", "KB", "MB", "GB"))
    unit = next(units)
    while value >= 1000 and unit != "GB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _dict(value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise TypeError("not a status")
    return value


def _list(value: object) -> Iterable[object]:
    if not isinstance(value, list):
        raise TypeError("not a status")
    return value
