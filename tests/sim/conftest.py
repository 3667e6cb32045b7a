"""What a run of the stories tells at its end."""

import pytest
from sim.tables import USED, drawn


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how often each entry of the state tables was used, in each run that told stories."""
    if USED:
        terminalreporter.section("entries of the state tables that stories used")
        for line in drawn():
            terminalreporter.write_line(line)
