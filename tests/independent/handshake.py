"""One handshake, section 4: TLS bytes in FLIGHTs, acknowledged and repeated, in either role."""

import os
from dataclasses import dataclass, replace
from typing import Final

from independent.identity import Credential, Keys, Peer, Refused, connection, export, judge
from independent.wire import PIECE, Flight, Hello, Retry
from OpenSSL import SSL
from typing_extensions import override

ATTEMPT_SECONDS: Final = 1.5
ANSWER_SECONDS: Final = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 0.4
_INITIATOR_BYTES, _RESPONDER_BYTES = 20_480, 16_384


class Stream:
    """TLS bytes of the peer: in whatever order they come, the first write of a byte wins."""

    def __init__(self, limit: int) -> None:
        self.received = 0
        self._limit = limit
        self._early: dict[int, int] = {}

    def add(self, offset: int, data: bytes) -> bytes:
        """Return what can be read on now."""
        for at, byte in enumerate(data, offset):
            if self.received <= at < self._limit:
                self._early.setdefault(at, byte)
        fresh = bytearray()
        while self.received in self._early:
            fresh.append(self._early.pop(self.received))
            self.received += 1
        return bytes(fresh)


@dataclass
class Pace:
    """When to repeat next: 100 ms, doubling to 400 ms."""

    due: float
    pause: float = _FIRST_PAUSE

    def passed(self, now: float) -> bool:
        """Tell whether it is time, and set the next one."""
        if now < self.due:
            return False
        self.pause = min(2 * self.pause, _LONGEST_PAUSE)
        self.due = now + self.pause
        return True


class Talk:
    """TLS over FLIGHTs: what both roles share. `header` is what our own FLIGHTs carry.

    `keys` and `peer` stand once TLS has finished and the peer is judged. After `refused`, what is
    sent is TLS's alert.
    """

    def __init__(
        self, credential: Credential, called: str | None, header: Flight, now: float
    ) -> None:
        self.header = header
        self.theirs: Flight | None = None
        self.refused = ""
        self.begun = False  # one session, once: its counters begin at 1
        self.keys: Keys | None = None
        self.peer: Peer | None = None
        self.heard_at = now
        self.pace = Pace(now + _FIRST_PAUSE)
        self._credential, self._called = credential, called
        self._tls = connection(credential, called)
        self._heard = Stream(_INITIATOR_BYTES if called is None else _RESPONDER_BYTES)
        self._sent = b""
        self._acknowledged = 0

    def flights(self, start: int) -> list[bytes]:
        """Return our stream from `start` on."""
        here = replace(self.header, received=self._heard.received)
        cuts = range(start, len(self._sent), PIECE)
        return [replace(here, offset=at, data=self._sent[at : at + PIECE]).encode() for at in cuts]

    def missing(self) -> list[bytes]:
        """Return what the peer has not acknowledged, or else the last piece again."""
        last = max(0, len(self._sent) - PIECE)
        return self.flights(self._acknowledged) or self.flights(last)

    def take(self, flight: Flight, now: float) -> list[bytes]:
        """Take a FLIGHT of this handshake and return what answers it."""
        if self.theirs is None and flight.data:
            self.theirs = flight
        if self.theirs is None or flight.header != self.theirs.header:
            return []
        self._acknowledged = max(self._acknowledged, min(flight.received, len(self._sent)))
        start = len(self._sent)
        if fresh := self._heard.add(flight.offset, flight.data):
            self.heard_at = now
            self.pace = Pace(now + _FIRST_PAUSE)
            self.advance(fresh)
        if flight.data:
            return self.flights(start) or [
                replace(self.header, received=self._heard.received).encode()
            ]
        return []

    def advance(self, fresh: bytes = b"") -> None:
        """Let TLS read on. It writes nothing of ours any more once keys exist."""
        if fresh:
            self._tls.bio_write(fresh)
        if self.keys is not None:
            self._read_refusal()
            return
        try:
            self._tls.do_handshake()
            self._finish()
        except SSL.WantReadError:
            pass
        except (SSL.Error, Refused) as error:
            self.refused = str(error) or "TLS refused"
        self._sent += self._written()

    def _finish(self) -> None:
        """Judge before our Finished (initiator's) is sent, and before any key is exported.

        A leaf was refused by an alert long before: what is found here comes too late for one that
        the peer could read, so nothing is sent.
        """
        assert self.theirs is not None
        own = self._credential.own
        try:
            self.peer = judge(self._tls, self._credential, self._called)
        except Refused:
            self._written()
            raise
        if self._called is None:
            self.keys = export(self._tls, self.theirs, self.header, (self.peer, own))
        else:
            self.keys = export(self._tls, self.header, self.theirs, (own, self.peer))

    def _read_refusal(self) -> None:
        try:
            self._tls.recv(1)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:  # close_notify: not a refusal
            pass
        except SSL.Error as error:
            # Bytes that do not decrypt are a stranger's: only an alert says anything.
            if "alert" in str(error):
                self.refused = f"the peer refused: {error}"
        self._written()

    def _written(self) -> bytes:
        written = b""
        try:
            while True:
                written += self._tls.bio_read(1 << 16)
        except SSL.WantReadError:
            return written


class Attempt(Talk):
    """The initiator's side: HELLO until a RETRY came, then FLIGHTs. `offer` has no ids yet."""

    def __init__(self, credential: Credential, address: str, offer: Flight, now: float) -> None:
        header = replace(offer, index=fresh_index(), initiator=os.urandom(8))
        super().__init__(credential, address, header, now)
        self._has_cookie = False

    def hello(self) -> list[bytes]:
        return [Hello(self.header.initiator, self.header.newest, self.header.oldest).encode()]

    def retry(self, retry: Retry, now: float) -> list[bytes]:
        """Take the cookie: the first one brings the ClientHello, another what is missing."""
        self.header = replace(self.header, cookie=retry.cookie)
        if not self._has_cookie:
            self._has_cookie = True
            self.heard_at = now
            self.advance()
        return [] if self.keys else self.missing()

    @override
    def take(self, flight: Flight, now: float) -> list[bytes]:
        if not self._answers(flight):
            return []
        if self.header.responder == bytes(8) and flight.data and flight.responder != bytes(8):
            self.header = replace(self.header, responder=flight.responder)
        if not self._has_cookie or flight.responder != self.header.responder:
            return []
        return super().take(flight, now)

    def _answers(self, flight: Flight) -> bool:
        """Tell whether it repeats what we offered and chooses among it."""
        ours = self.header
        chosen = flight.generation == 0 and not flight.features & ~ours.features
        return chosen and (flight.newest, flight.oldest) == (ours.newest, ours.oldest)

    def repeat(self) -> list[bytes]:
        return self.missing() if self._has_cookie else self.hello()


class Answer(Talk):
    """The responder's side, from the first FLIGHT with a good cookie and TLS bytes on."""

    def __init__(self, credential: Credential, first: Flight, features: int, now: float) -> None:
        header = replace(
            first,
            index=fresh_index(),
            responder=os.urandom(8),
            features=features,
            generation=0,
            data=b"",
        )
        super().__init__(credential, None, header, now)
        self.began = now

    @override
    def take(self, flight: Flight, now: float) -> list[bytes]:
        if flight.responder not in {bytes(8), self.header.responder}:
            return []
        return super().take(flight, now)


def fresh_index() -> int:
    return int.from_bytes(os.urandom(4), "big") or 1
