"""Write the vectors: ``python tests/vectors/make.py``. Seeded, so that they come out the same each time.

The recorded handshake is not among them: `record_handshake.py` makes it once.
"""

import json
import random
import sys
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from vectors.exchanges import exchanges
from vectors.records import records, refused, windows
from vectors.wire import keys, wire

HERE: Final = Path(__file__).parent


def all_vectors() -> dict[str, list[dict[str, object]]]:
    """Return each file's name and its cases."""
    draw = random.Random("tencrypt/1")
    return {
        "wire": wire(draw),
        "keys": keys(draw),
        "records": records(draw),
        "refused": refused(draw),
        "windows": windows(),
        "exchanges": exchanges(draw),
    }


def encode(cases: list[dict[str, object]]) -> str:
    """Return a file's text."""
    return json.dumps(cases, indent=1) + "\n"


def main() -> None:
    """Write all files."""
    for name, cases in all_vectors().items():
        (HERE / f"{name}.json").write_text(encode(cases), encoding="ascii")


if __name__ == "__main__":
    main()
