"""What the sessions tell, as lines of the log."""

import logging
import socket

from proxy.drivers import logs
from proxy.session.events import (
    CallFailed,
    Event,
    HandshakeRefused,
    ListsHeard,
    RendezvousDone,
    ServedByOurselves,
    SessionClosed,
    SessionMoved,
    SessionOpened,
    VerifyHeard,
)


def tell(event: Event) -> None:
    """Log an event."""
    match event:
        case SessionOpened(session):
            logs.event(
                "session_opened",
                peer=session.peer.pod,
                identity=session.peer.identity.uri,
                endpoint=session.endpoint[0],
                role="initiator" if session.is_initiator else "responder",
                generation=session.generation,
                cipher=session.suite,
                group=session.group,
            )
        case SessionMoved(session, before):
            logs.event(
                "session_moved",
                peer=session.peer.pod,
                identity=session.peer.identity.uri,
                endpoint=session.endpoint[0],
                port=session.endpoint[1],
                before=before[0],
            )
        case SessionClosed(session, why):
            logs.event(
                "session_closed",
                peer=session.peer.pod,
                identity=session.peer.identity.uri,
                generation=session.generation,
                why=why,
            )
        case HandshakeRefused(endpoint, refusal, is_initiator):
            logs.event(
                "handshake_refused",
                logging.WARNING,
                endpoint=endpoint[0],
                reason=str(refusal.reason),
                detail=refusal.detail,
                role="initiator" if is_initiator else "responder",
            )
        case RendezvousDone(address, session):
            logs.event("service_met", address=_text(address), peer=session.peer.pod)
        case ServedByOurselves(address):
            logs.event("service_met", address=_text(address), peer="itself")
        case VerifyHeard() | ListsHeard():
            pass  # one of several: what came of them is logged as a whole
        case CallFailed(address, refusal):
            logs.event(
                "unreachable",
                logging.WARNING,
                address=_text(address),
                reason=str(refusal.reason),
            )


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
