"""The client shares nothing with the proxy: else both could be wrong in the same way."""

import ast
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CLIENT = ("wire", "records", "packets", "identity", "handshake", "client")
ALLOWED = {"cryptography", "OpenSSL", "typing_extensions", "independent"}


def imported(source: Path) -> set[str]:
    """Return the packages that a source imports, by their first names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("name", CLIENT)
def test_the_client_imports_its_own_modules_and_two_libraries(name: str) -> None:
    assert imported(HERE / f"{name}.py") <= ALLOWED | sys.stdlib_module_names


def test_neither_do_its_tests_import_the_programs_packages() -> None:
    used = {source.name: imported(source) for source in HERE.glob("*.py")}
    assert "support" in used["conftest.py"]  # the search finds imports
    assert not {name for name, names in used.items() if names & {"proxy", "ca", "policy"}}
