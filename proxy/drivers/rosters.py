"""The signed roster while the daemon runs: from the CA or a peer to membership and kernel, and on to other peers."""

import asyncio
import contextlib
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from ca.lists import Roster
from proxy.credentials.trust import Revocations
from proxy.drivers.enrolment import Enrolment
from proxy.drivers.project import Project
from proxy.drivers.roster_client import RosterKeeper
from proxy.drops import Drops
from proxy.lists.exchange import ListExchange
from proxy.session.session import Session
from proxy.session.table import SessionTable

_AGAIN: Final = 10.0
"""Seconds after which the kernel is told again how long a list is good: `tencrypt net` may end its leave."""


class Rosters:
    """Joins who asks the CA, who speaks with peers, and who heeds what the list says."""

    def __init__(  # noqa: PLR0913 - what it joins
        self,
        enrolment: Enrolment,
        table: SessionTable,
        project: Project,
        drops: Drops,
        settle: Callable[[], None],
        *,
        is_membership: bool,
    ) -> None:
        """``settle`` sends what calls to ``table`` have left to be sent.

        ``is_membership``: who is on the list is a member; else it says who is withdrawn, and nothing more.
        """
        self._enrolment, self._project, self._settle = enrolment, project, settle
        self._table = table
        table.informed_until = 0.0
        self._is_membership = is_membership
        self._loop = asyncio.get_running_loop()
        self.keeper = RosterKeeper(enrolment, self._adopt)
        self._lists = ListExchange(table, self.keeper.offer, drops)
        self._timer: asyncio.TimerHandle | None = None
        self.came = asyncio.Event()
        """Set with the first list."""
        self._news = asyncio.Event()

    async def keep(self) -> None:
        """Ask the CA, and keep the kernel's leave for plaintext as long as the list is good; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.keeper.keep())
            tasks.create_task(self._freshen())

    def opened(self, session: Session) -> None:
        """Tell a new session's peer what we have."""
        self._lists.opened(session, self._loop.time())
        self._arm()

    def heard(self, session: Session, body_untrusted: bytes) -> None:
        """Take what a peer says of lists."""
        self._lists.heard(session, body_untrusted, self._loop.time())
        self._arm()

    def stop(self) -> None:
        """Do nothing more by the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _adopt(self, roster: Roster) -> None:
        now = self._loop.time()
        entries = {
            ip_address(address).packed: entry.pod
            for entry in roster.entries
            for address in entry.addresses
        }
        self._heed_revocations(roster, now)
        self.came.set()
        if self._is_membership:
            self._project.roster(entries)
        self._lists.adopted(self.keeper.envelope, roster.version, roster.issued, now)
        self._news.set()
        self._arm()
        self._loop.call_soon(self._settle)

    def _heed_revocations(self, roster: Roster, now: float) -> None:
        own, told = self._enrolment.credential.own, roster.revoked
        life = own.not_after - own.not_before
        self._table.informed_until = roster.issued + life - self._enrolment.wall_offset
        revoked = Revocations(
            frozenset(int(serial, 16) for serial in told.serials),
            frozenset(told.pods),
            frozenset(told.service_accounts),
            self._enrolment.bundle.revoked_issuers,
        )
        if revoked != self._table.revoked:
            self._table.revoke(revoked, now)

    async def _freshen(self) -> None:
        """After each list: first its members are held, then plaintext to the rest may pass, where that is permitted."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _AGAIN)
            self._news.clear()
            roster = self.keeper.roster
            if roster is None or not self._is_membership:
                continue
            left = roster.next - self._loop.time() - self._enrolment.wall_offset
            if left > 0:
                await self._project.kernel.freshen(left)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._lists.next_timer()
        self._timer = None if due is None else self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._lists.handle_timer(self._loop.time())
        self._arm()
        self._settle()
