"""`tencrypt verify`, both ends of it (``docs/decisions/0007``): who asks, and who is asked."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, TypeVar

from proxy.drivers import logs
from proxy.drivers.watching import WatcherGoneError, Watchers
from proxy.drops import Drops
from proxy.errors import Dropped
from proxy.flow.membership import Membership
from proxy.session.pair import PairKey, pair_key
from proxy.session.session import Session
from proxy.session.table import SessionTable
from proxy.status import JsonObject
from proxy.verify import messages, orders, verdict
from proxy.verify.judge import Judge
from proxy.verify.messages import Ask, End, Message, Ready, Reason, Refused, Report
from proxy.verify.orders import Address

CALL_SECONDS: Final = 5.0
_AGAIN: Final = 0.25
_ANSWER_SECONDS: Final = 2.0
_ASKER_SECONDS: Final = 9.0
_ANSWERER_SECONDS: Final = 8.0
_PAUSE: Final = 2.0
_PAUSE_AFTER_NONSENSE: Final = 30.0
"""Until the same peer may ask again, and where it began a run that it did not end."""

_LATE: Final = 0.3
"""Seconds that both ends look on after the last flow, for copies that come late."""

_MOST_PEERS: Final = 1024
_MOST_ENDS: Final = 8
_HEARD: Final = 8

T = TypeVar("T", Ready, Report)

_WHY: Final = {
    Reason.OFF: 'verify = "off" there',
    Reason.BUSY: "it is busy with another verification: try again",
    Reason.CANNOT: "it cannot look at its interface; its log says why",
}


class _UnprovenError(Exception):
    """Nothing can be said; the text says why."""


@dataclass(slots=True)
class _Asking:
    """Our own verification."""

    peer: PairKey = "", ""
    run: bytes = field(default_factory=lambda: os.urandom(messages.ID))
    heard: asyncio.Queue[Message] = field(default_factory=lambda: asyncio.Queue(_HEARD))


@dataclass(slots=True)
class _Answering:
    """A verification by a peer; ``answer`` is given again whenever it asks again."""

    peer: PairKey
    run: bytes
    answer: Message | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


class Verifier:
    """Asks peers, and answers them where the setting allows it."""

    def __init__(  # noqa: PLR0913 - the parts it joins
        self,
        *,
        on: bool,
        pod: str,
        addresses: tuple[Address, ...],
        members: Membership,
        watchers: Watchers,
        table: SessionTable,
        drops: Drops,
        settle: Callable[[], None],
        hold: Callable[[], Awaitable[bool]],
    ) -> None:
        """Serve ``pod`` at its own ``addresses``; ``settle`` sends what waits.

        ``hold`` says whether the kernel refuses in clear all that is a member, and first has it do so.
        """
        self._on, self._pod, self._addresses, self._members = on, pod, addresses, members
        self._watchers, self._table, self._drops = watchers, table, drops
        self._settle, self._hold = settle, hold
        self._loop = asyncio.get_running_loop()
        self._asking: _Asking | None = None
        self._answering: _Answering | None = None
        self._judge: Judge | None = None
        self._asked: asyncio.Queue[tuple[_Answering, Session, Ask]] = asyncio.Queue()
        self._free_at: dict[PairKey, float] = {}

    async def verify(self, name: str) -> JsonObject:
        """Verify the traffic with a peer, by its pod's name or an address; return the answer as plain data."""
        if not self._on:
            return verdict.unproven('verify = "off" here: set verify = "project" on both pods')
        if self._is_busy():
            return verdict.unproven("another verification is under way: try again")
        self._asking = asking = _Asking()
        try:
            return await self._verify(name, asking)
        except (_UnprovenError, WatcherGoneError) as error:
            return verdict.unproven(str(error))
        except TimeoutError:
            return verdict.unproven(f"not done in {_ASKER_SECONDS:.0f} s")
        finally:
            self._asking = None

    def _is_busy(self) -> bool:
        return bool(self._asking or (self._answering and not self._answering.over))

    def hear(self, session: Session, body_untrusted: bytes) -> None:
        """Take the body of a VERIFY record that opened."""
        try:
            message = messages.parse(body_untrusted)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1
            return
        key = pair_key(session.peer)
        if isinstance(message, Ask):
            self._hear_ask(session, message)
        elif isinstance(message, End):
            self._hear_end(session, message)
        elif (asking := self._asking) and (asking.peer, asking.run) == (key, message.run):
            with contextlib.suppress(asyncio.QueueFull):
                asking.heard.put_nowait(message)

    # Who asks.

    async def _verify(self, name: str, asking: _Asking) -> JsonObject:
        session = await self._find(name)
        asking.peer = pair_key(session.peer)
        await self._refuse_outsiders(session)
        ways = _ways(self._addresses, session)
        async with asyncio.timeout(_ASKER_SECONDS):
            with self._judging() as judge:
                async with self._watchers.one() as watcher:
                    look = orders.Look(_addresses(session), self._ends(session))
                    share = (await watcher.order(look, orders.Looking)).share
                    ask = Ask(asking.run, _families(ways), share)
                    ready = await self._until(asking, ask, Ready)
                    flows = orders.Flows(tuple(_flows(ways, ready)), ready.share)
                    if len(flows.flows) < len(ways):
                        self._say(asking.peer, End(asking.run))
                        raise _UnprovenError(
                            f"{session.peer.pod} does not serve all of its addresses"
                        )
                    flowed = (await watcher.order(flows, orders.AllFlowed)).flows
                    await asyncio.sleep(_LATE)
                    theirs = (await self._until(asking, End(asking.run), Report)).seen
                    ours, texts = await watcher.finish(judge)
        sides = [verdict.Side(self._pod, ours, texts), verdict.Side(session.peer.pod, theirs)]
        current = self._current(asking.peer) or session
        wall = self._loop.time() + self._table.wall_offset
        answer = verdict.report(current, wall, flowed, sides)
        logs.event("verified", peer=session.peer.pod, verdict=answer["verdict"])
        return answer

    async def _find(self, name: str) -> Session:
        """Return a session with a pod, by its name or address; called if there is none yet."""
        try:
            # First: a pod may be named like another one's address.
            packed = ip_address(name).packed
        except ValueError:
            for session in self._table.current.values():
                if name == session.peer.pod:
                    return session
            raise _UnprovenError(f"no session with {name}: name one of its addresses") from None
        if packed in self._table.current:
            return self._table.current[packed]
        give_up = self._loop.time() + CALL_SECONDS
        self._table.connect(packed, self._loop.time())
        self._settle()
        while packed not in self._table.current:
            if self._loop.time() > give_up:
                raise _UnprovenError(f"no session with {name} comes about: see the log")
            await asyncio.sleep(_AGAIN / 10)
        return self._table.current[packed]

    async def _refuse_outsiders(self, session: Session) -> None:
        """Refuse what watchers may not look at, and where the kernel does not hold what we know."""
        for address in _addresses(session):
            whose = f"{address} is {session.peer.pod}'s and"
            if address.packed not in self._members:
                raise _UnprovenError(f"{whose} no member here: traffic to it is not protected")
            if not self._members.in_settings(address.packed):
                raise _UnprovenError(
                    f"{whose} in none of members and cluster_ranges: nobody may look"
                )
        if not await self._hold():
            raise _UnprovenError("the net agent does not hold all members: see its log")

    @contextlib.contextmanager
    def _judging(self) -> Iterator[Judge]:
        """Give a judge that knows every session that there is or comes, while the context lasts."""
        judge = self._judge = Judge(self._table.sessions)
        try:
            yield judge
        finally:
            self._judge = None

    def closed(self, session: Session) -> None:
        """Remember a session that has ended, while its datagrams may have to be judged."""
        if self._judge is not None:
            self._judge.know((session,))

    async def _until(self, asking: _Asking, message: Ask | End, answer: type[T]) -> T:
        """Say ``message`` again and again until the peer gives that answer."""
        give_up = self._loop.time() + _ANSWER_SECONDS
        while self._loop.time() < give_up:
            if not self._say(asking.peer, message):
                raise _UnprovenError("the session has ended")
            heard = await _heard_within(asking.heard, _AGAIN)
            if isinstance(heard, answer):
                return heard
            if isinstance(heard, Refused):
                raise _UnprovenError(f"the peer takes no part: {_WHY[heard.reason]}")
        raise _UnprovenError("the peer does not answer: it may be of an earlier version")

    # Who is asked.

    def _hear_ask(self, session: Session, ask: Ask) -> None:
        key, now = pair_key(session.peer), self._loop.time()
        same = self._answering and (self._answering.peer, self._answering.run) == (key, ask.run)
        if same and self._answering is not None:
            if self._answering.answer is not None:
                self._say(key, self._answering.answer)
        elif not self._on:
            self._say(key, Refused(ask.run, Reason.OFF))
        elif self._is_busy() or now < self._free_at.get(key, 0.0):
            self._say(key, Refused(ask.run, Reason.BUSY))
        else:
            self._answering = answering = _Answering(key, ask.run)
            logs.event("verify_asked", peer=session.peer.pod, identity=session.peer.identity.uri)
            self._asked.put_nowait((answering, session, ask))

    def _hear_end(self, session: Session, end: End) -> None:
        answering = self._answering
        if answering and (answering.peer, answering.run) == (pair_key(session.peer), end.run):
            answering.ended.set()
            if answering.over and answering.answer is not None:
                self._say(answering.peer, answering.answer)

    async def answer(self) -> None:
        """Answer peers, one after the other, until cancelled."""
        while True:
            answering, session, ask = await self._asked.get()
            try:
                await self._answer(answering, session, ask)
            except Exception as error:  # noqa: BLE001 - a bug here must not end what carries packets
                answering.over = True
                self._loop.call_exception_handler({"message": "verify", "exception": error})

    async def _answer(self, answering: _Answering, session: Session, ask: Ask) -> None:
        try:
            async with asyncio.timeout(_ANSWERER_SECONDS):
                answering.answer = Report(ask.run, await self._look(answering, session, ask))
        except (TimeoutError, WatcherGoneError) as error:
            logs.event("verify_failed", peer=session.peer.pod, message=str(error) or "timed out")
            answering.answer = Refused(ask.run, Reason.CANNOT)
        answering.over = True
        pause = _PAUSE if answering.ended.is_set() else _PAUSE_AFTER_NONSENSE
        if len(self._free_at) >= _MOST_PEERS:
            self._free_at.clear()
        self._free_at[answering.peer] = self._loop.time() + pause
        self._say(answering.peer, answering.answer)

    async def _look(self, answering: _Answering, session: Session, ask: Ask) -> messages.Seen:
        """Look and listen until the asker says that it is over."""
        if not await self._hold():
            raise WatcherGoneError("the net agent does not hold all members")
        listen = tuple(a for a in self._addresses if ask.families & _bit(a.version))
        with self._judging() as judge:
            async with self._watchers.one() as watcher:
                look = orders.Look(_addresses(session), self._ends(session), listen, ask.share)
                looking = await watcher.order(look, orders.Looking)
                by_family = dict(zip((a.version for a in listen), looking.ports, strict=False))
                four, six = by_family.get(4, (0, 0)), by_family.get(6, (0, 0))
                answering.answer = Ready(ask.run, looking.share, (*four, *six))
                self._say(answering.peer, answering.answer)
                await answering.ended.wait()
                seen, _ = await watcher.finish(judge)
        return seen

    def _say(self, peer: PairKey, message: Message) -> bool:
        """Send a message by the session that seals for a peer now; say whether there is one."""
        session = self._current(peer)
        if session is None:
            return False
        self._table.verify(session, message.encode(), self._loop.time())
        self._loop.call_soon(self._settle)
        return True

    def _current(self, peer: PairKey) -> Session | None:
        sessions = self._table.current.values()
        return next((one for one in sessions if pair_key(one.peer) == peer), None)

    def _ends(self, session: Session) -> tuple[tuple[Address, int], ...]:
        """Return where the peer's sessions are: behind source NAT, at no address of its own."""
        key = pair_key(session.peer)
        ends = {s.endpoint for s in self._table.sessions.values() if pair_key(s.peer) == key}
        return tuple((ip_address(host), port) for host, port in sorted(ends)[:_MOST_ENDS])


async def _heard_within(queue: asyncio.Queue[Message], seconds: float) -> Message | None:
    try:
        async with asyncio.timeout(seconds):
            return await queue.get()
    except TimeoutError:
        return None


def _addresses(session: Session) -> tuple[Address, ...]:
    return tuple(map(ip_address, sorted(session.peer.addresses)))


def _ways(own: tuple[Address, ...], session: Session) -> list[tuple[Address, Address]]:
    """Return the pairs of addresses, ours and the peer's, between which canaries can run: one a family."""
    peers: dict[int, Address] = {}
    for address in _addresses(session):
        peers.setdefault(address.version, address)
    return [(one, peers[one.version]) for one in own if one.version in peers]


def _bit(version: int) -> int:
    return messages.IPV4 if version == 4 else messages.IPV6


def _families(ways: list[tuple[Address, Address]]) -> int:
    return sum({_bit(one.version) for one, _ in ways})


def _flows(ways: list[tuple[Address, Address]], ready: Ready) -> list[orders.Flow]:
    ports = {4: ready.ports[:2], 6: ready.ports[2:]}
    flows = ((one, other, *ports[one.version]) for one, other in ways)
    return [orders.Flow(*flow) for flow in flows if all(flow[2:])]
