"""The one place that reads the wall clock for the proxy."""

import time


def wall() -> float:
    """Return Unix time in seconds by the machine's clock."""
    return time.time()  # noqa: TID251 - the one place


def monotonic() -> float:
    """Return monotonic seconds, of the same clock as an asyncio loop's."""
    return time.monotonic()  # noqa: TID251 - the one place
