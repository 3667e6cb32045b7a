"""The connected sockets of this network namespace, as the kernel lists them (Linux, proc_net_tcp.rst)."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.packet.name import made_name
from proxy.packet.rewrite import End
from proxy.packet.upper import TCP, UDP

_LISTS: Final = (("tcp", TCP), ("tcp6", TCP), ("udp", UDP), ("udp6", UDP))
_OPEN: Final = frozenset({"01", "04", "05", "08", "09", "0B"})
"""Established, or closed by one end so far."""

_MAPPED: Final = bytes(10) + b"\xff\xff"


def connected(directory: Path = Path("/proc/net")) -> Iterator[bytes]:
    """Yield the name (`proxy.packet.name`) of what each sends; what cannot be read is left out."""
    for name, protocol in _LISTS:
        with contextlib.suppress(OSError), (directory / name).open(encoding="ascii") as lines:
            next(lines, None)
            for line in lines:
                _, local, remote, state, *_ = line.split()
                if state in _OPEN:
                    yield made_name(_end(local), _end(remote), protocol)


def _end(text: str) -> End:
    """Return an address, written as words in the host's order, and its port."""
    words, _, port = text.partition(":")
    packed = bytes.fromhex(words)
    if sys.byteorder == "little":
        packed = b"".join(packed[at : at + 4][::-1] for at in range(0, len(packed), 4))
    return End(packed.removeprefix(_MAPPED), int(port, 16))
