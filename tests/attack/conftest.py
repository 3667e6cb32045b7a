"""Two pods that talk, a third on the same bridge that attacks, and what it has heard of the two."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest
from support.attacker import Attacker
from support.capture import Taps
from support.exchanges import FAMILIES, udp
from support.frames import Datagram
from support.machine import lacking
from support.namespaces import BRIDGE, Fabric, Pod, clean_stale
from support.project import Project
from support.rogue import Rogue
from support.siege import Siege

SIZES = (1, 100, 100, 500, 1300, 1300)


@dataclass(frozen=True)
class Stage:
    """Pods `one` and `two` of a project have a session; `heard` is all of it, handshake and data."""

    project: Project
    mallory: Pod
    heard: list[Datagram]
    factor: int

    def heard_at(self, victim: str) -> list[Datagram]:
        """Give what the victim was sent by the other."""
        return [d for d in self.heard if str(d.packet.destination) == self.pod(victim).ipv4]

    def pod(self, name: str) -> Pod:
        return self.project.fabric[name]

    def other(self, name: str) -> str:
        return "two" if name == "one" else "one"


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Fail, and say why, where these tests cannot run; take down what a killed run left."""
    if missing := lacking():
        pytest.fail(f"this machine lacks {', '.join(missing)}", pytrace=False)
    clean_stale()


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Fabric("one", "two", "mallory") as fabric:
        project = Project(fabric, {"roster": "on"})
        project.start("one", "two")
        taps = Taps((fabric.node, BRIDGE))
        for size in SIZES:
            for family in FAMILIES:
                udp(fabric["one"], fabric["two"], family, bytes(size))
        (capture,) = taps.stop().values()
        factor = request.config.getoption("attack_factor")
        heard = capture.datagrams()
        assert {d.payload[0] for d in heard} == {1, 2, 3, 128}  # HELLO, RETRY, FLIGHT, records
        yield Stage(project, fabric["mallory"], heard, factor)


@pytest.fixture(scope="module")
def certified(stage: Stage) -> Iterator[Rogue]:
    with Rogue(stage.mallory, stage.project.ca) as made:
        yield made


@pytest.fixture
def rogue(certified: Rogue) -> Rogue:
    """The attacker, with a certificate of the project, and no session yet."""
    certified.restart()
    return certified


@pytest.fixture
def besiege(stage: Stage) -> Iterator[Callable[..., Siege]]:
    """Make a siege of the pod of that name; see `support.siege.Siege` for the options."""
    with ExitStack() as stack:

        def make(victim: str = "one", **options: bool) -> Siege:
            project = stage.project
            attacker = stack.enter_context(closing(Attacker(stage.mallory, project[victim])))
            return Siege(attacker, project[stage.other(victim)], **options)

        yield make
