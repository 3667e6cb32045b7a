"""Rewrites resolv.conf in place, and puts it back: where queries cannot be redirected by the kernel."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from proxy.dns.resolv import diverted, restored
from proxy.drivers.dns_proxy import DNS_PORT, Way, listen
from proxy.flow.membership import Address

RESOLV_CONF: Final = Path("/etc/resolv.conf")


def listeners(resolvers: Iterable[Address]) -> Iterator[Way]:
    """Open what `divert` names, one for each nameserver of the file: takes privileges. Raises OSError."""
    for number, resolver in enumerate(resolvers, 1):
        address = f"127.0.0.{number}"
        try:
            yield listen(address, DNS_PORT, (resolver, DNS_PORT))
        except OSError as error:
            what = f"cannot listen on {address} port {DNS_PORT}: {error.strerror}"
            raise OSError(error.errno, what) from None


def name_listeners() -> None:
    """Divert the file once there are answers; say so where that fails."""
    try:
        divert()
    except OSError as error:
        sys.stderr.write(f"tencrypt: {RESOLV_CONF}: not written: {error.strerror}\n")


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """Restore the file at the end, if it was diverted; say so where that fails."""
    try:
        yield
    finally:
        try:
            restore()
        except FileNotFoundError:
            pass
        except OSError as error:
            sys.stderr.write(f"tencrypt: {RESOLV_CONF}: not put back: {error.strerror}\n")


def divert(path: Path = RESOLV_CONF) -> None:
    """Name our listeners in the place of the nameservers. Raises OSError."""
    _rewrite(path, diverted)


def restore(path: Path = RESOLV_CONF) -> None:
    """Undo `divert`, whoever did it and whatever has been written since; nothing where nobody did. Raises OSError."""
    _rewrite(path, restored)


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    def changed(before: bytes) -> bytes:
        text = before.decode(errors="surrogateescape")
        return change(text).encode(errors="surrogateescape")

    before = path.read_bytes()
    if changed(before) == before:  # so that a file that needs nothing may be read-only
        return
    # In place: it is often one file bound into a container, which a new one in its stead would leave behind.
    with path.open("r+b") as opened:
        before = opened.read()
        after = changed(before)
        opened.seek(0)
        # Empty lines cover what is longer, until it is cut off: killed between the two, nothing of it is left.
        opened.write(after.ljust(len(before), b"\n"))
        opened.flush()
        opened.truncate(len(after))
