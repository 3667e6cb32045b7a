"""The TUN device: whole IP packets, each behind a virtio_net_hdr of 10 bytes.

The device is made persistent and owned by the daemon's UID while there is privilege to do so;
attaching to it later needs none. Constants are of linux/if_tun.h, which Python does not carry.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Collection
from typing import Final, Self

DEVICE: Final = "/dev/net/tun"
VNET_HEADER_SIZE: Final = 10

_TUNSETIFF: Final = 0x400454CA
_TUNSETPERSIST: Final = 0x400454CB
_TUNSETOWNER: Final = 0x400454CC
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_TSO_ECN, _TUN_F_USO4, _TUN_F_USO6 = 1, 2, 4, 8, 32, 64
_TSO: Final = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 | _TUN_F_TSO_ECN
_USO: Final = _TUN_F_CSUM | _TUN_F_USO4 | _TUN_F_USO6
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
IFREQ: Final = struct.Struct("16sH22x")
"""struct ifreq (linux/if.h): an interface's name, and flags."""


class Tun:
    """An attached TUN device, not blocking; packets keep the kernel's order."""

    def __init__(self, descriptor: int) -> None:
        """Take over `descriptor`, already attached: see `open`."""
        self._descriptor = descriptor
        self.offloads: frozenset[str] = frozenset()
        """Of "tso" and "uso": what the kernel agreed to put together for us."""

    @classmethod
    def open(cls, name: str = "tenc0") -> Self:
        """Attach to the existing device `name`, with no offload turned on.

        Raises OSError: EBUSY where another process is attached, EPERM where the device belongs
        to another user or does not exist (making one takes CAP_NET_ADMIN).
        """
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _attach(descriptor, name)
            fcntl.ioctl(descriptor, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_SIZE))
            fcntl.ioctl(descriptor, _TUNSETOFFLOAD, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def offload(self, wanted: Collection[str]) -> None:
        """Let the kernel hand over super-packets: by ``wanted``, "tso" for TCP, "uso" for UDP (Linux 6.2).

        What it does not know is left off; with nothing, each packet comes by itself, its checksum finished.
        """
        tso, uso = _TSO if "tso" in wanted else 0, _USO if "uso" in wanted else 0
        for flags in (tso | uso, tso, uso, 0):
            try:
                fcntl.ioctl(self._descriptor, _TUNSETOFFLOAD, flags)
            except OSError as error:
                if error.errno != errno.EINVAL or not flags:
                    raise
                continue
            names = {"tso": _TSO & ~_USO, "uso": _USO & ~_TSO}
            self.offloads = frozenset(name for name, bits in names.items() if flags & bits)
            return

    def fileno(self) -> int:
        """Return the descriptor, readable when a packet waits."""
        return self._descriptor

    def read_into(self, buffer: memoryview) -> int:
        """Read one virtio_net_hdr and packet; return their bytes in all, 0 where none waits.

        A buffer shorter than the packet gets its beginning: give 10 bytes and the MTU at least
        (64 KB and a header with offloads). Raises OSError where the device is gone.
        """
        try:
            return os.readv(self._descriptor, (buffer,))
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EINVAL:
                return 0  # a super-packet that the kernel cannot describe: it has dropped it
            raise

    def write(self, data: memoryview) -> bool:
        """Write one virtio_net_hdr and packet; say whether the kernel took it.

        It refuses what is no IP packet or contradicts its header, and everything while the
        device is down. Raises OSError where the device is gone.
        """
        try:
            return os.write(self._descriptor, data) == len(data)
        except OSError as error:
            if error.errno == errno.EBADFD:
                raise
            return False

    def close(self) -> None:
        """Detach; the device stays, and holds no state of any connection."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def make_persistent(name: str, owner: int) -> None:
    """Make the TUN device `name`, or take over the one there is, for the user `owner`.

    Needs CAP_NET_ADMIN. Raises OSError: EBUSY where a process is attached to it, EINVAL where
    `name` is a device of another kind.
    """
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        _attach(descriptor, name)
        fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


def _attach(descriptor: int, name: str) -> None:
    request = IFREQ.pack(name.encode("ascii"), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
    fcntl.ioctl(descriptor, _TUNSETIFF, request)
