"""What the CA's server serves, and its clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ca.drivers.audit import Audit
from ca.roster import RosterStore
from ca.signer import Signer


@dataclass(frozen=True, slots=True)
class Service:
    """What the server serves: ``life`` is that of pods' certificates, ``wall`` the clock."""

    store: RosterStore
    signer: Signer
    life: timedelta
    wall: Callable[[], datetime]
    audit: Audit
