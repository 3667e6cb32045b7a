"""Which TLS suites and key-exchange groups a pod agrees to; names are IANA's, which OpenSSL answers too.

Which of several was agreed is for TLS to protect, and nobody in between can change it: the certificates'
signatures and both Finished cover every ClientHello and HelloRetryRequest as sent (RFC 8446 4.4). Who strikes
X25519MLKEM768 from an offer that also names secp256r1 ends that handshake; he does not weaken it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from proxy.session.keys import SUITES

HYBRID: Final = "X25519MLKEM768"
"""ML-KEM-768 with X25519: what is recorded today stays closed to a quantum computer. OpenSSL tries it first."""

CURVES: Final[dict[str, type[ec.EllipticCurve]]] = {
    "secp384r1": ec.SECP384R1,
    "secp256r1": ec.SECP256R1,
}
"""pyOpenSSL can hold OpenSSL to one of these; for other groups and for lists it has no public call."""

GROUPS: Final = (HYBRID, *CURVES)


def check_suites(names: tuple[str, ...]) -> None:
    """Raise ValueError, with what is accepted, unless all are suites that records can be sealed with."""
    _check_names(names, SUITES)


def check_groups(names: tuple[str, ...]) -> None:
    """Raise ValueError, with what is accepted, unless OpenSSL agrees to these groups and peers can rely on it.

    A list goes with OpenSSL's own order, which begins with `HYBRID`; the finished handshake is then checked.
    Without `HYBRID` two such pods would agree on it all the same, and refuse each other.
    """
    _check_names(names, GROUPS)
    if len(names) > 1 and names[0] != HYBRID:
        raise ValueError(f"one group, or several with {HYBRID} first: OpenSSL prefers it")


def _check_names(names: tuple[str, ...], known: Collection[str]) -> None:
    listed = ", ".join(known)
    if not names:
        raise ValueError(f"at least one of {listed}")
    for at, name in enumerate(names):
        if name not in known:
            raise ValueError(f"{name!r} is none of {listed}")
        if name in names[:at]:
            raise ValueError(f"{name} is listed twice")


@dataclass(frozen=True, slots=True)
class TlsProfile:
    """What a pod agrees to, the preferred first. Raises ValueError where `check_suites` or `check_groups` does."""

    suites: tuple[str, ...] = tuple(SUITES)
    groups: tuple[str, ...] = (HYBRID,)

    def __post_init__(self) -> None:
        """Refuse what OpenSSL cannot be held to."""
        check_suites(self.suites)
        check_groups(self.groups)

    @property
    def curve(self) -> ec.EllipticCurve | None:
        """The one curve that OpenSSL is held to; None leaves it its own list, which the check afterwards narrows."""
        return None if HYBRID in self.groups else CURVES[self.groups[0]]()


DEFAULT_PROFILE: Final = TlsProfile()
