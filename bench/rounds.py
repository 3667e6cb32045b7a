"""The rounds: each peer once, one after the other, and again; what fails is noted and the rest goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from support.namespaces import Fabric
from support.processes import HarnessError

from bench.peers import CLIENT, SERVER, Family, Peer
from bench.results import NO_FAMILY, Results
from bench.work import METRICS, Alone, Work


@dataclass(frozen=True)
class Plan:
    """What is to be done in each round."""

    peers: Sequence[Peer]
    works: Sequence[Work]
    alone: Sequence[Alone]
    families: Sequence[Family]
    rounds: int
    seconds: float


class Run:
    """A plan being carried out; `results` holds what there is at any moment."""

    def __init__(self, plan: Plan, results: Results, tell: Callable[[str], None]) -> None:
        """Prepare; `tell` takes lines of progress."""
        self.plan, self.results, self._tell = plan, results, tell

    def measure(self) -> None:
        """Do all rounds."""
        plan = self.plan
        for number in range(1, plan.rounds + 1):
            where = f"round {number} of {plan.rounds}"
            for family in plan.families:
                for peer in plan.peers if plan.works else ():
                    self._tell(f"{where}, IPv{family}, {peer.name}")
                    self._measure_peer(peer, family)
            for alone in plan.alone:
                if alone.once and number > 1:
                    continue
                for contestant in alone.contestants():
                    self._tell(f"{where}, {alone.name}, {contestant}")
                    self._try(
                        alone.metrics,
                        NO_FAMILY,
                        contestant,
                        partial(alone.run, contestant, plan.seconds),
                    )

    def _measure_peer(self, peer: Peer, family: Family) -> None:
        """Start the peer between two new pods and let it do each work."""
        works = [work for work in self.plan.works if work.name not in peer.lacks]
        for work in self.plan.works:
            self._note(work.metrics, family, peer.name, peer.lacks.get(work.name))
        with Fabric(CLIENT, SERVER) as fabric:
            try:
                link = peer.start(fabric, family)
            except HarnessError as error:
                for work in works:
                    self._note(work.metrics, family, peer.name, f"no start: {_reason(error)}")
                return
            for work in works:
                self._try(
                    work.metrics,
                    family,
                    peer.name,
                    partial(work.run, link, self.plan.seconds),
                )

    def _try(
        self,
        metrics: Sequence[str],
        family: int,
        peer: str,
        work: Callable[[], dict[str, float]],
    ) -> None:
        """Keep what a work gives, or why it gave nothing."""
        try:
            values = work()
        except HarnessError as error:
            self._note(metrics, family, peer, f"failed: {_reason(error)}")
            return
        for metric, value in values.items():
            self.results.add(metric, family, peer, value)
            told = METRICS[metric]
            self._tell(f"    {told.title}: {value:.{told.digits}f} {told.unit}")

    def _note(self, metrics: Sequence[str], family: int, peer: str, reason: str | None) -> None:
        if reason:
            self._tell(f"    {', '.join(metrics)}: {reason}")
            for metric in metrics:
                self.results.note(metric, family, peer, reason)


def _reason(error: HarnessError) -> str:
    """Give the last words: those of a program that failed."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if any(map(str.isalpha, line))), "no words")
