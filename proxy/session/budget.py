"""How many handshakes may begin: they cost about a millisecond each, whoever asks for them.

A cookie proves an address, not a right: a stranger with many addresses on the bridge, or a pod that shakes hands
without end, takes these shares of the processor and no more. Sessions that exist are served from the rest.
"""

from typing import Final

from policy.bucket import Bucket

BUCKETS: Final = 1024
"""Addresses of one hash share a bucket: a table that a flood of addresses cannot make grow."""

IN_ALL: Final = (256.0, 100.0)
"""At once and a second, for strangers and for known addresses each: a tenth of a core."""

SHARES: Final = ((32.0, 16.0), (128.0, 64.0))
"""The same for one address, behind which may be a NAT, and for one IPv6 /64."""


class Budget:
    """Buckets for each network and for all; a handshake takes from each of them or from none."""

    __slots__ = ("_buckets", "_everybody", "_known")

    def __init__(self) -> None:
        """Begin with all buckets full."""
        self._buckets: dict[tuple[int, int], Bucket] = {}
        self._everybody = Bucket(*IN_ALL)
        self._known = Bucket(*IN_ALL)

    def take(self, networks: tuple[str, ...], now: float, *, known: bool) -> str | None:
        """Take for a source's address (and its IPv6 /64); return None, or whose share is used up.

        ``known``: the address is a live session's peer's. Strangers cannot use up the share of these.
        """
        buckets = [self._of(width, network) for width, network in enumerate(networks)]
        buckets.append(self._known if known else self._everybody)
        for name, bucket in zip((*networks, "everybody"), buckets, strict=True):
            if not bucket.has(now):
                return name
        for bucket in buckets:
            bucket.take()
        return None

    def _of(self, width: int, network: str) -> Bucket:
        number = width, hash(network) % BUCKETS
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = Bucket(*SHARES[width])
        return bucket
