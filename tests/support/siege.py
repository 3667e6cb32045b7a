"""One attack, and what must be as it was before: sessions, memory, a ping beside it, no exception."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from signal import SIGINT
from types import TracebackType
from typing import Final, Self

from support import meters
from support.attacker import DRAIN_SECONDS, Attacker, Send
from support.namespaces import Pod
from support.processes import HarnessError, wait_for
from support.tencrypt import Json, Proxy

PING_INTERVAL: Final = "0.1"
PINGS_AROUND: Final = 3
"""Answers before the attack begins, and after it has ended."""

WARM_UP: Final = 10
"""The part of an attack, one in so many, after which memory is what it will be."""

FLAT_KB: Final = 3072
"""What memory may grow after a warm-up: tombstones of 30 s, heaps of timers, the allocator's slack."""

AMPLIFICATION: Final = 3
"""The most bytes for one that an unproved address may draw (RFC 9000 section 8)."""

Making = Callable[[int], Iterable[bytes]]
"""Makes the frames of an attack of so many datagrams."""


class Ping:
    """A ping between two pods that shall lose nothing."""

    def __init__(self, one: Pod, address: str) -> None:
        """Start it; returns once it is answered."""
        self._process = one.start(["ping", "-n", "-i", PING_INTERVAL, address])
        self.wait_for_more(PINGS_AROUND)

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more were answered."""
        goal = len(self._answered()) + count
        self._process.wait_until("ping's answers", lambda: len(self._answered()) >= goal)

    def stop(self) -> tuple[set[int], int]:
        """End it; the numbers of those that were not answered, and how many were.

        The last one may be under way still: it is not judged.
        """
        self._process.stop(SIGINT)
        found = re.search(r"^(\d+) packets transmitted", self._process.stdout, re.MULTILINE)
        if found is None:
            raise HarnessError(self._process.describe())
        answered = self._answered()
        return set(range(1, int(found[1]))) - answered, len(answered)

    def times(self) -> list[float]:
        """Give the round trips that were answered, in milliseconds, shortest first."""
        return sorted(float(ms) for ms in re.findall(r"time=([\d.]+) ms", self._process.stdout))

    def _answered(self) -> set[int]:
        return {int(n) for n in re.findall(r"icmp_seq=(\d+) ttl=", self._process.stdout)}


class Siege:
    """A context in which a pod is attacked; its end asserts that nobody noticed.

    `beside` is the pod's honest peer: sessions of both are compared, and a ping goes between
    them over each family. With `renews` theirs may be renewed; without `lossless` pings may be
    lost.
    """

    def __init__(
        self, attacker: Attacker, beside: Proxy, *, renews: bool = False, lossless: bool = True
    ) -> None:
        """Prepare."""
        self.attacker, self.victim, self.beside = attacker, attacker.victim, beside
        self.thrown = self.lost = 0
        self._renews, self._lossless = renews, lossless

    def __enter__(self) -> Self:
        """Note how things are, and start the pings."""
        self._before, self._honest = meters.read(self.victim), self._sent_beside()
        self._bugs = self._count_bugs()
        peer = self.beside.pod
        self._pings = [Ping(self.victim.pod, address) for address in (peer.ipv4, peer.ipv6)]
        self._sessions = self._peers_sessions()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Assert that all is as it was; after a failure only end the pings."""
        if error is None:
            for ping in self._pings:
                ping.wait_for_more(PINGS_AROUND)
        ended = [ping.stop() for ping in self._pings]
        if error is not None:
            return
        self.lost = sum(len(lost) for lost, _ in ended)
        answered = sum(answered for _, answered in ended)
        assert not (self.lost and self._lossless), f"{self.lost} pings lost, {answered} answered"
        self._assert_sessions()
        assert self._count_bugs() == self._bugs == [0, 0]
        grown = self.growth()
        assert grown["eth0 tx_bytes"] <= AMPLIFICATION * grown["eth0 rx_bytes"]
        times = sorted(ms for ping in self._pings for ms in ping.times())
        p50, p99 = (times[int(part * (len(times) - 1))] for part in (0.5, 0.99))
        # Told and never judged: how long a ping takes is the machine's affair.
        told = f"pings answered: {answered}, lost: {self.lost}, p50 {p50} ms, p99 {p99} ms"
        print(f"thrown: {self.thrown}; {told}")

    def growth(self) -> Counter[str]:
        """Give what was counted since the beginning; what stood still is left out."""
        now = meters.read(self.victim)
        return Counter({name: n - self._before[name] for name, n in now.items()}) - Counter()

    def throw(
        self,
        frames: Iterable[bytes],
        taken: Iterable[str] = meters.TAKEN,
        send: Send | None = None,
    ) -> Counter[str]:
        """Throw all and wait until each is counted under one of `taken`; what was counted.

        Sent = counted: fails where the sum is another in the end.
        """
        before = self._sum(taken)
        thrown = self.attacker.throw(frames, send)
        return self.settle(thrown, before, taken)

    def settle(self, thrown: int, before: int, taken: Iterable[str]) -> Counter[str]:
        """Wait until `thrown` more than `before` are counted; see `throw`."""
        self.thrown += thrown
        names = tuple(taken)
        try:
            wait_for(
                "all to be counted", lambda: self._sum(names) >= before + thrown, DRAIN_SECONDS
            )
        finally:
            grown = self.growth()
            counted = sum(grown[name] for name in names) - before
            assert counted == thrown, f"{counted} of {thrown} counted: {dict(grown)}"
        return grown

    def warm_then(
        self, make: Making, count: int, taken: Iterable[str] = meters.TAKEN
    ) -> Counter[str]:
        """Throw a part to warm up, then `count`; memory must not grow. What the whole counted."""
        names = tuple(taken)
        self.throw(make(count // WARM_UP), names)
        warm = meters.memory(self.victim)
        grown = self.throw(make(count), names)
        self.assert_flat(warm)
        return grown

    def assert_all_counted(self) -> Counter[str]:
        """Assert that each datagram that was thrown or honest is counted, where the socket overflowed.

        Nobody can say whose those were that it could not hold: so the honest peer's are counted
        too, sent by its kernel and taken by sessions here. Call it when the siege is over.
        """
        names = (*meters.TAKEN, "packets in", "received control")
        wait_for(
            "all to be counted",
            lambda: self._sum(names) == self.thrown + self._sent_beside() - self._honest,
            DRAIN_SECONDS,
        )
        return self.growth()

    def _sent_beside(self) -> int:
        return meters.read(self.beside)["Udp OutDatagrams"]

    def assert_flat(self, warm: int) -> None:
        """Assert that the daemon's memory is that of the warm-up, in KB."""
        after = meters.memory(self.victim)
        assert after <= warm + FLAT_KB, f"memory grew from {warm} to {after} KB"

    def _sum(self, names: Iterable[str]) -> int:
        grown = self.growth()
        return sum(grown[name] for name in names)

    def _count_bugs(self) -> list[int]:
        return [
            meters.read(proxy)["drop bug"] + proxy.event_names().count("bug")
            for proxy in (self.victim, self.beside)
        ]

    def _peers_sessions(self) -> list[list[Json]]:
        return [sessions(self.victim, self.beside), sessions(self.beside, self.victim)]

    def _assert_sessions(self) -> None:
        now = self._peers_sessions()
        if not self._renews:
            assert now == self._sessions
        for side in now:
            assert any(session["state"] == "confirmed" for session in side)


def sessions(proxy: Proxy, peer: Proxy) -> list[Json]:
    """Give what makes each session with that peer the one it is."""
    names = ("generation", "state", "endpoint", "role", "peer_serial")
    return [
        {name: session[name] for name in names}
        for session in meters.status(proxy)["sessions"]
        if session["peer"]["name"] == peer.pod.label
    ]
