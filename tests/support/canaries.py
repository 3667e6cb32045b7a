"""A program of a pod that never stops talking, and what a listener finds of it.

Each text is numbered. `SEALED` ones may be read by nobody. `CLEAR` ones go all the time to an address outside of the
cluster's ranges, which is left alone: that they are found shows that whatever else leaves in clear would be.
"""

import contextlib
import itertools
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Final, Self

from support.capture import LINK_KINDS, SESSION_PORT, Capture
from support.frames import FrameError, kind_of, parse_packet
from support.namespaces import BRIDGE_IPV4, BRIDGE_IPV6, Pod, family_of
from support.processes import wait_for
from support.servers import receive_exactly

from proxy.dns import wire
from proxy.dns.answers import read_answer
from proxy.errors import Dropped

SEALED: Final = b"canary-sealed-"
CLEAR: Final = b"canary-clear-"
OUTSIDE: Final = ("198.51.100.7", "2001:db8:7::7")
"""What no range holds and nothing names: the positive control's addresses."""

_TEXT: Final = re.compile(b"(%b|%b)([0-9]{8})" % (SEALED, CLEAR))
_PACE: Final = 0.02
_TCP_PACE: Final = 0.05
_TEXTS_OF_A_CONNECTION: Final = 10
_IMPATIENT, _PATIENT = 0.5, 15.0
_LEARNT: Final = 16


@dataclass(frozen=True)
class Way:
    """Where an application sends to, and how."""

    kind: str
    address: str
    port: int


@dataclass
class Application:
    """Sends texts of a kind to all of ``ways``, and to what DNS answers for ``names``, until it is left.

    Texts to the ``clear`` ways are of the kind CLEAR.
    """

    pod: Pod
    ways: list[Way]
    clear: list[Way] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    kind: bytes = SEALED
    first: int = 1

    def __post_init__(self) -> None:
        self._numbers = itertools.count(self.first)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._patient: set[socket.socket] = set()
        self._learnt: deque[Way] = deque(maxlen=_LEARNT)
        self.resolved: dict[str, set[str]] = {}
        self.sent = 0
        self.echoed = 0
        self.heard: dict[Way, int] = {}
        self.faults: list[BaseException] = []

    def __enter__(self) -> Self:
        """Begin."""
        self._run(self._talk_udp)
        for way in self.ways:
            if way.kind == "tcp":
                self._run(partial(self._talk_tcp, way, _IMPATIENT, _TEXTS_OF_A_CONNECTION))
                self._run(partial(self._talk_tcp, way, _PATIENT, 1 << 30))
        self._run(self._resolve)
        return self

    def __exit__(self, *_: object) -> None:
        """End, and raise what went wrong meanwhile."""
        self._stop.set()
        for connection in tuple(self._patient):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        if self.faults:
            raise self.faults[0]

    def _run(self, talk: Callable[[], None]) -> None:
        def inside() -> None:
            try:
                self.pod.call(talk)
            except BaseException as fault:  # noqa: BLE001 - raised where the application is left
                self.faults.append(fault)

        thread = threading.Thread(target=inside)
        self._threads.append(thread)
        thread.start()

    def _text(self, kind: bytes) -> tuple[int, bytes]:
        number = next(self._numbers)
        return number, b"%b%08d" % (kind, number)

    @property
    def now(self) -> int:
        """The number of a text of this moment."""
        return next(self._numbers)

    def wait_for_echoes(self, ways: Iterable[Way], since: int, seconds: float) -> None:
        """Wait until each way has brought back a text sent after the one of that number."""
        for way in ways:

            def came(way: Way = way) -> bool:
                return self.heard.get(way, 0) > since or bool(self.faults)

            wait_for(f"an echo from {way}", came, seconds)

    def _echo(self, way: Way, text: bytes) -> None:
        found = _TEXT.fullmatch(text)
        assert found is not None, text
        self.echoed += 1
        self.heard[way] = max(self.heard.get(way, 0), int(found[2]))

    def _talk_udp(self) -> None:
        with contextlib.ExitStack() as stack:
            sockets: dict[Way, socket.socket] = {}
            while not self._stop.wait(_PACE):
                for way in (*self.ways, *self.clear, *tuple(self._learnt)):
                    if way.kind != "udp":
                        continue
                    if way not in sockets:
                        made = socket.socket(family_of(way.address), socket.SOCK_DGRAM)
                        sockets[way] = stack.enter_context(made)
                        made.setblocking(False)  # noqa: FBT003 - the standard library's signature
                    with contextlib.suppress(OSError):
                        self._say_udp(sockets[way], way)

    def _say_udp(self, speaking: socket.socket, way: Way) -> None:
        """Connected as soon as that can be: the kernel remembers the route of such a socket."""
        text = self._text(CLEAR if way in self.clear else self.kind)[1]
        try:
            speaking.getpeername()
        except OSError:
            speaking.connect((way.address, way.port))
        with contextlib.suppress(OSError):  # what an earlier text met
            speaking.send(text)
            self.sent += 1
        while True:
            self._echo(way, speaking.recv(100))

    def _talk_tcp(self, way: Way, patience: float, count: int) -> None:
        while not self._stop.wait(_TCP_PACE):
            with (
                contextlib.suppress(OSError),
                socket.socket(family_of(way.address), socket.SOCK_STREAM) as speaking,
            ):
                speaking.settimeout(patience)
                self._patient.add(speaking)
                try:
                    speaking.connect((way.address, way.port))
                    self._say_tcp(speaking, way, count)
                finally:
                    self._patient.discard(speaking)

    def _say_tcp(self, speaking: socket.socket, way: Way, count: int) -> None:
        for _ in range(count):
            _, text = self._text(self.kind)
            speaking.sendall(text)
            self.sent += 1
            answer = receive_exactly(speaking, len(text))
            if len(answer) < len(text) or self._stop.wait(_TCP_PACE):
                return
            self._echo(way, answer)

    def _resolve(self) -> None:
        """Ask for each name again and again; send to what was answered from then on."""
        while not self._stop.wait(_PACE):
            for name in tuple(self.names):
                for kind in (wire.A, wire.AAAA):
                    with contextlib.suppress(OSError, Dropped):
                        self._learn(name, _ask(name, kind))

    def _learn(self, name: str, answer: bytes) -> None:
        for _, address, _ in read_answer(answer).addresses:
            host = str(ip_address(address))
            self.resolved.setdefault(name, set()).add(host)
            way = Way("udp", host, self.ways[0].port)
            if way not in self.ways and way not in self._learnt:
                self._learnt.append(way)


def _ask(name: str, kind: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.settimeout(0.3)
        program.connect((BRIDGE_IPV4, 53))
        program.send(wire.make_query(4711, name, kind))
        answer = program.recv(65535)
    if wire.rcode(answer) == wire.SERVFAIL:
        raise TimeoutError(name)
    return answer


@dataclass
class Found:
    """What captures showed of an application: texts by kind, and whatever else left in clear."""

    sealed: dict[int, str] = field(default_factory=dict)
    clear: dict[str, set[int]] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    sessions: int = 0

    def add(self, capture: Capture, speaker: Pod) -> None:
        """Look through one capture; before its first session the controls speak."""
        begun = False
        clear = self.clear.setdefault(capture.point, set())
        for frame in capture.frames:
            texts = _TEXT.findall(frame)
            clear |= {int(number) for kind, number in texts if kind == CLEAR}
            for kind, number in texts:
                if kind == SEALED:
                    self.sealed[int(number)] = f"{capture.point}: {_describe(frame)}"
            kind_seen = kind_of(frame, SESSION_PORT)
            begun |= kind_seen.startswith("session ")
            self.sessions += kind_seen == "session RECORD"
            if begun and not texts and _is_plain(frame, kind_seen, speaker):
                self.plain.append(f"{capture.point}: {_describe(frame)}")


def _describe(frame: bytes) -> str:
    with contextlib.suppress(FrameError):
        packet = parse_packet(frame)
        if packet is not None:
            return f"{kind_of(frame, SESSION_PORT)} {packet.source} > {packet.destination}"
    return kind_of(frame, SESSION_PORT)


def _is_plain(frame: bytes, kind: str, speaker: Pod) -> bool:
    """Tell whether a pod said this in clear to anybody but the resolver and the CA, which are the bridge's."""
    if kind.startswith("session ") or kind in LINK_KINDS or kind == "malformed":
        return False
    packet = parse_packet(frame)
    if packet is None or str(packet.source) not in {speaker.ipv4, speaker.ipv6}:
        return False
    return str(packet.destination) not in {BRIDGE_IPV4, BRIDGE_IPV6, *OUTSIDE}
