"""The two error families: what the network did to us, and what we may not do.

``Dropped`` is the peer's (or a stranger's) doing: the datagram or packet at hand is lost, the object that
raised it is as usable as before. ``Unusable`` is ours: the object that raised it has reached a limit or the
end of its life and must be let go.
"""

from typing_extensions import override

from proxy.drops import Drop


class Dropped(Exception):  # noqa: N818 - named for what happened to the datagram; nothing has failed
    """A datagram, packet or handshake was refused; the receiver's state is unchanged and still usable."""

    def __init__(self, reason: Drop, detail: str = "") -> None:
        """Keep ``reason`` for counters and logs; ``detail`` says more to a person and holds no secret."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    @override
    def __str__(self) -> str:
        """Give the reason, and the detail where there is one."""
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


class Unusable(Exception):  # noqa: N818 - a state, as StopIteration is
    """The object has reached its limit: it must not be used again."""
