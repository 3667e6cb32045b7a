"""The results as a table for people and as JSON for programs."""

from typing import Any

from bench.results import BASE, Results, Summary, ratio
from bench.work import METRICS, Metric

WIDTH_OF_CELL = 38


def table(head: dict[str, str], results: Results) -> str:
    """Give the whole table: head, versions, then a block for each metric with a line for each peer."""
    lines = [", ".join(f"{key}: {value}" for key, value in head.items())]
    told = {
        **results.versions,
        **{who: f"not here: {why}" for who, why in results.unavailable.items()},
    }
    width = max(map(len, told), default=0)
    lines += [f"  {who:<{width}}  {what}" for who, what in told.items()]
    lines.append(
        "Medians of the rounds (lowest..highest); x plain and x best: how many times plain's figure, and"
    )
    lines.append("the best other peer's (neither Tencrypt nor c).")
    for key in results.metrics():
        lines += ["", *_block(METRICS[key], results)]
    sometimes = {where: why for where, why in results.notes.items() if where in results.values}
    if sometimes:
        lines += ["", "Failed in some rounds, which are not in the figures:"]
    for (key, family, peer), why in sometimes.items():
        lines.append(f"  {METRICS[key].title}, IPv{family}, {peer}: {why}")
    return "\n".join(lines)


def as_json(head: dict[str, str], results: Results) -> dict[str, Any]:
    """Give everything that was measured, each value of each round."""
    entries = []
    for (key, family, peer), values in results.values.items():
        metric, summary = METRICS[key], results.summary(key, family, peer)
        if summary is None:
            continue
        plain, best = _compared(metric, family, summary, results)
        entries.append(
            {
                "metric": key,
                "title": metric.title,
                "unit": metric.unit,
                "higher_is_better": metric.higher_is_better,
                "family": family or None,
                "peer": peer,
                "values": values,
                "median": summary.median,
                "min": summary.lowest,
                "max": summary.highest,
                "ratio_to_plain": plain,
                "ratio_to_best_other": best,
            }
        )
    missing = [
        {"metric": key, "family": family or None, "peer": peer, "reason": reason}
        for (key, family, peer), reason in results.notes.items()
    ]
    return {
        "head": head,
        "versions": results.versions,
        "unavailable": results.unavailable,
        "results": entries,
        "missing": missing,
    }


def _block(metric: Metric, results: Results) -> list[str]:
    better = "more" if metric.higher_is_better else "less"
    families = results.families(metric.key)
    peers = results.peers(metric.key)
    width = max(len(peer) for peer in peers)
    heads = ["".ljust(width)]
    for family in families:
        name = f"IPv{family}" if family else ""
        heads.append(f"{name:<22}{'x plain':>8}{'x best':>8}")
    lines = [
        f"{metric.title}, {metric.unit} ({better} is better)",
        "  " + "  ".join(heads).rstrip(),
    ]
    for peer in peers:
        cells = [_cell(metric, family, peer, results) for family in families]
        lines.append("  " + "  ".join([f"{peer:<{width}}", *cells]).rstrip())
    return lines


def _cell(metric: Metric, family: int, peer: str, results: Results) -> str:
    summary = results.summary(metric.key, family, peer)
    if summary is None:
        return results.notes.get((metric.key, family, peer), "-")[:WIDTH_OF_CELL].ljust(
            WIDTH_OF_CELL
        )
    digits = metric.digits
    spread = f"{summary.lowest:.{digits}f}..{summary.highest:.{digits}f}"
    plain, best = (
        "" if value is None else f"{value:.2f}"
        for value in _compared(metric, family, summary, results)
    )
    return f"{summary.median:>7.{digits}f} {'(' + spread + ')':<14}{plain:>8}{best:>8}"


def _compared(
    metric: Metric, family: int, summary: Summary, results: Results
) -> tuple[float | None, float | None]:
    base = results.summary(metric.key, family, BASE)
    best = results.best_other(metric.key, family, higher=metric.higher_is_better)
    return ratio(summary.median, base.median if base else None), ratio(summary.median, best)
