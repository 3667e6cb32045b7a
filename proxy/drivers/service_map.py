"""The project's Services while the daemon runs: the endpoints file, and the translation that heeds it."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from policy.identity import PodIdentity
from proxy.drivers import connections, file_watch, logs
from proxy.drivers.flow_journal import FlowJournal
from proxy.drivers.project_files import read_services
from proxy.flow.endpoints_file import ServicesError
from proxy.flow.flows import Flows
from proxy.flow.membership import Address, Membership
from proxy.flow.services import Services
from proxy.flow.target_ports import TargetPorts
from proxy.flow.translation import Translation
from proxy.packet.name import ends, made_name
from proxy.packet.rewrite import End
from proxy.packet.upper import TCP
from proxy.settings_membership import ProjectSettings
from proxy.status import JsonObject, draw_host

_CERTIFIED: Final = frozenset({"own", "static", "session", "roster"})
"""Sources that say of an address that it is a pod's with a certificate, or must be."""


class ServiceMap:
    """Joins the file, what membership says of virtual addresses and endpoints, and the flows' translation."""

    def __init__(  # noqa: PLR0913 - what it joins
        self,
        settings: ProjectSettings,
        own: PodIdentity,
        *,
        addresses: Iterable[Address],
        members: Membership,
        services: Services,
        journals: Path,
        knows_pods: Callable[[], bool],
    ) -> None:
        """Begin with ``services``; ``journals`` is the path of the flows' files but for their last part.

        ``knows_pods`` says whether the list of pods is there, if one shall be.
        """
        self._settings, self._own, self._members = settings, own, members
        self._services = Services()
        self._error = ""
        self._knows_pods = knows_pods
        packed = frozenset(address.packed for address in addresses)
        prefers = None if settings.strict else self._is_certified
        self._to_services = FlowJournal(journals.with_suffix(".services"))
        flows = Flows(journal=self._to_services)
        self.translation = Translation(packed, self._meets, flows, prefers)
        """What both ways of packets share, as they do `target_ports`."""
        self.target_ports = None
        if settings.target_ports:
            self._to_ports = FlowJournal(journals.with_suffix(".ports"))
            self.target_ports = TargetPorts(settings.target_ports, Flows(journal=self._to_ports))
        self._sealed: set[bytes] = set()
        self._is_old = False
        members.changed.append(self._on_change)
        self._replace(services)

    def restore(self, now: float) -> None:
        """Take up the flows of connections that were open before we started."""
        there = set(connections.connected())
        for name, target in self._to_services.take():
            if name in there or name[-1] != TCP:
                self.translation.restore(name, now, target)
        for name in there:
            if ends(name)[1].address in self._services.names:
                self.translation.restore(name, now)
        if self.target_ports is not None:
            for name, target in self._to_ports.take():
                # The pod's own socket is bound to the port behind.
                peer, own, protocol = ends(name)
                if (
                    made_name(End(own.address, target.port), peer, protocol) in there
                    or protocol != TCP
                ):
                    self.target_ports.restore(name, now)

    async def keep(self) -> None:
        """Heed the file whenever it changes; until cancelled. Nothing to do without one."""
        if self._settings.endpoints_file is not None:
            await file_watch.watch(Path(self._settings.endpoints_file), self._take)

    def refresh(self) -> None:
        """Heed that others became members, where that can make members of virtual addresses."""
        if self._is_old and not self._settings.strict:
            self._tell_members()

    def name_of(self, address: bytes) -> str:
        """Return the Service whose virtual address this is; empty where it is none's."""
        return self._services.names.get(address, "")

    def endpoints(self, address: bytes, protocol: int, port: int | None) -> list[str] | None:
        """Return who takes new flows to a virtual address's port, or to any; None where it is none's that we know."""
        if address not in self._services.names:
            return None
        if port is None:
            return [str(ip_address(one)) for one in sorted(self._services.takers(address))]
        found = self._services.find(address, protocol, port)
        ends = sorted(found.candidates) if found is not None else []
        return [f"{draw_host(str(ip_address(one.address)))}:{one.port}" for one in ends]

    def unpatched(self, address: bytes) -> list[str] | None:
        """Return who takes new flows to a virtual address without a certificate; None where it is none's."""
        if address not in self._services.names:
            return None
        ends = self._services.takers(address)
        return [str(ip_address(end)) for end in sorted(ends) if not self._is_certified(end)]

    def status(self) -> JsonObject:
        """Return what is known, as JSON-ready data."""
        return {
            "file": self._settings.endpoints_file,
            "count": len(set(self._services.names.values())),
            "addresses": len(self._services.names),
            "error": self._error or None,
        }

    async def _take(self, read: str | OSError) -> None:
        """Go by what the file says from now on; a wrong one, or none, leaves the last valid one in force."""
        path = str(self._settings.endpoints_file)
        try:
            # A quarter of a second of reading at worst: packets go on meanwhile.
            services = await asyncio.to_thread(read_services, read, path, self._own)
        except ServicesError as error:
            self._error = str(error)
            logs.event("services_refused", logging.ERROR, message=str(error))
            return
        self._error = ""
        self._replace(services)
        logs.event("services", file=path, count=len(set(services.names.values())))

    def _replace(self, services: Services) -> None:
        self._services = services
        self.translation.replace(services)
        self._tell_members()

    def _on_change(self) -> None:
        self._is_old = True

    def _tell_members(self) -> None:
        """Say which virtual addresses, and in strict mode which endpoints, are members.

        Where clear is permitted, an address whose endpoints have not all certificates stays clear, so that no call is
        refused; once all have, it stays encrypted, and those who come without are called by nobody (`prefers`).
        """
        names = self._services.names
        if self._settings.strict:
            ends = self._services.endpoints()
            entries = {end: name for end, name in ends.items() if self._members.in_ranges(end)}
            self._members.services(entries | names)
        else:
            self._sealed = {one for one in names if one in self._sealed or self._is_served(one)}
            self._members.services({one: names[one] for one in self._sealed})
        self._is_old = False

    def _is_served(self, virtual: bytes) -> bool:
        """Say whether pods with certificates, and nobody else, take new flows to a virtual address."""
        ends = self._services.takers(virtual)
        return bool(ends) and all(map(self._is_certified, ends))

    def _is_certified(self, address: bytes) -> bool:
        return self._members.judge(address).source in _CERTIFIED

    def _meets(self, address: bytes) -> bool:
        """Say whether an address may be a virtual one: a name of the zone has it, and no pod that we know of."""
        return self._knows_pods() and self._members.judge(address).source == "zone"
