"""Whether this pod can talk to its project now: what `GET /readyz` and ``tencrypt_ready`` say."""

import fcntl
import socket
from collections.abc import Callable
from typing import Final

from proxy.drivers.tun import IFREQ, Tun
from proxy.session.table import SessionTable

# linux/if_tun.h, linux/sockios.h and linux/if.h.
_TUNGETIFF: Final = 0x800454D2
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP: Final = 0x1


class Readiness:
    """Ready from `serves` on, while the certificate is good and the tunnel takes packets."""

    def __init__(self, tun: Tun) -> None:
        """Judge the tunnel by ``tun``; asking takes no privilege."""
        self._tun = tun
        self._table: SessionTable | None = None
        self._knows_pods: Callable[[], bool] = lambda: True

    def serves(self, table: SessionTable, knows_pods: Callable[[], bool] = lambda: True) -> None:
        """Note that packets flow, by the sessions of ``table``; ``knows_pods``: who belongs to the project is known."""
        self._table, self._knows_pods = table, knows_pods

    def why_not(self, now: float) -> str:
        """Return in one line why the pod is not ready, or nothing where it is; ``now`` is monotonic."""
        if self._table is None:
            return "no certificate yet: the certificate authority has not answered"
        if not self._table.can_prove(now):
            return "the certificate has ended: the certificate authority has not renewed it"
        if not self._knows_pods():
            return "no signed list of the project's pods yet: the certificate authority has not given it"
        if now >= self._table.informed_until:
            return "nobody has told yet, or for too long, who is withdrawn: the certificate authority does not answer"
        return tunnel_fault(self._tun)


def tunnel_fault(tun: Tun) -> str:
    """Return in one line why a tunnel takes no packets, or nothing."""
    try:
        name, _ = IFREQ.unpack(fcntl.ioctl(tun.fileno(), _TUNGETIFF, bytes(IFREQ.size)))
    except OSError:
        return "the tunnel is detached: its device is gone"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asks:
            answer = fcntl.ioctl(asks, _SIOCGIFFLAGS, IFREQ.pack(name, 0))
    except OSError as error:
        return f"the tunnel's state cannot be read: {error.strerror}"
    _, flags = IFREQ.unpack(answer)
    if flags & _IFF_UP:
        return ""
    text = name.rstrip(b"\0").decode()
    return f"the tunnel {text} is down"
