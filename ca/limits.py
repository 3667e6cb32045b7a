"""How often a caller may ask: a bucket each, arithmetic on ``now`` (seconds that never go back).

Who is refused pays for it by address, so that guessing is slow and cheap to turn away; who is granted pays as a pod.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

from policy.bucket import Bucket

POLLS: Final = (32.0, 2.0)
"""Of a pod for its list, of up to 1 MiB: at once, and a second. One that goes by the rules asks once a second."""

MOST_CALLERS: Final = 16_384
"""That are remembered, 2 MB; the one not seen for longest makes room."""

REFUSALS: Final = (64.0, 2.0)
"""Of an address: at once, and a second. A restarted Deployment with a wrong token is slowed and not locked out."""

GRANTS: Final = (16.0, 1.0)
"""To a pod: at once, and a second. One that crashes again and again, and is started anew, is not locked out."""


class Limit:
    """Buckets by caller that hold ``burst`` and fill by ``rate`` a second."""

    def __init__(self, burst: float, rate: float, most: int = MOST_CALLERS) -> None:
        """Begin with full buckets; ``most`` callers are remembered."""
        self._burst, self._rate, self._most = burst, rate, most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def seconds(self, caller: str, now: float) -> float:
        """Return how long the caller has to wait: 0 where it may ask now."""
        bucket = self._buckets.get(caller)
        return 0.0 if bucket is None else bucket.seconds(now)

    def take(self, caller: str, now: float) -> None:
        """Note that the caller has asked, which several requests at once may do beyond their bucket."""
        bucket = self._buckets.setdefault(caller, Bucket(self._burst, self._rate))
        if bucket.has(now):
            bucket.take()
        self._buckets.move_to_end(caller)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)


def of_refusals() -> Limit:
    """Return the limit of what an address may have refused."""
    return Limit(*REFUSALS)


def of_grants() -> Limit:
    """Return the limit of what a pod may have granted."""
    return Limit(*GRANTS)


def of_polls() -> Limit:
    """Return the limit of how often a pod may ask for its list."""
    return Limit(*POLLS)


def stranger(address_untrusted: str | None) -> str:
    """Return as whom an address is counted: IPv6 by its /64, which one machine can have to itself."""
    try:
        address = ip_address(address_untrusted or "")
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        return address.packed[:8].hex()
    return str(address)
