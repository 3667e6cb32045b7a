"""The CA's audit lines on standard error: one event a line, JSON for programs, short text on a terminal."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime

Audit = Callable[[str, dict[str, object]], None]
"""Takes an event's name and its fields, which never hold a token or a key."""


def lines(wall: Callable[[], datetime]) -> Audit:
    """Return what writes audit lines, each with the time of ``wall``."""
    human = sys.stderr.isatty()

    def write(event: str, fields: dict[str, object]) -> None:
        stamp = wall().astimezone(UTC)
        if human:
            text = " ".join(f"{name}={value}" for name, value in fields.items())
            line = f"{stamp:%H:%M:%S} {event} {text}"
        else:
            when = stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = json.dumps({"time": when, "event": event, **fields})
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - the audit's stream

    return write
