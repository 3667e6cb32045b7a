"""What the CA's server serves, and its clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ca.drivers.audit import Audit
from ca.drivers.file_backend import FileBackend
from ca.roster import RosterStore


@dataclass(frozen=True, slots=True)
class Service:
    """What the server serves: ``life`` is that of pods' certificates, ``wall`` the clock."""

    store: RosterStore
    backend: FileBackend
    life: timedelta
    wall: Callable[[], datetime]
    audit: Audit
