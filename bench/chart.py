"""The results as an SVG chart: a panel for each metric, a bar for each peer.

Nothing is behind it, and its greys stand in the middle, so that it reads on light and on dark pages. (A style
for each would follow the system's setting, which need not be the page's.)
"""

from html import escape
from typing import Final

from bench.results import OURS, Results
from bench.work import METRICS, Metric

COLUMNS: Final = 2
PANEL: Final = 430
NAME: Final = 130
FIGURE: Final = 62
LINE: Final = 18
BAR: Final = 11
TITLE: Final = 40
GAP: Final = 18
FOOT: Final = 30

# 4.3 to 1 against white and against #0d1117, each.
INK: Final = "#767c84"
BARS: Final = {"tencrypt": "#2f81f7", "plain": "#8b949e66", "c": "#8b949e66"}
FALL_BACK: Final = "#2f81f780"
OTHER: Final = "#8b949e"


def draw(head: dict[str, str], results: Results) -> str:
    """Give the chart of each metric's first family: medians as bars, lowest to highest as a line."""
    panels = []
    for key in results.metrics():
        family = results.families(key)[0]
        peers = [peer for peer in results.peers(key) if results.summary(key, family, peer)]
        if peers:
            panels.append((METRICS[key], family, peers))
    parts, top = [], float(GAP)
    for at in range(0, len(panels), COLUMNS):
        row = panels[at : at + COLUMNS]
        for column, (metric, family, peers) in enumerate(row):
            left = column * (PANEL + GAP)
            parts.append(f'<g transform="translate({left},{top:g})">')
            parts += [*_panel(metric, family, peers, results), "</g>"]
        top += TITLE + LINE * max(len(peers) for _, _, peers in row) + GAP
    width, height = COLUMNS * PANEL + (COLUMNS - 1) * GAP, top + FOOT
    foot = ", ".join(
        f"{name}: {head[name]}"
        for name in ("date", "cpu", "cores", "kernel", "rounds")
        if name in head
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}">',
            f'<g font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
            f"<title>Tencrypt and what a user could pick instead. {escape(foot)}</title>",
            *parts,
            f'<text x="0" y="{height - 8:g}" font-size="11">{escape(foot)}</text>',
            "</g></svg>\n",
        ]
    )


def _panel(metric: Metric, family: int, peers: list[str], results: Results) -> list[str]:
    """Give one panel's elements, its upper left corner at 0, 0."""
    better = "more is better" if metric.higher_is_better else "less is better"
    of_family = f", IPv{family}" if family else ""
    lines = [
        f'<text y="12" font-size="13" font-weight="600">{escape(metric.title)}{of_family}</text>',
        f'<text y="28" font-size="11">{escape(metric.unit)}, {better}</text>',
    ]
    summaries = {peer: results.summary(metric.key, family, peer) for peer in peers}
    largest = max(summary.highest for summary in summaries.values() if summary) or 1.0
    scale = (PANEL - NAME - FIGURE) / largest
    for number, (peer, summary) in enumerate(summaries.items()):
        if summary is None:
            continue
        y = TITLE + number * LINE
        weight = ' font-weight="700"' if peer == "tencrypt" else ""
        colour = BARS.get(peer, FALL_BACK if peer.startswith(OURS[0]) else OTHER)
        length, middle = max(summary.median * scale, 1), y + BAR / 2
        lowest, highest = (NAME + end * scale for end in (summary.lowest, summary.highest))
        figure = f"{summary.median:,.{metric.digits}f}"
        lines += [
            f'<text x="{NAME - 8}" y="{y + BAR - 1}" text-anchor="end"{weight}>{escape(_short(peer))}</text>',
            f'<rect x="{NAME}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
            f'<path d="M{lowest:.1f} {middle}H{highest:.1f}" stroke="{INK}" stroke-width="1.5"/>',
            f'<text x="{highest + 6:.1f}" y="{y + BAR - 1}"{weight}>{figure}</text>',
        ]
    return lines


def _short(peer: str) -> str:
    """Give a name that fits: of a fall-back only what is gone."""
    return peer.removeprefix(f"{OURS[0]}-")
