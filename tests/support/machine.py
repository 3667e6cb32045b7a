"""What a machine must have for tests across real namespaces."""

import os
import shutil
from pathlib import Path
from typing import Final

PROGRAMS: Final = (
    *("ip", "bridge", "ss", "nft", "tcpdump", "nginx", "curl", "ping", "iperf3", "nsenter"),
)


def lacking() -> list[str]:
    """Name what this machine lacks: programs, root, a TUN device."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if not Path("/dev/net/tun").exists():
        missing.append("/dev/net/tun")
    return missing
