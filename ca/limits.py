"""How often a caller may ask: a bucket each, arithmetic on ``now`` (seconds that never go back).

Who is refused pays for it by address, so that guessing is slow and cheap to turn away; who is granted pays as a pod.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

MOST_CALLERS: Final = 16_384
"""That are remembered, 2 MB; the one not seen for longest makes room."""

REFUSALS: Final = (64.0, 2.0)
"""Of an address: at once, and a second. A restarted Deployment with a wrong token is slowed and not locked out."""

GRANTS: Final = (16.0, 1.0)
"""To a pod: at once, and a second. One that crashes again and again, and is started anew, is not locked out."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Limit:
    """Buckets by caller that hold ``burst`` and fill by ``rate`` a second."""

    def __init__(self, burst: float, rate: float, most: int = MOST_CALLERS) -> None:
        """Begin with full buckets; ``most`` callers are remembered."""
        self._burst, self._rate, self._most = burst, rate, most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def seconds(self, caller: str, now: float) -> float:
        """Return how long the caller has to wait: 0 where it may ask now."""
        lacks = 1 - self._left(caller, now)
        return 0.0 if lacks <= 0 else lacks / self._rate

    def take(self, caller: str, now: float) -> None:
        """Note that the caller has asked."""
        left = self._left(caller, now)
        self._buckets[caller] = _Bucket(max(0.0, left - 1), now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)

    def _left(self, caller: str, now: float) -> float:
        bucket = self._buckets.get(caller)
        if bucket is None:
            return self._burst
        return min(self._burst, bucket.left + (now - bucket.at) * self._rate)


def of_refusals() -> Limit:
    """Return the limit of what an address may have refused."""
    return Limit(*REFUSALS)


def of_grants() -> Limit:
    """Return the limit of what a pod may have granted."""
    return Limit(*GRANTS)


def stranger(address_untrusted: str | None) -> str:
    """Return as whom an address is counted: IPv6 by its /64, which one machine can have to itself."""
    try:
        address = ip_address(address_untrusted or "")
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        return address.packed[:8].hex()
    return str(address)
