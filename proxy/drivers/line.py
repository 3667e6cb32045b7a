"""What joins the net agent and the daemon: lines towards the agent by a pipe, answers and descriptors back by a socket.

A pipe, for a socket would let a daemon that was taken over send descriptors: closing one (a TCP socket that lingers)
can hold a process of root for as long as its sender likes.
"""

import os
import socket
from typing import Final

_READ: Final = 4096
_LONGEST_LINE: Final = 512
_LONGEST_ANSWER: Final = 128 << 10
_END: Final = b"\n"


class AgentsEnd:
    """Hears lines of the daemon; `fileno` is readable when there are any, or the daemon is gone."""

    def __init__(self, lines: int, answers: socket.socket) -> None:
        """Read from ``lines``, answer by ``answers``."""
        self._lines, self._answers = lines, answers
        self._begun = b""

    def fileno(self) -> int:
        """Return what to poll."""
        return self._lines

    def hear(self) -> list[bytes] | None:
        """Return whole lines that the daemon says, maybe nothing that anybody knows; None when it is gone."""
        read = os.read(self._lines, _READ)
        if not read:
            return None
        *lines, rest = (self._begun + read).split(_END)
        # One that is too long is none, and neither is what is left of it.
        self._begun = rest if len(rest) <= _LONGEST_LINE else rest[: _LONGEST_LINE + 1]
        return lines

    def say(self, word: bytes, descriptor: int | None = None) -> None:
        """Tell the daemon, without ever waiting for it. Raises OSError where it does not listen."""
        given = [] if descriptor is None else [descriptor]
        socket.send_fds(self._answers, [word], given, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Hear and say no more: the daemon sees it."""
        os.close(self._lines)
        self._answers.close()


class DaemonsEnd:
    """Says lines to the agent; `fileno` is readable when it answers, or is gone."""

    def __init__(self, lines: int, answers: socket.socket) -> None:
        """Write to ``lines``, hear by ``answers``."""
        self._lines, self._answers = lines, answers

    def fileno(self) -> int:
        """Return what to poll."""
        return self._answers.fileno()

    def say(self, line: bytes) -> None:
        """Tell the agent. Raises OSError where it is gone, or does not listen."""
        os.write(self._lines, line + _END)

    def hear(self) -> tuple[bytes, socket.socket | None]:
        """Wait for an answer and what comes with it; an empty one when the agent is gone."""
        answer, descriptors, _, _ = socket.recv_fds(self._answers, _LONGEST_ANSWER, 1)
        return answer, socket.socket(fileno=descriptors[0]) if descriptors else None

    def close(self) -> None:
        """Say and hear no more: the agent sees it."""
        os.close(self._lines)
        self._answers.close()


def make() -> tuple[AgentsEnd, DaemonsEnd]:
    """Return both ends."""
    hears, says = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    agents, daemons = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agents.shutdown(socket.SHUT_RD)
    return AgentsEnd(hears, agents), DaemonsEnd(says, daemons)
