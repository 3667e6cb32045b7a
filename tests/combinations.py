"""Run what carries packets between real proxies on each combination of offloads but the usual one, which has all.

Part of `make test-full`: ``python tests/combinations.py [tso,gso none ...]``, all fifteen if none is named. Ends at the
first that fails.
"""

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
OFFLOADS: Final = ("tso", "uso", "gso", "gro")
SUITES: Final = ("promise", "protocols", "refusals", "restart", "paths", "lifecycle")


def every() -> list[str]:
    """Return the combinations as words of ``--offloads``, the poorest first."""
    sizes = range(len(OFFLOADS))
    return [",".join(some) or "none" for size in sizes for some in combinations(OFFLOADS, size)]


def main(chosen: list[str]) -> int:
    """Run pytest once for each; return the exit code of the last."""
    files = [str(ROOT / f"tests/netns/test_{suite}.py") for suite in SUITES]
    todo = chosen or every()
    for number, words in enumerate(todo, 1):
        print(f"offloads {words}: {number} of {len(todo)}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--offloads", words, *files]
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
