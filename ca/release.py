"""A pod that stops in order gives its addresses back, before its certificate ends.

Its lease goes, and with it all that its certificates entitled to at this CA. They are not revoked: whoever has the
key can still show them to peers until they end. The token can be used again.
"""

from ca.lease import Lease
from ca.namespace import Namespace
from ca.refusal import Refusal, Refused
from ca.renew import Caller


def release(caller: Caller, now: Namespace, wall: float) -> tuple[Namespace, Lease]:
    """Return the record without the caller's lease, and that; raise `Refused`.

    Only by the key of the latest certificate: the one before may have been stolen, and a pod without a lease is on
    no roster.
    """
    whose = (caller.key, caller.pod, caller.identity.namespace)
    mine = next((one for one in now.leases if (one.key, one.pod, one.namespace) == whose), None)
    if mine is None:
        message = (
            "another certificate has taken the place of this one, or its addresses were given back"
        )
        raise Refused(Refusal.SUPERSEDED, message)
    return now.changed(wall, (one for one in now.leases if one is not mine)), mine
