"""What joins the net agent and the daemon: words towards the agent by a pipe, words and descriptors back by a socket.

A pipe, for a socket would let a daemon that was taken over send descriptors: closing one (a TCP socket that lingers)
can hold a process of root for as long as its sender likes.
"""

import os
import socket
from typing import Final

_WORD: Final = 16
_END: Final = b"\n"


class AgentsEnd:
    """Hears words of the daemon; `fileno` is readable when there are any, or the daemon is gone."""

    def __init__(self, words: int, answers: socket.socket) -> None:
        """Read from ``words``, answer by ``answers``."""
        self._words, self._answers = words, answers

    def fileno(self) -> int:
        """Return what to poll."""
        return self._words

    def hear(self) -> list[bytes]:
        """Return what the daemon says, maybe nothing that anybody knows; an empty list when it is gone."""
        return os.read(self._words, 64).split(_END)

    def say(self, word: bytes, descriptor: int | None = None) -> None:
        """Tell the daemon, without ever waiting for it. Raises OSError where it does not listen."""
        given = [] if descriptor is None else [descriptor]
        socket.send_fds(self._answers, [word], given, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Hear and say no more: the daemon sees it."""
        os.close(self._words)
        self._answers.close()


class DaemonsEnd:
    """Says words to the agent; `fileno` is readable when it answers, or is gone."""

    def __init__(self, words: int, answers: socket.socket) -> None:
        """Write to ``words``, hear by ``answers``."""
        self._words, self._answers = words, answers

    def fileno(self) -> int:
        """Return what to poll."""
        return self._answers.fileno()

    def say(self, word: bytes) -> None:
        """Tell the agent. Raises OSError where it is gone, or does not listen."""
        os.write(self._words, word + _END)

    def hear(self) -> tuple[bytes, socket.socket | None]:
        """Wait for a word and what comes with it; the empty word when the agent is gone."""
        word, descriptors, _, _ = socket.recv_fds(self._answers, _WORD, 1)
        return word, socket.socket(fileno=descriptors[0]) if descriptors else None

    def close(self) -> None:
        """Say and hear no more: the agent sees it."""
        os.close(self._words)
        self._answers.close()


def make() -> tuple[AgentsEnd, DaemonsEnd]:
    """Return both ends."""
    hears, says = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    agents, daemons = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agents.shutdown(socket.SHUT_RD)
    return AgentsEnd(hears, agents), DaemonsEnd(says, daemons)
