"""`make bench` measures, tells what it could not, and leaves nothing behind. No figure is judged."""

import json
import os
import signal
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from support.namespaces import NETNS_DIRECTORY
from support.processes import HarnessError, Process, run

TREE = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "bench")
SHORT = ("--rounds", "1", "--seconds", "1", "--family", "4", "--work", "tcp1,memory")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def started(tmp_path: Path) -> Process:
    """A run that has measured one peer and is at the next."""
    command: list[str | Path] = [
        *COMMAND,
        *SHORT,
        "--peers",
        "plain,tencrypt",
        "--out",
        tmp_path / "out",
    ]
    process = Process(command, tmp_path / "bench", env={**os.environ, "PYTHONPATH": str(TREE)})
    process.wait_until("its second peer", lambda: "IPv4, tencrypt" in process.stderr, 30.0)
    return process


def left_by(process: Process) -> list[Path]:
    pattern = f"tencrypt-pods-{process.pid}-*"
    return [*NETNS_DIRECTORY.glob(pattern), *Path("/tmp").glob(pattern)]


def test_short_run_writes_table_json_and_chart_and_leaves_nothing(
    started: Process, tmp_path: Path
) -> None:
    assert started.wait(60) == 0

    assert "TCP, 1 stream, Gbit/s" in started.stdout
    told = json.loads((tmp_path / "out/bench.json").read_text())
    measured = {(entry["metric"], entry["peer"]): entry for entry in told["results"]}
    assert measured["tcp1", "plain"]["ratio_to_plain"] == 1
    assert measured["tcp1", "tencrypt"]["values"][0] > 0
    assert measured["cpu_peer", "tencrypt"]["median"] > 0
    assert measured["memory", "tencrypt"]["median"] > 0
    assert ("memory", "plain") not in measured
    assert set(told["versions"]) == {"plain", "tencrypt"}
    assert {"date", "cpu", "cores", "kernel"} <= set(told["head"])
    assert not told["missing"]
    chart = ET.parse(tmp_path / "out/bench.svg").getroot()  # noqa: S314 - our own
    assert "tencrypt" in {text.text for text in chart.iter(f"{SVG}text")}
    assert not left_by(started)


def test_interrupted_run_tells_what_it_has_and_leaves_nothing(
    started: Process, tmp_path: Path
) -> None:
    assert left_by(started)

    assert started.stop(signal.SIGINT, 30) == 130

    told = json.loads((tmp_path / "out/bench.json").read_text())
    assert ("tcp1", "plain") in {(entry["metric"], entry["peer"]) for entry in told["results"]}
    assert "TCP, 1 stream, Gbit/s" in started.stdout
    assert not left_by(started)


def test_dns_is_measured_directly_and_through_the_proxy(tmp_path: Path) -> None:
    command = [*COMMAND, "--rounds", "1", "--seconds", "1", "--work", "dns", "--peers", "plain"]

    done = run([*command, "--out", tmp_path], env={**os.environ, "PYTHONPATH": str(TREE)})

    told = json.loads((tmp_path / "bench.json").read_text())
    measured = {(entry["metric"], entry["peer"]): entry["median"] for entry in told["results"]}
    contestants = {"dnsmasq alone", "tencrypt", "tencrypt-new-answers"}
    for metric in ("dns_rate", "dns_p50", "dns_p99"):
        assert {peer for key, peer in measured if key == metric} == contestants
    assert measured["dns_cpu", "tencrypt"] > 0
    assert min(measured.values()) > 0
    assert not told["missing"]
    assert "DNS answer, p50, us" in done.stdout


def test_peer_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    # No compiler on PATH, and nothing compiled before.
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path),
        "PATH": _path_without(tmp_path, "cc"),
    }
    command: list[str | Path] = [*COMMAND, *SHORT, "--peers", "plain,c", "--out", tmp_path / "out"]

    done = run(command, env={**environment, "PYTHONPATH": str(TREE)})

    assert "not here: no program cc" in done.stdout
    told = json.loads((tmp_path / "out/bench.json").read_text())
    assert "cc" in told["unavailable"]["c"]


@pytest.mark.parametrize(
    ("flag", "value", "accepted"),
    [
        ("--rounds", "0", "1 to 100"),
        ("--seconds", "61", "1 to 60"),
        ("--peers", "plain,ipsec", "one or more of plain,"),
        ("--work", "sctp", "one or more of tcp1,"),
        ("--family", "5", "one or more of 4,6"),
    ],
)
def test_wrong_word_is_told_with_what_is_accepted(flag: str, value: str, accepted: str) -> None:
    with pytest.raises(HarnessError) as failure:
        run([*COMMAND, flag, value], env={**os.environ, "PYTHONPATH": str(TREE)})

    assert "exit code 2" in str(failure.value)
    assert accepted in str(failure.value).splitlines()[-1]


def _path_without(directory: Path, program: str) -> str:
    """Give a PATH on which all programs are but one."""
    place = directory / "bin"
    place.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for found in Path(folder).glob("*"):
            if found.name != program and not (place / found.name).is_symlink():
                (place / found.name).symlink_to(found)
    return str(place)
