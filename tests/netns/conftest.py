"""What tests across real namespaces need, and pods to run them on."""

import os
import shutil
from collections.abc import Iterator

import pytest
from support.namespaces import Fabric, clean_stale
from support.netagent import Pair

PROGRAMS = ("ip", "bridge", "ss", "nft", "tcpdump", "nginx", "curl", "ping", "iperf3", "nsenter")


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Fail, and say why, where these tests cannot run; take down what a killed run left."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if not os.path.exists("/dev/net/tun"):  # noqa: PTH110 - a device, not a file of ours
        missing.append("/dev/net/tun")
    if missing:
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
