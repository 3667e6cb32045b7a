"""Who has which list, and the newest from one who has it. Driven by plain calls with ``now`` passed in.

A peer can lie about all of it, and gains nothing: a list counts only when its signature has been verified and it is
newer than ours. What a liar costs is one fetch at a time, of one minute and 1 MB at most, and one verification; then
it is not asked again for `PUT_OFF` seconds, whatever sessions it opens. Who waits meanwhile is asked next.

Two signatures of one version differ by their times alone. Each pod has its own from the CA within minutes, so a
later one is told and fetched only where it is `LAG` seconds later: by a pod to which the CA does not answer.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from policy.bucket import Bucket
from proxy.drops import Drop, Drops
from proxy.errors import Dropped
from proxy.lists.fetch import Fetch
from proxy.lists.messages import LARGEST_PIECE, Age, Ask, Part, Version, parse
from proxy.session.pair import PairKey, pair_key
from proxy.session.session import Session
from proxy.session.table import SessionTable

PATIENCE: Final = 1.0
"""Seconds before a peer is asked: as a rule the CA's own answer is on its way to us, too."""

LAG: Final = 600

PUT_OFF: Final = 300.0

TOLD_AT_ONCE: Final = 64
TELL_PACE: Final = 0.02
"""Peers that are told in one go, and seconds until the next: sealing for thousands would hold up packets."""

ANSWERS: Final = (64.0, 64.0)
"""To one pod: at once, and a second; some 64 KB."""

ALL_ANSWERS: Final = (1024.0, 1024.0)
"""To all: a few hundredths of a core."""

MOST_REMEMBERED: Final = 4096
"""Pods that were put off, that are answered at their pace, or that told of a newer list; as many as have sessions."""

_NONE: Final = (0, 0)


class ListExchange:
    """Tells peers of our list, answers what they ask, and fetches a newer one."""

    def __init__(self, table: SessionTable, offer: Callable[[bytes], object], drops: Drops) -> None:
        """Speak over the sessions of ``table``.

        ``offer`` takes an envelope that nobody has verified: it raises `Dropped` where that is not a list that we
        believe, and not newer than ours; else it is to bring about the call of `adopted`.
        """
        self._table, self._offer, self._drops = table, offer, drops
        self._age: Age = _NONE
        self._envelope = b""
        self._told: Age = _NONE
        self._untold: deque[Session] = deque()
        self._tell_at = 0.0
        self._claims: dict[PairKey, tuple[Session, Age]] = {}
        """Who told of a newer list, first come first served."""
        self._begin_at = 0.0
        self._fetch: Fetch | None = None
        self._put_off: dict[PairKey, float] = {}
        self._paces: dict[PairKey, Bucket] = {}
        self._pace = Bucket(*ALL_ANSWERS)

    # What the owner of sessions and lists calls.

    def opened(self, session: Session, now: float) -> None:
        """Tell the peer of a session that has opened what we have."""
        if self._age != _NONE:
            self._table.lists(session, Version(self._age).encode(), now)

    def adopted(self, envelope: bytes, version: int, issued: int, now: float) -> None:
        """Pass on this list from now on, from whomever it came."""
        self._envelope, self._age = envelope, (version, issued)
        if _is_worth(self._age, self._told):
            self._told = self._age
            self._untold = deque(dict.fromkeys(self._table.current.values()))
            self._tell_at = now
        if self._fetch is not None and not _is_worth(self._fetch.age, self._age):
            self._fetch = None

    def heard(self, session: Session, body_untrusted: bytes, now: float) -> None:
        """Act on a LISTS record of a session; what is refused is counted."""
        try:
            message = parse(body_untrusted)
        except Dropped as dropped:
            self._drops[dropped.reason] += 1
            return
        match message:
            case Version(age):
                self._hear_version(session, age, now)
            case Ask(age, offset):
                self._answer(session, age, offset, now)
            case Part():
                self._take(session, message, now)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` wants to be called, in monotonic seconds."""
        times = [self._tell_at] if self._untold else []
        if self._fetch is not None:
            times.append(self._fetch.due)
        elif self._claims:
            times.append(self._begin_at)
        return min(times, default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self._untold and now >= self._tell_at:
            self._tell_some(now)
        if self._fetch is not None and now >= self._fetch.due:
            self._ask(self._fetch, now)
        elif self._fetch is None and self._claims and now >= self._begin_at:
            self._begin(now)

    # Telling and answering.

    def _tell_some(self, now: float) -> None:
        body = Version(self._age).encode()
        for _ in range(min(TOLD_AT_ONCE, len(self._untold))):
            session = self._untold.popleft()
            if self._lives(session):
                self._table.lists(session, body, now)
        self._tell_at = now + TELL_PACE

    def _answer(self, session: Session, age: Age, offset: int, now: float) -> None:
        if age != self._age:
            self._repair(session, now)
        elif offset < len(self._envelope) and self._may_answer(session, now):
            piece = self._envelope[offset : offset + LARGEST_PIECE]
            part = Part(age, offset, len(self._envelope), piece)
            self._table.lists(session, part.encode(), now)

    def _repair(self, session: Session, now: float) -> None:
        """Tell what we have to who has not heard of it, or asks for another."""
        if self._age != _NONE and self._may_answer(session, now):
            self._table.lists(session, Version(self._age).encode(), now)

    def _may_answer(self, session: Session, now: float) -> bool:
        key = pair_key(session.peer)
        if key not in self._paces and len(self._paces) >= MOST_REMEMBERED:
            self._paces.clear()  # all together have a pace, too
        pace = self._paces.setdefault(key, Bucket(*ANSWERS))
        if not pace.has(now) or not self._pace.has(now):
            return False
        pace.take()
        self._pace.take()
        return True

    # Fetching.

    def _hear_version(self, session: Session, age: Age, now: float) -> None:
        fetch = self._fetch
        if fetch is not None and session is fetch.session:
            if age != fetch.age:
                fetch.restart(age)
                self._ask(fetch, now)
            return
        if age[0] < self._age[0]:
            self._repair(session, now)
            return
        key = pair_key(session.peer)
        if not _is_worth(age, self._age) or now < self._put_off.get(key, now):
            return
        if not self._claims:
            self._begin_at = now + PATIENCE
        if key in self._claims or len(self._claims) < MOST_REMEMBERED:
            # Who says it again keeps the place in the row.
            self._claims[key] = session, age

    def _begin(self, now: float) -> None:
        """Ask the first in the row who still may have what we lack."""
        while self._claims:
            key = next(iter(self._claims))
            session, age = self._claims.pop(key)
            if self._lives(session) and _is_worth(age, self._age):
                self._fetch = Fetch(session, age, now)
                self._ask(self._fetch, now)
                return

    def _ask(self, fetch: Fetch, now: float) -> None:
        if not self._lives(fetch.session) or not _is_worth(fetch.age, self._age):
            self._next(now)  # another session of its pod will tell again
            return
        try:
            body = fetch.ask(now)
        except Dropped as dropped:
            self._give_up(fetch, dropped.reason, now)
        else:
            self._table.lists(fetch.session, body, now)

    def _take(self, session: Session, part_untrusted: Part, now: float) -> None:
        fetch = self._fetch
        if fetch is None or session is not fetch.session:
            return
        try:
            if not fetch.take(part_untrusted):
                return
            envelope_untrusted = fetch.whole()
            if envelope_untrusted is None:
                self._ask(fetch, now)
                return
            self._offer(envelope_untrusted)
        except Dropped as dropped:
            self._give_up(fetch, dropped.reason, now)
            return
        if _is_worth(fetch.age, self._age):  # the peer told of a newer one than it sent
            self._give_up(fetch, Drop.ROSTER, now)
        else:
            self._next(now)

    def _give_up(self, fetch: Fetch, reason: Drop, now: float) -> None:
        """Ask this pod no more for a while."""
        self._drops[reason] += 1
        key = pair_key(fetch.session.peer)
        self._put_off = {pod: until for pod, until in self._put_off.items() if until > now}
        if len(self._put_off) >= MOST_REMEMBERED:
            del self._put_off[next(iter(self._put_off))]
        self._put_off[key] = now + PUT_OFF
        self._claims.pop(key, None)
        self._next(now)

    def _next(self, now: float) -> None:
        self._fetch = None
        self._begin_at = now

    def _lives(self, session: Session) -> bool:
        return self._table.sessions.get(session.index) is session


def _is_worth(age: Age, ours: Age) -> bool:
    """Say whether a list is so much newer that it is worth being told of and fetched."""
    return age[0] > ours[0] or (age[0] == ours[0] and age[1] >= ours[1] + LAG)
