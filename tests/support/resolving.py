"""Programs with a resolv.conf of their own, as a container runtime gives one to each pod."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from support.cluster import ZONE
from support.namespaces import BRIDGE_IPV4, Namespace

_BIND: Final = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


def resolv_conf(directory: Path, server: str = BRIDGE_IPV4) -> Path:
    """Write what a pod of the project has: ndots:5, and the project's zone first (dns-pod-service)."""
    domains = [ZONE, ZONE.partition(".")[2], ZONE.partition("svc.")[2]]
    path = directory / "resolv.conf"
    path.write_text(
        f"nameserver {server}\nsearch {' '.join(domains)}\noptions ndots:5\n", encoding="ascii"
    )
    return path


def resolving(place: Namespace, file: Path, argv: Sequence[str | Path]) -> list[str]:
    """Give the command that runs `argv` in a place, with that file as its resolv.conf."""
    own: list[str | Path] = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        _BIND,
        file,
    ]
    return place.argv([*own, *argv])
