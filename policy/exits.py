"""How a command ends: its exit code (docs/operating.md) and one line of what was wrong."""

import sys
from typing import Final

FINE: Final = 0
FAILED: Final = 1
WRONG: Final = 2
LACKING: Final = 4
LEAK: Final = 5
NOT_SO: Final = 6
"""What was asked about is not so: not proven, not ready, not as planned."""


def say(message: str, code: int) -> int:
    """Print one line of error; give the exit code back."""
    sys.stderr.write(f"tencrypt: {message}\n")
    return code
