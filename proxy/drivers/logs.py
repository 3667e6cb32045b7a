"""Structured logs on standard error: one event a line, JSON for programs, short text on a terminal."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from typing_extensions import override

_LOGGER = logging.getLogger("tencrypt")


class _Lines(logging.Formatter):
    def __init__(self, *, human: bool) -> None:
        super().__init__()
        self._human = human

    @override
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        stamp = datetime.fromtimestamp(record.created, UTC)
        if self._human:
            text = " ".join(f"{name}={value}" for name, value in fields.items())
            return f"{stamp:%H:%M:%S} {record.levelname.lower():7} {record.getMessage()} {text}".rstrip()
        line = {
            "time": stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **fields,
        }
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(stream: TextIO | None = None) -> None:
    """Send all logs of this process to ``stream`` (standard error); JSON unless it is a terminal."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines(human=stream.isatty()))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # One line a request is aiohttp's habit; ours is one event for each thing that changed.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def event(name: str, level: int = logging.INFO, **fields: object) -> None:
    """Log one event; values are shown by `str`, and never hold keys or tokens."""
    _LOGGER.log(level, name, extra={"fields": fields})
