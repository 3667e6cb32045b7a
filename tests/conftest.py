"""Options that all tiers share."""

import pytest
from hypothesis import settings

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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "block" in metafunc.fixturenames:
        count = metafunc.config.getoption("scenarios")
        blocks = [range(at, min(at + 100, count)) for at in range(0, count, 100)]
        metafunc.parametrize("block", blocks, ids=lambda block: f"{block.start}-{block.stop - 1}")
