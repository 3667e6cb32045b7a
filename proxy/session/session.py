"""One session: a peer, keys in both directions, and the end of its life."""

from typing import Final

from proxy.credentials.certificate import PodCertificate
from proxy.errors import Unusable
from proxy.session.cookie import Endpoint
from proxy.session.keys import SessionKeys
from proxy.session.path_size import PathSize
from proxy.session.pieces import Pieces, SealingBuffer
from proxy.session.record import Opener, Sealer
from proxy.session.record_limit import RecordLimit
from proxy.session.trial import Trial

RENEW_AFTER: Final = 600.0
"""Seconds until a new handshake is started beside a session."""

SESSION_LIFE: Final = 900.0
"""Seconds after which a session neither seals nor opens."""

RETIRED_LIFE: Final = 30.0
"""Seconds a session that no longer seals still opens records under way."""

UNCONFIRMED, CONFIRMED, RETIRED = STATES = ("unconfirmed", "confirmed", "retired")
"""No record of the peer has opened yet; it seals; it only opens what is under way."""


class Session:
    """Seals and opens records; plain counters, no I/O. ``confirmed`` once a record of the peer has opened."""

    __slots__ = (
        "_ends",
        "bytes_in",
        "bytes_out",
        "chain",
        "confirmed",
        "endpoint",
        "generation",
        "group",
        "heard",
        "index",
        "is_initiator",
        "limit",
        "opened",
        "opener",
        "packets_asked",
        "packets_in",
        "packets_out",
        "path",
        "peer",
        "peer_index",
        "pings",
        "renew_at",
        "retired",
        "sealer",
        "session_id",
        "suite",
        "trial",
        "trial_after",
    )

    def __init__(  # noqa: PLR0913 - what a session is made of
        self,
        keys: SessionKeys,
        peer: PodCertificate,
        chain: tuple[bytes, ...],
        *,
        index: int,
        peer_index: int,
        endpoint: Endpoint,
        generation: int,
        group: str,
        is_initiator: bool,
        now: float,
        ends: float,
        path: PathSize,
        buffer: SealingBuffer,
    ) -> None:
        """Begin at ``now``; ``ends`` (monotonic) is the end of the shorter of both certificates."""
        self.index, self.peer_index = index, peer_index
        self.endpoint, self.peer, self.chain = endpoint, peer, chain
        self.generation, self.session_id = generation, keys.session_id
        self.suite, self.group, self.is_initiator = keys.sending.suite, group, is_initiator
        self.sealer = Sealer(keys.sending, peer_index, buffer)
        self.opener = Opener(keys.receiving)
        self.opened = now
        self.heard = now  # when a record of the peer last opened
        self.pings = 0  # sent since then without an answer
        self.renew_at = now + RENEW_AFTER * (1 if is_initiator else 1.1)
        self.confirmed = False
        self.retired = False
        self.packets_in = self.packets_out = self.bytes_in = self.bytes_out = 0
        self.path = path
        self.limit = RecordLimit()
        self.packets_asked = 0  # packets_out when the path was last asked for its size
        self.trial: Trial | None = None  # of another address for the peer
        self.trial_after = now
        self._ends = min(now + SESSION_LIFE, ends)

    @property
    def ends(self) -> float:
        """When it stops to seal and open, in monotonic seconds."""
        return self._ends

    @property
    def state(self) -> str:
        """One of `STATES`."""
        return RETIRED if self.retired else CONFIRMED if self.confirmed else UNCONFIRMED

    @property
    def rank(self) -> tuple[int, int]:
        """Of a pair's confirmed sessions the one with the highest rank seals; both ends compute the same."""
        return self.generation, -int.from_bytes(self.session_id, "big")

    def seal(self, plain: memoryview | bytes, datagram_size: int, now: float) -> memoryview | bytes:
        """Seal one record (see `Sealer.seal`); raises `Unusable` at the end of the session's life."""
        if now >= self._ends:
            raise Unusable
        return self.sealer.seal(plain, datagram_size)

    def may_receive(self, source: Endpoint, now: float) -> bool:
        """Say whether records may come from ``source`` and now: from anywhere, once it is confirmed."""
        return now < self._ends and (self.confirmed or source == self.endpoint)

    def open(
        self,
        datagram_untrusted: memoryview,
        piece: int,
        plain: memoryview,
        now: float,
        ecn: int = 0,
    ) -> int:
        """Open one datagram (see `Opener.open`), if `may_receive`."""
        size = self.opener.open(datagram_untrusted, piece, plain, now, ecn)
        if size:
            self.heard = now
        return size

    def open_whole(  # noqa: PLR0913, PLR0917 - as `open`
        self, received: Pieces, at: int, size: int, plain: memoryview, now: float, ecn: int = 0
    ) -> int:
        """Open a record that may lie whole in one receive (see `Opener.open_whole`), if `may_receive`."""
        length = self.opener.open_whole(received, at, size, plain, ecn)
        if length:
            self.heard = now
        return length
