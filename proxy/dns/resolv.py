"""resolv.conf(5): whom a pod asks; rewritten so that it asks us, with nothing of it lost."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

MOST_RESOLVERS: Final = 3
"""What glibc looks at (MAXNS)."""

_MARK: Final = "# tencrypt: "
_OURS: Final = "nameserver 127.0.0."


class ResolvError(ValueError):
    """A line cannot be used; the text is for one line."""


def parse_resolvers(text_untrusted: str) -> tuple[Address, ...]:
    """Return the nameservers in their order, each once; those that `diverted` set aside count instead of ours."""
    found: list[Address] = []
    for line in restored(text_untrusted).split("\n"):
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
    for line in restored(text).split("\n"):
        if not _names_one(line):
            lines.append(line)
            continue
        number += 1
        if number <= MOST_RESOLVERS:
            lines.append(f"{_OURS}{number}  {_MARK.strip()}")
        lines.append(f"{_MARK}{line}")
    return "\n".join(lines)


def restored(text: str) -> str:
    """Return the text as it was before `diverted`, with whatever else has been written into it since."""
    lines = []
    for line in text.split("\n"):
        if line.startswith(_OURS) and line.endswith(f"  {_MARK.strip()}"):
            continue
        before = line.removeprefix(_MARK)
        lines.append(before if _names_one(before) else line)
    return "\n".join(lines)


def _names_one(line: str) -> bool:
    return line.split()[:1] == ["nameserver"]
