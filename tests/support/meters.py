"""What a pod's proxy and its kernel have counted: to be compared before and after an attack.

Names are `drop <reason>`, `sent <kind>` and `received <kind>` as `tencrypt status` has them, the
packets that sessions took (`packets in`), and the kernel's own: `Udp InCsumErrors` (both families
in one), `Ip ReasmReqds`, `eth0 rx_dropped`, `nft refused_arriving`.
"""

from collections import Counter
from pathlib import Path
from typing import Final

from support.kernel_state import refused_count
from support.tencrypt import Json, Proxy

from proxy.drivers import admin
from proxy.drops import Drop

# What is said of packets of the pod itself, of a handshake as a whole, or of the program; every
# other reason, also one that is added later, takes one datagram of the network each time.
_NOT_OF_A_DATAGRAM: Final = frozenset(
    {
        *(Drop.TLS, Drop.TLS_PARAMETERS, Drop.NO_CERTIFICATE, Drop.UNTRUSTED),
        *(Drop.CERTIFICATE_TIME, Drop.CERTIFICATE_PROFILE, Drop.FOREIGN_PROJECT),
        *(Drop.ADDRESS_NOT_NAMED, Drop.OWN_ADDRESS, Drop.PEER_REFUSED, Drop.HANDSHAKE_TIMEOUT),
        *(Drop.GENERATION, Drop.NOT_A_MEMBER, Drop.QUEUE_FULL, Drop.NO_SESSION, Drop.TOO_BIG),
        *(Drop.SOCKET, Drop.TUN, Drop.BUG),
    }
)
REASONS: Final = tuple(f"drop {reason}" for reason in Drop if reason not in _NOT_OF_A_DATAGRAM)
"""One for each datagram that the proxy refused."""

ANSWERED: Final = "sent retry"
"""One for each HELLO that it took."""

KERNEL: Final = ("Udp InCsumErrors", "Udp RcvbufErrors", "Udp MemErrors", "eth0 rx_dropped")
"""One for each datagram that never reached it: wrong sum, socket full, no memory, device full."""

TAKEN: Final = (*REASONS, ANSWERED, *KERNEL)
_SNMP: Final = ("Ip", "Udp")


def status(proxy: Proxy) -> Json:
    """Give what `tencrypt status --json` prints, without a program for each of many questions."""
    return admin.ask(proxy.admin_socket)


def read(proxy: Proxy) -> Counter[str]:
    """Read all counters of a running proxy and of its pod's kernel."""
    told = status(proxy)
    counts = Counter({f"drop {reason}": n for reason, n in told["drops"].items()})
    for way in ("sent", "received"):
        counts.update({f"{way} {kind}": n for kind, n in told["datagrams"][way].items()})
    counts["packets in"] = sum(session["packets_in"] for session in told["sessions"])
    counts.update(_kernel(Path(f"/proc/{proxy.daemon_pid()}/net")))
    counts["nft refused_arriving"] = refused_count(proxy.pod, "refused_arriving")
    return counts


def memory(proxy: Proxy) -> int:
    """Give the daemon's resident memory, in KB."""
    text = Path(f"/proc/{proxy.daemon_pid()}/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0])


def waiting_bytes(proxy: Proxy, port: int) -> int:
    """Give what stands in the receive queues of the pod's UDP sockets of `port`."""
    total = 0
    for table in ("udp", "udp6"):
        path = Path(f"/proc/{proxy.daemon_pid()}/net/{table}")
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, _, queues, *_ = line.split()
            if int(local.rpartition(":")[2], 16) == port:
                total += int(queues.partition(":")[2], 16)
    return total


def _kernel(net: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    lines = (net / "snmp").read_text(encoding="ascii").splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group, *keys = names.split()
        if group.rstrip(":") in _SNMP:
            for key, value in zip(keys, values.split()[1:], strict=True):
                counts[f"{group.rstrip(':')} {key}"] += int(value)
    for line in (net / "snmp6").read_text(encoding="ascii").splitlines():
        key, value = line.split()
        group, is_v6, name = key.partition("6")
        if is_v6 and group in _SNMP:
            counts[f"{group} {name}"] += int(value)
    for line in (net / "dev").read_text(encoding="ascii").splitlines()[2:]:
        name, _, rest = line.partition(":")
        if name.strip() == "eth0":
            fields = [int(word) for word in rest.split()]
            counts["eth0 rx_bytes"], counts["eth0 rx_dropped"] = fields[0], fields[3]
            counts["eth0 tx_bytes"] = fields[8]
    return counts
