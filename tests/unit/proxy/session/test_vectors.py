"""The bytes in tests/vectors, made from docs/protocol.md alone, against what this implementation makes and takes."""

import struct
from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from typing import Any, Final

import pytest
from support.check_vectors import CHECKERS, Case, load
from vectors.make import all_vectors, encode
from vectors.record_handshake import FILE, main

from proxy.errors import Dropped

EXPECTED: Final = {
    "wire": ("fields", "reason"),
    "keys": ("fields", "certificates", "context", "exports", "sealed_by", "session_id"),
    "records": ("counter", "kind", "body", "datagrams"),
    "refused": ("result", "plain"),
    "windows": ("opens",),
    "exchanges": ("answer", "delivered", "reason", "after", "generation"),
    "handshake": ("certificates", "context", "exports", "session_id", "generation", "packets"),
}
"""What a vector says of the product: whatever is changed in these, somebody notices."""

NOTICED: Final = (AssertionError, Dropped, KeyError, OverflowError, TypeError, struct.error)


@pytest.mark.parametrize("name", CHECKERS)
def test_every_vector_holds(name: str) -> None:
    cases = load(name)
    assert cases
    for case in cases:
        try:
            CHECKERS[name](case)
        except NOTICED as wrong:
            wrong.add_note(f"{name}.json: {case['name']}")
            raise


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all that is neither a list nor an object."""
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from leaves(value[key], (*path, key))
    else:
        yield path


def changed(leaf: Any) -> Any:
    if isinstance(leaf, bool):
        return not leaf
    if isinstance(leaf, int):
        return leaf + 1
    try:
        data = bytes.fromhex(leaf)
    except (TypeError, ValueError):
        return f"not {leaf}"
    return (data[:-1] + bytes((data[-1] ^ 1,))).hex() if data else "00"


def altered(case: Case, keys: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], Case]]:
    for path in leaves(case):
        if any(key in path for key in keys):
            other = deepcopy(case)
            at = other
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = changed(at[path[-1]])
            yield path, other


@pytest.mark.parametrize("name", CHECKERS)
def test_changed_vector_is_noticed(name: str) -> None:
    for case in load(name):
        for path, other in islice(altered(case, EXPECTED[name]), 40):
            noticed = False
            try:
                CHECKERS[name](other)
            except NOTICED:
                noticed = True
            assert noticed, f"{name}.json: {case['name']}: {path}"


def test_files_are_what_their_generator_writes() -> None:
    for name, cases in all_vectors().items():
        assert encode(load(name)) == encode(cases), f"{name}.json: python tests/vectors/make.py"


def test_recorded_handshake_is_never_written_over() -> None:
    before = FILE.read_bytes()
    with pytest.raises(FileExistsError):
        main()
    assert FILE.read_bytes() == before
