"""How the bundle of roots changes: one edge at a time, each gated on what pods have acknowledged.

::

    prepare    adds a root as `next`
    activate   makes it `active`, and the active one `previous`; gate: every live pod goes by the bundle in force
    taint      a `previous` root vouches for nothing any more
    revoke     takes a root out that does not issue; gates: as above, and no live certificate is under it
    rollback   takes `next` out again (gates as revoke); without one, `previous` issues again (gate as activate)

Nothing here writes: each gives the bundle to propose, or raises `GateError` or `RotationError`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cryptography import x509

from ca.lease import Lease, live_leases
from ca.trust_bundle import MOST_ROOTS, Root, RootState, TrustBundle, Vouched, fingerprint


class RotationError(Exception):
    """This step is none from here; one line."""


class GateError(RotationError):
    """Pods stand in the way, which are named: ``missing`` as namespace/pod, sorted."""

    def __init__(self, why: str, missing: Iterable[str]) -> None:
        """Say why, and keep who."""
        self.missing = tuple(sorted(missing))
        count = len(self.missing)
        super().__init__(f"{count} {'pod' if count == 1 else 'pods'} {why}")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where pods stand, as namespace/pod: who is live, who goes by the bundle in force, who is under which root.

    ``issuers`` are those below the roots by which the bundle in force was vouched for, by fingerprint: they issue.
    """

    live: frozenset[str]
    acknowledged: frozenset[str]
    under: Mapping[str, frozenset[str]]
    issuers: frozenset[str] = frozenset()

    @property
    def missing(self) -> frozenset[str]:
        """Who does not go by the bundle in force yet."""
        return self.live - self.acknowledged


def stand(leases: Iterable[Lease], vouched: Vouched, wall: float) -> Standing:
    """Return where pods stand at ``wall``: a pod is live until its certificate has ended."""
    live = live_leases(leases, wall)
    under: dict[str, set[str]] = {}
    for lease in live:
        under.setdefault(lease.root, set()).add(_name(lease))
    return Standing(
        frozenset(map(_name, live)),
        frozenset(_name(lease) for lease in live if lease.bundle == vouched.hash),
        {root: frozenset(names) for root, names in under.items()},
        frozenset(
            fingerprint(x509.load_pem_x509_certificate(pem.encode()))
            for statement in vouched.statements
            for pem in statement[1:]
        ),
    )


def prepare(bundle: TrustBundle, root: x509.Certificate) -> TrustBundle:
    """Return the bundle with a root that shall issue next."""
    if any(one.state is RootState.NEXT for one in bundle.roots):
        raise RotationError("a next root is prepared already: activate it, or roll back")
    if len(bundle.roots) >= MOST_ROOTS:
        raise RotationError(f"{MOST_ROOTS} roots are trusted already: revoke a previous one first")
    if any(one.certificate.public_key() == root.public_key() for one in bundle.roots):
        raise RotationError("a root with this key is trusted already")
    return _after(bundle, (*bundle.roots, Root(root, RootState.NEXT)))


def activate(bundle: TrustBundle, standing: Standing, without: Iterable[str]) -> TrustBundle:
    """Return the bundle in which the next root issues."""
    if not any(one.state is RootState.NEXT for one in bundle.roots):
        raise RotationError("no next root: prepare one first")
    _want_acknowledged(standing, without)
    moves = {RootState.ACTIVE: RootState.PREVIOUS, RootState.NEXT: RootState.ACTIVE}
    return _moved(bundle, moves)


def taint(bundle: TrustBundle, beginning: str) -> TrustBundle:
    """Return the bundle in which a root vouches for nothing any more."""
    root = find(bundle, beginning)
    if root.state is not RootState.PREVIOUS:
        raise RotationError(
            f"root {beginning[:16]} is {root.state}: only a previous one is tainted"
        )
    roots = tuple(
        replace(one, state=RootState.TAINTED) if one == root else one for one in bundle.roots
    )
    return _after(bundle, roots)


def revoke(
    bundle: TrustBundle, beginning: str, standing: Standing, without: Iterable[str]
) -> TrustBundle:
    """Return the bundle without a root."""
    root = find(bundle, beginning)
    if root.state is RootState.ACTIVE:
        raise RotationError(f"root {beginning[:16]} issues: another must be active first")
    return _without(bundle, root, standing, without)


def rollback(bundle: TrustBundle, standing: Standing, without: Iterable[str]) -> TrustBundle:
    """Return the bundle as it was before the last step, as far as there is a way back."""
    following = next((one for one in bundle.roots if one.state is RootState.NEXT), None)
    if following is not None:
        return _without(bundle, following, standing, without)
    former = [one for one in bundle.roots if one.state is RootState.PREVIOUS]
    if not former:
        raise RotationError("no next and no previous root: there is nothing to go back to")
    _want_acknowledged(standing, without)
    roots = tuple(
        replace(one, state=RootState.ACTIVE)
        if one == former[-1]
        else replace(one, state=RootState.NEXT)
        if one.state is RootState.ACTIVE
        else one
        for one in bundle.roots
    )
    return _after(bundle, roots)


def revoke_issuer(bundle: TrustBundle, digest: str, standing: Standing) -> TrustBundle:
    """Return the bundle with an issuer below the roots withdrawn, by its fingerprint."""
    if any(one.fingerprint == digest for one in bundle.roots):
        raise RotationError("this is a root: `tencrypt ca rotate revoke` takes it out")
    if digest in standing.issuers:
        raise RotationError("this issuer issues: what it signed would be refused from now on")
    if digest in bundle.revoked_issuers:
        raise RotationError("this issuer is withdrawn already")
    return replace(
        bundle, version=bundle.version + 1, revoked_issuers=(*bundle.revoked_issuers, digest)
    )


def find(bundle: TrustBundle, beginning: str) -> Root:
    """Return a root by the beginning of its beginning; raises `RotationError`."""
    found = [one for one in bundle.roots if one.fingerprint.startswith(beginning)]
    if len(found) != 1 or not beginning:
        known = ", ".join(f"{one.fingerprint[:16]} ({one.state})" for one in bundle.roots)
        raise RotationError(f"root {beginning!r}: one of {known}")
    return found[0]


def _without(
    bundle: TrustBundle, root: Root, standing: Standing, without: Iterable[str]
) -> TrustBundle:
    _want_acknowledged(standing, without)
    under = standing.under.get(root.fingerprint, frozenset()) - frozenset(without)
    if under:
        raise GateError(f"have certificates under root {root.fingerprint[:16]}", under)
    return _after(bundle, tuple(one for one in bundle.roots if one != root))


def _want_acknowledged(standing: Standing, without: Iterable[str]) -> None:
    missing = standing.missing - frozenset(without)
    if missing:
        raise GateError("do not go by the present roots yet", missing)


def _moved(bundle: TrustBundle, moves: Mapping[RootState, RootState]) -> TrustBundle:
    return _after(
        bundle,
        tuple(replace(one, state=moves.get(one.state, one.state)) for one in bundle.roots),
    )


def _after(bundle: TrustBundle, roots: tuple[Root, ...]) -> TrustBundle:
    return replace(bundle, version=bundle.version + 1, roots=roots)


def _name(lease: Lease) -> str:
    return f"{lease.namespace}/{lease.pod}"
