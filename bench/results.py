"""What was measured, and what it comes to: medians, spread, ratios."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from bench.peers import Family
from bench.work import METRICS

NO_FAMILY = 0
"""Stands for works that no packet of a pod is part of."""

OURS = ("tencrypt", "c")
BASE = "plain"


@dataclass(frozen=True)
class Summary:
    """One peer's figure of one metric, over all rounds."""

    median: float
    lowest: float
    highest: float
    rounds: int


@dataclass
class Results:
    """Values in the order in which they came, failures, and who could not take part."""

    versions: dict[str, str] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    values: dict[tuple[str, int, str], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    notes: dict[tuple[str, int, str], str] = field(default_factory=dict)

    def add(self, metric: str, family: Family | int, peer: str, value: float) -> None:
        """Keep a value."""
        self.values[metric, family, peer].append(value)

    def note(self, metric: str, family: Family | int, peer: str, reason: str) -> None:
        """Keep why a value is missing: the first reason stands."""
        self.notes.setdefault((metric, family, peer), reason)

    def summary(self, metric: str, family: int, peer: str) -> Summary | None:
        """Sum up; None if nothing was measured."""
        values = self.values.get((metric, family, peer))
        if not values:
            return None
        return Summary(statistics.median(values), min(values), max(values), len(values))

    def metrics(self) -> list[str]:
        """Give the metrics that were measured or failed, in the order of METRICS."""
        told = {key for key, _, _ in (*self.values, *self.notes)}
        return [key for key in METRICS if key in told]

    def families(self, metric: str) -> list[int]:
        """Give the families of a metric."""
        keys = (*self.values, *self.notes)
        return sorted({family for key, family, _ in keys if key == metric})

    def peers(self, metric: str) -> list[str]:
        """Give who has a value or a note, in the order in which they were prepared."""
        keys = (*self.values, *self.notes)
        told = dict.fromkeys(peer for key, _, peer in keys if key == metric)
        places = {peer: place for place, peer in enumerate(self.versions)}
        return sorted(told, key=lambda peer: places.get(peer, len(places)))

    def best_other(self, metric: str, family: int, *, higher: bool) -> float | None:
        """Give the best median of those that a user could pick instead."""
        found = [
            summary.median
            for peer in self.peers(metric)
            if peer != BASE and not peer.startswith("tencrypt") and peer not in OURS
            if (summary := self.summary(metric, family, peer))
        ]
        return (max if higher else min)(found, default=None)


def ratio(value: float, other: float | None) -> float | None:
    """Divide, where there is something to divide by."""
    return value / other if other else None
