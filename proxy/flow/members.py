"""Which addresses are the project's: in this release a static list, later other sources behind the same question."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

_MOST_CACHED: Final = 4096


class Members:
    """Answers ``address in members`` for packed addresses; remembers answers: packets to strangers ask anew."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        """Take addresses and prefixes."""
        self._networks = tuple(networks)
        self._answers: dict[bytes, bool] = {}

    def __contains__(self, address: bytes) -> bool:
        """Say whether a packed address (4 or 16 bytes) is a member."""
        answer = self._answers.get(address)
        if answer is None:
            if len(self._answers) >= _MOST_CACHED:
                self._answers.clear()
            parsed = ip_address(address)
            answer = self._answers[address] = any(parsed in network for network in self._networks)
        return answer
