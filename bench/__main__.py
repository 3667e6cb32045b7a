"""Run by `make bench`, as root. See docs/performance.md.

Exit codes: 0 measured, 2 wrong usage, 4 the machine lacks something, 130 interrupted (what was measured is printed).
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

# The tests' folder is on the path only now.
from support.cache import UnavailableError
from support.machine import lacking
from support.namespaces import clean_stale

from bench import chart, machine, report
from bench.peers import Family, Peer
from bench.plan import all_alone, all_peers, all_works
from bench.results import Results
from bench.rounds import Plan, Run
from bench.work import Alone, Work

FAMILIES: Final[dict[str, Family]] = {"4": 4, "6": 6}
MOST_SECONDS: Final = 60
MOST_ROUNDS: Final = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write JSON and chart."""
    chosen = _parse(arguments)
    if missing := lacking():
        print(f"bench: this machine lacks {', '.join(missing)}", file=sys.stderr)
        return 4
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    for left in clean_stale():
        _tell(f"removed what an earlier run left: {left}")
    results, head, code = Results(), machine.head(), 0
    try:
        plan = Plan(
            peers=[peer for peer in chosen.peers if _has(peer, results)],
            works=[work for work in chosen.works if _can(work, results)],
            alone=[work for work in chosen.alone if _can(work, results)],
            families=chosen.families,
            rounds=chosen.rounds,
            seconds=chosen.seconds,
        )
        head["rounds"] = f"{plan.rounds} of {plan.seconds} s a work"
        Run(plan, results, _tell).measure()
    except KeyboardInterrupt:
        _tell("interrupted; everything is undone")
        code = 130
    finally:
        if results.values or results.notes or results.unavailable:
            _write(chosen.out, head, results)
    return code


def _has(peer: Peer, results: Results) -> bool:
    """Prepare a peer; one that cannot be had is named in the table."""
    try:
        results.versions[peer.name] = peer.prepare()
    except UnavailableError as error:
        results.unavailable[peer.name] = str(error)
        return False
    return True


def _can(work: Work | Alone, results: Results) -> bool:
    """Prepare a work; one that cannot be done is named in the table."""
    try:
        work.prepare()
    except UnavailableError as error:
        results.unavailable[f"work {work.name}"] = str(error)
        return False
    return True


def _write(out: Path, head: dict[str, str], results: Results) -> None:
    print(report.table(head, results))
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.as_json(head, results), indent=1)
    (out / "bench.json").write_text(text + "\n", encoding="utf-8")
    (out / "bench.svg").write_text(chart.draw(head, results), encoding="utf-8")
    print(f"\n{out / 'bench.json'}, {out / 'bench.svg'}")


@dataclass(frozen=True)
class Chosen:
    """What the command line says."""

    rounds: int
    seconds: int
    peers: list[Peer]
    works: list[Work]
    alone: list[Alone]
    families: list[Family]
    out: Path


def _parse(arguments: Sequence[str] | None) -> Chosen:
    peers, works, alone = all_peers(), all_works(), all_alone()
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").strip())
    every_work = [*_names(works), *_names(alone)]
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--seconds", type=int, default=2, metavar="S", help="a work, default 2")
    parser.add_argument("--peers", default="", metavar="A,B", help=", ".join(_names(peers)))
    parser.add_argument("--work", default="", metavar="X,Y", help=", ".join(every_work))
    parser.add_argument("--family", default="4,6", help="4, 6 or 4,6 (default)")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR")
    said = parser.parse_args(arguments)
    for flag, value, most in (
        ("rounds", said.rounds, MOST_ROUNDS),
        ("seconds", said.seconds, MOST_SECONDS),
    ):
        if not 1 <= value <= most:
            parser.error(f"--{flag} {value}: 1 to {most}")
    named = {
        "peers": _words(parser, "--peers", said.peers, _names(peers)),
        "work": _words(parser, "--work", said.work, every_work),
        "family": _words(parser, "--family", said.family, list(FAMILIES)),
    }
    return Chosen(
        said.rounds,
        said.seconds,
        [peer for peer in peers if peer.name in named["peers"]],
        [work for work in works if work.name in named["work"]],
        [work for work in alone if work.name in named["work"]],
        [FAMILIES[word] for word in named["family"]],
        said.out,
    )


def _words(parser: argparse.ArgumentParser, flag: str, text: str, known: list[str]) -> list[str]:
    """Read a list with commas, each of `known`; empty means all."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            parser.error(f"{flag} {word}: one or more of {','.join(known)}")
    return list(dict.fromkeys(words)) or known


def _names(items: Iterable[Peer | Work | Alone]) -> list[str]:
    return [item.name for item in items]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End the run at the first signal; later ones must not disturb the cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
