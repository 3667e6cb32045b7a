"""The parent of watchers, where `verify` is on: of a user of its own, with what a packet socket needs and nothing else.

So neither the net agent holds CAP_NET_RAW, nor does a watcher, which parses what anybody sends, own root's files.
It hears from the agent alone, and starts one watcher after another.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from typing import Final, NoReturn

from proxy.netagent.drivers import privileges, watcher
from proxy.netagent.errors import NetAgentError
from proxy.netagent.plan import NetSettings

USER: Final = 65534
"""Nobody's; no daemon may have it, and no application should."""

_WATCH: Final = b"watch"
_DONE: Final = b"done"
_END_SECONDS: Final = 2.0


class Lookout:
    """The agent's side of it; `fileno` is readable when a watcher has ended."""

    def __init__(self, settings: NetSettings) -> None:
        """Fork it. To be made by a process of one thread that still has its privileges."""
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            _be_lookout(settings, theirs.fileno())
        theirs.close()
        self._busy = False

    def fileno(self) -> int:
        """Return what to poll."""
        return self._line.fileno()

    def begin(self, channel: socket.socket) -> bool:
        """Let a watcher obey ``channel``; False while another one is at it."""
        if self._busy:
            return False
        socket.send_fds(self._line, [_WATCH], [channel.fileno()], socket.MSG_DONTWAIT)
        self._busy = True
        return True

    def hear(self) -> bool:
        """Take what it says; False when it is gone."""
        self._busy = False
        try:
            return self._line.recv(16) == _DONE
        except OSError:  # it went with words of ours unread
            return False

    def end(self) -> None:
        """Let it, and a watcher that is at work, end; returns when they have."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)
        ended = os.pidfd_open(self._pid)
        with contextlib.suppress(ChildProcessError):
            if select.select([ended], [], [], _END_SECONDS)[0]:
                os.waitpid(self._pid, 0)
        os.close(ended)
        self._line.close()


def _be_lookout(settings: NetSettings, kept: int) -> NoReturn:
    code = 1
    try:
        # A process group of its own: Ctrl-C reaches the agent alone, which ends us.
        os.setpgid(0, 0)
        os.closerange(3, kept)
        os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
        wanted = frozenset({privileges.CAP_NET_ADMIN, privileges.CAP_NET_RAW})
        privileges.become(USER, USER, wanted)
        with socket.socket(fileno=kept) as line:
            _look_out(settings, line)
        code = 0
    except (NetAgentError, OSError) as error:
        sys.stderr.write(f"tencrypt: verify: {error}\n")
    except BaseException:  # noqa: BLE001 - the last frame of this process: shown, then it ends
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _look_out(settings: NetSettings, line: socket.socket) -> None:
    """Start watchers, one after the other, until the agent is gone."""
    while True:
        word, descriptors, _, _ = socket.recv_fds(line, 16, 1)
        if not word:
            return
        pid = watcher.start(settings, descriptors[0])
        os.close(descriptors[0])
        ended = os.pidfd_open(pid)
        if ended not in select.select([ended, line.fileno()], [], [])[0]:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ended)
        with contextlib.suppress(OSError):
            line.send(_DONE)
