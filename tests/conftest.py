"""Options that all tiers share."""

import argparse

import pytest
from hypothesis import settings
from support import tencrypt

from proxy.settings_values import OFFLOADS

# How long an example takes is the machine's affair: a benchmark is never a timed test.
settings.register_profile("tencrypt", deadline=None)
settings.load_profile("tencrypt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--scenarios", type=int, default=1000, help="simulated stories to run (20,000 in test-full)"
    )
    parser.addoption(
        "--attack-factor",
        type=int,
        default=1,
        help="times the datagrams of an attack (10 in test-full)",
    )
    parser.addoption(
        "--kills", type=int, default=20, help="kills while canaries are sent (300 in test-full)"
    )
    parser.addoption(
        "--write-documents",
        action="store_true",
        help="write tables of results into docs/ instead of comparing them",
    )
    parser.addoption(
        "--offloads",
        type=offloads,
        help="what real proxies leave to the kernel, as tso,gso or none; all if left out",
    )


def offloads(text: str) -> list[str]:
    """Read a combination of offloads."""
    words = [] if text == "none" else text.split(",")
    if not set(words) <= set(OFFLOADS):
        raise argparse.ArgumentTypeError(f"{text}: some of {','.join(OFFLOADS)}, or none")
    return words


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("offloads")
    if chosen is not None:
        tencrypt.OF_EVERY_PROXY["offloads"] = chosen


def pytest_report_header(config: pytest.Config) -> str:
    chosen = config.getoption("offloads")
    return f"offloads of real proxies: {','.join(OFFLOADS if chosen is None else chosen) or 'none'}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "block" in metafunc.fixturenames:
        count = metafunc.config.getoption("scenarios")
        blocks = [range(at, min(at + 100, count)) for at in range(0, count, 100)]
        metafunc.parametrize("block", blocks, ids=lambda block: f"{block.start}-{block.stop - 1}")
