"""What two pods say to each other while one verifies (``docs/protocol.md`` 8, VERIFY): bodies of control records."""

from dataclasses import astuple, dataclass
from enum import IntEnum, unique
from hashlib import sha256
from struct import Struct, error
from typing import Final

from proxy.drops import Drop
from proxy.errors import Dropped

SHARE: Final = 32
"""Random bytes that each end's watcher gives to the canaries."""

CANARY: Final = 16
ID: Final = 16
IPV4, IPV6 = 1, 2
"""Families, as bits."""

_HEAD: Final = Struct(f">BB{ID}s")
_ASK: Final = Struct(f">BB{ID}s{SHARE}s")
_READY: Final = Struct(f">BB{ID}s{SHARE}s4H")
_REPORT: Final = Struct(f">BB{ID}s10IQ")
_REFUSED: Final = Struct(f">BB{ID}sB")
_ASKED, _READIED, _ENDED, _REPORTED, _REFUSES = range(1, 6)
_LARGEST: Final = {4: (1 << 32) - 1, 8: (1 << 64) - 1}


def canaries(askers: bytes, answerers: bytes) -> tuple[bytes, bytes]:
    """Return the canaries that run there and back, of both ends' shares: nobody chooses what is looked for."""
    shares = askers + answerers
    return sha256(b"there" + shares).digest()[:CANARY], sha256(b"back" + shares).digest()[:CANARY]


@unique
class Reason(IntEnum):
    """Why an answerer takes no part."""

    OFF = 1
    BUSY = 2
    CANNOT = 3


@dataclass(frozen=True, slots=True)
class Ask:
    """Look at your interfaces, and listen."""

    run: bytes
    families: int
    share: bytes

    def encode(self) -> bytes:
        """Return the body."""
        return _ASK.pack(_ASKED, self.families, self.run, self.share)


@dataclass(frozen=True, slots=True)
class Ready:
    """Where the answerer listens: TCP and UDP over IPv4, then over IPv6; 0 for nowhere."""

    run: bytes
    share: bytes
    ports: tuple[int, int, int, int]

    def encode(self) -> bytes:
        """Return the body."""
        return _READY.pack(_READIED, 0, self.run, self.share, *self.ports)


@dataclass(frozen=True, slots=True)
class End:
    """The flows are over: tell what was seen."""

    run: bytes

    def encode(self) -> bytes:
        """Return the body."""
        return _HEAD.pack(_ENDED, 0, self.run)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one pod's interfaces have shown; see ``docs/decisions/0007``."""

    inside: int = 0
    """Where tenc0 showed the right canary: one of 8 bits for family, protocol and direction (`proxy.verify.frames`)."""
    missed: int = 0
    unreadable: int = 0
    canaries_out: int = 0
    canaries_in: int = 0
    clear_out: int = 0
    clear_in: int = 0
    foreign_out: int = 0
    foreign_in: int = 0
    sealed: int = 0
    sealed_bytes: int = 0
    """UDP payload of sealed datagrams."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the answerer's interfaces have shown."""

    run: bytes
    seen: Seen

    def encode(self) -> bytes:
        """Return the body; counts stop at what their field holds."""
        *counts, size = astuple(self.seen)
        narrow = [min(count, _LARGEST[4]) for count in counts]
        return _REPORT.pack(_REPORTED, 0, self.run, *narrow, min(size, _LARGEST[8]))


@dataclass(frozen=True, slots=True)
class Refused:
    """The answerer takes no part."""

    run: bytes
    reason: Reason

    def encode(self) -> bytes:
        """Return the body."""
        return _REFUSED.pack(_REFUSES, 0, self.run, self.reason)


Message = Ask | Ready | End | Report | Refused


def parse(body_untrusted: bytes) -> Message:
    """Return the message that a body is; what follows it is ignored. Raises `Dropped` (PACKET_MALFORMED)."""
    kind = body_untrusted[0] if body_untrusted else 0
    try:
        match kind:
            case 1:
                _, families, run, share = _ASK.unpack_from(body_untrusted)
                if not 0 < families <= IPV4 | IPV6:
                    raise Dropped(Drop.PACKET_MALFORMED, "VERIFY's ASK")
                return Ask(run, families, share)
            case 2:
                _, _, run, share, *ports = _READY.unpack_from(body_untrusted)
                return Ready(run, share, (ports[0], ports[1], ports[2], ports[3]))
            case 3:
                return End(_HEAD.unpack_from(body_untrusted)[2])
            case 4:
                _, _, run, *counts = _REPORT.unpack_from(body_untrusted)
                return Report(run, Seen(*counts))
            case 5:
                _, _, run, reason = _REFUSED.unpack_from(body_untrusted)
                return Refused(run, Reason(reason))
            case _:
                raise Dropped(Drop.PACKET_MALFORMED, "VERIFY's type")
    except (error, ValueError):
        raise Dropped(Drop.PACKET_MALFORMED, "VERIFY's body") from None
