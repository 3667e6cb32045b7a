"""resolv.conf(5): whom a pod asks; rewritten so that it asks us, with nothing of it lost."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

MOST_RESOLVERS: Final = 3
"""What glibc looks at (MAXNS)."""

_MARK: Final = "# tencrypt: "


class ResolvError(ValueError):
    """A line cannot be used; the text is for one line."""


def parse_resolvers(text_untrusted: str) -> tuple[Address, ...]:
    """Return the nameservers in their order, each once; those that `diverted` set aside count instead of ours."""
    found: list[Address] = []
    for line in restored(text_untrusted).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            found.append(_address(words[1]))
    if not found:
        raise ResolvError("names no nameserver")
    return tuple(dict.fromkeys(found))[:MOST_RESOLVERS]


def _address(text: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise ResolvError(f"nameserver {text[:60]!r}: not an address") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ResolvError(f"nameserver {text[:60]!r}: has a zone, and rules cannot")
    return address


def diverted(text: str) -> str:
    """Return the text with our listeners (127.0.0.1, 127.0.0.2, ...) in the place of its nameservers."""
    lines, number = [], 0
    for line in restored(text).splitlines():
        if line.split()[:1] != ["nameserver"]:
            lines.append(line)
            continue
        lines.append(f"{_MARK}{line}")
        number += 1
        if number <= MOST_RESOLVERS:
            lines.append(f"nameserver 127.0.0.{number}  {_MARK.strip()}")
    return "".join(f"{line}\n" for line in lines)


def restored(text: str) -> str:
    """Return the text as it was before `diverted`, with whatever else has been written into it since."""
    lines = []
    for line in text.splitlines():
        if line.endswith(f"  {_MARK.strip()}"):
            continue
        lines.append(line.removeprefix(_MARK))
    return "".join(f"{line}\n" for line in lines)
