"""What the sessions tell the rest of the proxy; nothing here is per packet."""

from dataclasses import dataclass

from proxy.errors import Dropped
from proxy.session.cookie import Endpoint
from proxy.session.session import Session


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session is confirmed by both ends; packets for its peer's addresses may go."""

    session: Session


@dataclass(frozen=True, slots=True)
class SessionMoved:
    """A session's datagrams go to another outer address, which was proved; ``before`` is the former."""

    session: Session
    before: Endpoint


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A session is gone; ``why``: closed by peer, peer silent, replaced, ended, not confirmed, stopped, or a `Drop`."""

    session: Session
    why: str


@dataclass(frozen=True, slots=True)
class HandshakeRefused:
    """One handshake ended without a session; where we called, another attempt may follow."""

    endpoint: Endpoint
    refusal: Dropped
    is_initiator: bool


@dataclass(frozen=True, slots=True)
class CallFailed:
    """No session came about within a call's time: packets that wait for ``address`` are lost."""

    address: bytes
    refusal: Dropped


@dataclass(frozen=True, slots=True)
class RendezvousDone:
    """A call to ``address``, which the peer's certificate does not name, found this session: a Service's, then."""

    address: bytes
    session: Session


@dataclass(frozen=True, slots=True)
class ServedByOurselves:
    """A call to ``address`` was answered with our own key: a Service's, which the network led back to us."""

    address: bytes


@dataclass(frozen=True, slots=True)
class VerifyHeard:
    """A VERIFY record has opened; the body is what the peer says, whatever that is."""

    session: Session
    body: bytes


@dataclass(frozen=True, slots=True)
class ListsHeard:
    """A LISTS record has opened; the body is what the peer says, whatever that is."""

    session: Session
    body: bytes


Event = (
    SessionOpened
    | SessionMoved
    | SessionClosed
    | HandshakeRefused
    | CallFailed
    | RendezvousDone
    | ServedByOurselves
    | VerifyHeard
    | ListsHeard
)
