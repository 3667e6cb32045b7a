"""What tests across real namespaces need, and pods to run them on."""

import os
from collections.abc import Callable, Iterator

import pytest
from support.agent import Agent
from support.machine import lacking
from support.namespaces import Fabric, clean_stale
from support.netagent import Pair


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Fail, and say why, where these tests cannot run; take down what a killed run left."""
    if missing := lacking():
        pytest.fail(f"this machine lacks {', '.join(missing)}", pytrace=False)
    clean_stale()


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    """Two pods on a bridge."""
    with Fabric("nginx1", "nginx2") as made:
        yield made


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair(f"tna{os.getpid()}")
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.fixture
def agent(pair: Pair) -> Iterator[Callable[[str], Agent]]:
    running: list[Agent] = []

    def start(how: str) -> Agent:
        running.append(Agent(pair.a, how))
        return running[-1]

    yield start
    for each in running:
        each.kill()
