"""The watcher: a child of the net agent that looks at one interface for `verify`, and can do nothing else.

It opens one packet socket for all interfaces, gives up every capability, and only then hears from the daemon what to
look for. It ends when it has told, when the daemon is gone, and by an alarm of the kernel in any case.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, NoReturn

from proxy.errors import Dropped
from proxy.netagent.drivers import canaries, privileges
from proxy.netagent.drivers.canaries import Listener
from proxy.netagent.plan import TUNNEL, NetSettings
from proxy.verify import orders
from proxy.verify.frames import Watch
from proxy.verify.messages import SHARE
from proxy.verify.messages import canaries as canaries_of

LIFE_SECONDS: Final = 10
"""Of a watcher, whatever happens."""

_LO: Final = "lo"
_ETH_P_ALL: Final = 3
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_VNET_HDR: Final = 15
_PACKET_OUTGOING: Final = 4
_SO_RCVBUFFORCE: Final = 33
_SO_ATTACH_FILTER: Final = 26
# Classic BPF: load the interface's index; if it is 1, which is lo in each network namespace, take 0 bytes, else all.
_NOT_LO: Final = struct.pack(
    "HBBIHBBIHBBIHBBI",
    *(0x20, 0, 0, 0xFFFFF008),
    *(0x15, 0, 1, 1),
    *(0x06, 0, 0, 0),
    *(0x06, 0, 0, 0xFFFFFFFF),
)
_QUEUE: Final = 32 << 20
_VIRTIO: Final = struct.Struct("=BBHHHH")
_GSO_UDP: Final = 5
_READS: Final = 64
_LARGEST_FRAME: Final = 513 << 10


def start(settings: NetSettings, channel: int) -> int:
    """Fork a watcher that obeys what comes by a descriptor; return its PID. The caller has one thread."""
    child = os.fork()
    if child == 0:
        _be_watcher(settings, channel)
    return child


def _be_watcher(settings: NetSettings, kept: int) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        signal.alarm(LIFE_SECONDS)
        os.closerange(3, kept)
        os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
        tap = _open_tap()
        privileges.keep_only(frozenset())
        _Watcher(settings, _channel(kept), tap).run()
        code = 0
    except (Dropped, OSError) as error:
        sys.stderr.write(f"tencrypt: verify: the watcher ends: {error}\n")
    except BaseException:  # noqa: BLE001 - the last frame of this process: shown, then it ends
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _channel(descriptor: int) -> socket.socket:
    """Take a descriptor that the daemon chose. Raises OSError where it is not what `proxy.verify.orders` needs."""
    channel = socket.socket(fileno=descriptor)
    if (channel.family, channel.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise OSError("not a channel for orders")
    return channel


def _open_tap() -> socket.socket:
    """Open a packet socket: it holds every frame from now on, outgoing and arriving, of all interfaces but lo."""
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
    tap = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
    with contextlib.suppress(PermissionError):  # in a user namespace
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE)
    tap.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    program = ctypes.create_string_buffer(_NOT_LO)
    filter_of_4 = struct.pack("HL", len(_NOT_LO) // 8, ctypes.addressof(program))
    tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_of_4)
    return tap


@dataclass(slots=True)
class _Watcher:
    settings: NetSettings
    channel: socket.socket
    tap: socket.socket
    buffer: bytearray = field(default_factory=lambda: bytearray(_LARGEST_FRAME))
    share: bytes = field(default_factory=lambda: os.urandom(SHARE))
    frames: int = 0

    def run(self) -> None:
        """Obey the daemon's three orders in their order."""
        look = orders.parse_order(self.channel.recv(orders.LARGEST))
        if not isinstance(look, orders.Look):
            return
        self._check(own=look.listen, peer=look.peer)
        watch = Watch(
            (address.packed for address in self.settings.addresses),
            (address.packed for address in look.peer),
            self.settings.session_port,
            ((address.packed, port) for address, port in look.ends),
        )
        listeners = []
        if look.listen:
            there, back = canaries_of(look.share, self.share)
            watch.arm(back, there)
            peer = frozenset(map(str, look.peer))
            listeners = [Listener(address, peer, there, back) for address in look.listen]
        looking = orders.Looking(self.share, tuple(one.ports for one in listeners))
        self.channel.send(looking.encode())
        while order := self._watch_until_told(watch):
            if isinstance(order, orders.Finish):
                self._tell(watch)
                return
            if not isinstance(order, orders.Flows) or look.listen:
                return
            for flow in order.flows:
                self._check(own=(flow.source,), peer=(flow.destination,))
            there, back = canaries_of(self.share, order.share)
            watch.arm(there, back)
            flows = threading.Thread(
                target=self._flow, args=(order.flows, there, back), daemon=True
            )
            flows.start()

    def _check(self, *, own: tuple[orders.Address, ...], peer: tuple[orders.Address, ...]) -> None:
        """Refuse to look at, or talk to, anybody but members; a daemon may have been taken over."""
        for address in own:
            if address not in self.settings.addresses:
                raise OSError(f"{address} is no address of this pod")
        for address in peer:
            inside = (*self.settings.members, *self.settings.ranges)
            if not any(address in one for one in inside):
                raise OSError(f"{address} is no member")

    def _watch_until_told(self, watch: Watch) -> orders.Order | None:
        """Look at frames until the daemon says something; None when it is gone."""
        poll = select.poll()
        poll.register(self.tap, select.POLLIN)
        poll.register(self.channel, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self.channel.fileno() in ready:
                said_untrusted = self.channel.recv(orders.LARGEST)
                return orders.parse_order(said_untrusted) if said_untrusted else None
            self._read(watch, _READS)

    def _read(self, watch: Watch, most: int) -> None:
        """Look at up to ``most`` frames."""
        virtio = bytearray(_VIRTIO.size)
        for _ in range(most):
            self.frames += 1
            try:
                size, _, flags, address = self.tap.recvmsg_into([virtio, self.buffer])
            except BlockingIOError:
                self.frames -= 1
                return
            except OSError:
                # What the kernel cannot describe (UDP_SEGMENT before Linux 6.2), or an interface went down.
                watch.tallies.unreadable += 1
                continue
            if flags & socket.MSG_TRUNC:
                watch.tallies.missed += 1
            _, kind, _, segment, _, _ = _VIRTIO.unpack(virtio)
            interface, _, direction, *_ = address
            outgoing = direction == _PACKET_OUTGOING
            size = min(size - _VIRTIO.size, len(self.buffer))
            if interface == TUNNEL:
                watch.inside(self.buffer, size, outgoing=outgoing)
            elif interface != _LO:  # from before the filter
                segment = segment if kind == _GSO_UDP else 0
                watch.outside(self.buffer, size, segment, outgoing=outgoing)

    def _flow(self, flows: tuple[orders.Flow, ...], there: bytes, back: bytes) -> None:
        with ThreadPoolExecutor() as families:
            runs = [families.submit(canaries.run, flow, there, back) for flow in flows]
            flowed = [way for run in runs for way in run.result()]
        with contextlib.suppress(OSError):
            self.channel.send(orders.AllFlowed(tuple(flowed)).encode())

    def _tell(self, watch: Watch) -> None:
        # What is in the queue now is read to its end, and what comes later not waited for.
        statistics = self.tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        passed, dropped = struct.unpack("=II", statistics)
        self._read(watch, passed - dropped - self.frames)
        watch.tallies.missed += dropped
        for batch in orders.batches(watch.entries):
            self.channel.send(batch)
        self.channel.send(orders.Ended(watch.tallies, tuple(watch.texts)).encode())
