"""What the bench makes of its figures: medians, ratios, and what is missing."""

import pytest

from bench import chart, report
from bench.results import Results

HEAD = {"date": "2026-11-23 06:00 UTC", "cpu": "<model> & more"}


@pytest.fixture
def results() -> Results:
    made = Results(versions=dict.fromkeys(("plain", "envoy", "openvpn", "c", "tencrypt"), "1"))
    for peer, values in {
        "tencrypt": (6.0, 5.0, 40.0),
        "c": (7.0,),
        "openvpn": (1.0, 1.0),
        "envoy": (8.0, 9.0, 7.0),
        "plain": (16.0, 12.0, 20.0),
    }.items():
        for value in values:
            made.add("tcp1", 4, peer, value)
    return made


def entry(results: Results, metric: str, peer: str) -> dict[str, object]:
    told = report.as_json(HEAD, results)["results"]
    return next(each for each in told if (each["metric"], each["peer"]) == (metric, peer))


def test_one_wild_round_moves_the_spread_and_not_the_median(results: Results) -> None:
    told = entry(results, "tcp1", "tencrypt")

    assert (told["median"], told["min"], told["max"]) == (6.0, 5.0, 40.0)
    assert "6.00 (5.00..40.00)" in report.table(HEAD, results)


def test_ratios_are_to_plain_and_to_the_best_that_a_user_could_pick_instead(
    results: Results,
) -> None:
    told = entry(results, "tcp1", "tencrypt")

    assert told["ratio_to_plain"] == 6 / 16
    assert told["ratio_to_best_other"] == 6 / 8


def test_best_of_a_figure_that_should_be_small_is_the_smallest(results: Results) -> None:
    for peer, value in {"envoy": 130.0, "openvpn": 125.0, "c": 20.0, "tencrypt": 50.0}.items():
        results.add("ping_p50", 4, peer, value)

    assert entry(results, "ping_p50", "tencrypt")["ratio_to_best_other"] == 50 / 125


def test_peers_stand_in_the_order_of_the_plan(results: Results) -> None:
    assert results.peers("tcp1") == ["plain", "envoy", "openvpn", "c", "tencrypt"]


def test_what_is_missing_is_named_with_its_reason(results: Results) -> None:
    results.unavailable["nebula"] = "no go"
    results.note("udp64", 4, "envoy", "carries TCP alone")
    results.note("tcp1", 4, "openvpn", "failed: connection refused")

    table = report.table(HEAD, results)

    assert "nebula    not here: no go" in table
    assert "envoy  carries TCP alone" in table
    assert table.endswith(
        "Failed in some rounds, which are not in the figures:\n"
        "  TCP, 1 stream, IPv4, openvpn: failed: connection refused"
    )


def test_bars_are_as_long_as_their_figures_say(results: Results) -> None:
    drawn = chart.draw(HEAD, results)

    widths = [float(part.split('"')[0]) for part in drawn.split(' width="')[2:]]
    medians = [16.0, 8.0, 1.0, 7.0, 6.0]
    assert widths == pytest.approx([widths[0] * each / 16 for each in medians], abs=0.1)
    assert "&lt;model&gt; &amp; more" in drawn
