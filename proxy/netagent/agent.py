"""The net agent: sets the network up, starts the daemon without privileges, stays, and undoes it.

    agent (UID 0, CAP_NET_ADMIN, no network socket)          daemon (its own UID, no capability)
        set_up
        fork --------------------------------------------->  become_daemon, start_daemon
        <------------------------------------- b"ready" ---  when it can take packets
        <----------------------------- b"7 +member ..." ---  orders: `proxy.netagent.orders`
        --- b"done 7" ------------------------------------>
        <------------------------------------- b"watch" ---  where `verify` is on
        (lookout forks a watcher) --- b"watch", channel -->  commands it by the channel
        SIGTERM, SIGINT, SIGHUP: --- b"stop" ------------->  ends by itself: a process of root
        tear_down                                            without CAP_KILL cannot signal it

The agent's own end shows in the channel as end of file, upon which the daemon ends too: the
kernel's parent-death signal is sent with the dying parent's rights, and would not arrive.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from proxy.drivers import line
from proxy.drivers.line import AgentsEnd, DaemonsEnd
from proxy.drivers.tun import Tun
from proxy.netagent.drivers import apply, nft, privileges, same_user
from proxy.netagent.drivers.carry import Orders
from proxy.netagent.drivers.lookout import Lookout
from proxy.netagent.errors import MachineLacksError, NetAgentError
from proxy.netagent.plan import (
    TUNNEL,
    Address,
    NetSettings,
    PlanError,
    plan,
    standing,
)

READY: Final = b"ready"
STOP: Final = b"stop"
WATCH: Final = b"watch"
BUSY: Final = b"busy"
STOP_SECONDS: Final = 10.0
_REST: Final = 4
"""How many times as long as orders took the agent rests before it hears the next."""

# Runs the daemon and returns its exit code; the addresses are members that the set-up before this one knew by order.
# It must end at STOP, and when the agent is gone: then
# it hears the empty word, or ConnectionResetError. It must open its
# sockets itself: the filter knows the daemon by the user that opened a socket.
StartDaemon: TypeAlias = "Callable[[DaemonsEnd, Tun, list[Address]], int]"

_FINE, _FAILED, _USAGE, _REFUSED_BY_CA, _LACKS = range(5)
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class _Watch:
    """How the daemon's life went; `status` is None as long as it lives."""

    tell_ready: Callable[[], object]
    ready: bool = False
    stopping: bool = False
    status: int | None = None


def run(
    settings: NetSettings,
    start_daemon: StartDaemon,
    *,
    load: Callable[[], object] = lambda: None,
    ready: Callable[[], object] = lambda: None,
    netns: str | None = None,
) -> int:
    """Set up, run the daemon until it ends or a signal asks for it; return the exit code.

    `load` imports what the daemon needs: in its process alone, and while it still may read where Python is installed.
    `ready` is called here once it is ready. `netns` is entered first; None stays in the present namespace. The calling
    process must have one thread. What goes wrong is one line on standard error.
    """
    # From here to the fork a signal waits: half a set-up is no place to end.
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        return _run(settings, (load, start_daemon), ready, netns, former)
    except PlanError as error:
        return _say(str(error), _USAGE)
    except MachineLacksError as error:
        return _say(str(error), _LACKS)
    except NetAgentError as error:
        return _say(str(error), _FAILED)
    finally:
        # A second Ctrl-C, while the first was being obeyed, asks for nothing more.
        while signal.sigtimedwait(_STOP_SIGNALS, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _run(
    settings: NetSettings,
    daemon: tuple[Callable[[], object], StartDaemon],
    ready: Callable[[], object],
    netns: str | None,
    former: set[int],
) -> int:
    if netns is not None:
        privileges.enter_netns(netns)
    kept, notes = nft.members(), nft.notes()
    planned = plan(standing(settings, notes), notes, kept)
    privileges.require_one_thread()
    if settings.verify:
        privileges.require(privileges.CAP_NET_RAW, 'verify = "project"')
    if not apply.is_used():
        same_user.require_none(settings.uid)
    earlier = apply.set_up(planned)
    agents, daemons = line.make()
    child = os.fork()
    if child == 0:
        agents.close()
        _be_daemon(settings, daemon, daemons, former, kept)
    daemons.close()
    lookout = Lookout(settings) if settings.verify else None
    privileges.keep_only(frozenset({privileges.CAP_NET_ADMIN}))
    with contextlib.closing(agents):
        watch = _supervise(child, agents, Orders(settings, kept), lookout, _Watch(ready))
    if lookout is not None:
        # Before the filter can be lifted: no canary of a watcher shall leave in clear.
        lookout.end()
    return _finish(watch, child, began=watch.ready or earlier)


def _be_daemon(
    settings: NetSettings,
    daemon: tuple[Callable[[], object], StartDaemon],
    channel: DaemonsEnd,
    former: set[int],
    kept: list[Address],
) -> NoReturn:
    """Run the daemon in the child; never returns into the agent's code above."""
    code = _FAILED
    load, start_daemon = daemon
    try:
        # A process group of its own: Ctrl-C reaches the agent alone, which asks for an orderly end.
        os.setpgid(0, 0)
        load()
        tun = _attach()
        privileges.become_daemon(settings.uid, settings.gid)
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        code = start_daemon(channel, tun, kept)
    except NetAgentError as error:
        code = _say(str(error), _LACKS)
    except BaseException:  # noqa: BLE001 - the last frame of this process: shown, then it ends
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _attach() -> Tun:
    """Attach while there is privilege: /dev/net/tun may be root's alone."""
    try:
        return Tun.open(TUNNEL)
    except OSError as error:
        raise NetAgentError(f"cannot attach to {TUNNEL}: {error.strerror}") from error


def _supervise(
    child: int, line: AgentsEnd, orders: Orders, lookout: Lookout | None, watch: _Watch
) -> _Watch:
    """Wait until the daemon ends; a signal asks it to, and then bounds the wait."""
    deadline: float | None = None
    ended = os.pidfd_open(child)
    with _signals() as woken:
        poll = select.poll()
        for source in (woken.fileno(), line.fileno(), ended):
            poll.register(source, select.POLLIN)
        if lookout is not None:
            poll.register(lookout, select.POLLIN)
        while watch.status is None:
            left = None if deadline is None else deadline - _now()
            if left is not None and left <= 0:
                break
            happened = {descriptor for descriptor, _ in poll.poll(left and left * 1000)}
            if lookout is not None and lookout.fileno() in happened and not lookout.hear():
                poll.unregister(lookout)
                lookout = None
            if line.fileno() in happened and not _hear(line, watch, orders, lookout):
                poll.unregister(line)
            if woken.fileno() in happened:
                poll.unregister(woken)
                watch.stopping = True
                deadline = _now() + STOP_SECONDS
                with contextlib.suppress(OSError):
                    line.say(STOP)
            if ended in happened:
                watch.status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(ended)
    return watch


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - a composition root, without an event loop


def _hear(line: AgentsEnd, watch: _Watch, orders: Orders, lookout: Lookout | None) -> bool:
    """Take what the daemon says; say whether it still can."""
    lines = line.hear()
    if lines is None:
        return False
    if READY in lines and not watch.ready:
        watch.ready = True
        watch.tell_ready()
    with contextlib.suppress(OSError):
        if WATCH in lines:
            _let_watch(line, lookout)
        began = _now()
        for answer in orders.carry(lines):
            line.say(answer)
        # Whatever a daemon that was taken over asks for, it is a fifth of one CPU's work at most.
        time.sleep(_REST * (_now() - began))
    return True


def _let_watch(line: AgentsEnd, lookout: Lookout | None) -> None:
    """Give the daemon what it commands a watcher by; one at a time, whatever it asks for."""
    ours, daemons = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, daemons:
        began = lookout is not None and lookout.begin(ours)
        # Before the daemon can send by the other end: closing the last of this one would close what it sent.
        ours.close()
        if began:
            line.say(WATCH, daemons.fileno())
        else:
            line.say(BUSY)


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Give a socket that is readable once a signal asked for the end; outside they are blocked."""
    read, write = socket.socketpair()
    write.setblocking(False)  # noqa: FBT003 - the standard library's signature
    with read, write:
        formers = {number: signal.signal(number, lambda *_: None) for number in _STOP_SIGNALS}
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        try:
            yield read
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
            signal.set_wakeup_fd(-1)
            for number, handler in formers.items():
                signal.signal(number, handler)


def _finish(watch: _Watch, child: int, *, began: bool) -> int:
    """Leave the set-up in force, or undo it where nothing was ever protected by it (``began``)."""
    status = watch.status
    orderly = watch.stopping or status == _FINE
    if not began and (orderly or status in {_USAGE, _REFUSED_BY_CA, _LACKS}):
        apply.tear_down()
        code = status if status is not None else _FAILED
        return _FINE if watch.stopping and status is not None else code
    if watch.stopping and status is None:
        said, code = f"the daemon (PID {child}) did not end in {STOP_SECONDS:.0f} s", _FAILED
    elif orderly:
        said, code = "stopped", _FINE
    else:
        said, code = f"the daemon ended with {_how(status)}", _FAILED
    return _say(
        f"{said}: traffic to and from members stays refused, until `tencrypt run` starts again or "
        "`tencrypt net down` lifts this",
        code,
    )


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        return f"signal {-status} ({signal.strsignal(-status)})"
    return f"exit code {status}"


def _say(line: str, code: int) -> int:
    sys.stderr.write(f"tencrypt: {line}\n")
    return code
