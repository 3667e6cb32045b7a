"""The parts that packets pass, put together for one pod: sessions, both ways, and the driver that moves them."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from proxy.drivers.enrolment import Enrolment
from proxy.drivers.place import Place
from proxy.drivers.project import Project
from proxy.drivers.pump import Pump
from proxy.drivers.tun import Tun
from proxy.drivers.udp import SessionSocket
from proxy.drops import Drops
from proxy.flow.lookups import Lookups
from proxy.inbound import Inbound
from proxy.outbound import Outbound
from proxy.session.events import Event
from proxy.session.table import SessionTable
from proxy.session.wire import RECORD_OVERHEAD
from proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class DataPath:
    """What the rest of the daemon speaks to."""

    table: SessionTable
    outbound: Outbound
    pump: Pump


def make_table(
    settings: Settings, place: Place, enrolment: Enrolment, drops: Drops
) -> SessionTable:
    """Return the pod's sessions: none yet."""
    return SessionTable(
        enrolment.credential,
        settings.session_port,
        os.urandom,
        drops,
        wall_offset=enrolment.wall_offset,
        largest=place.tunnel_mtu + RECORD_OVERHEAD,
        profile=settings.tls_profile,
    )


def join(  # noqa: PLR0913 - what it joins
    settings: Settings,
    place: Place,
    table: SessionTable,
    project: Project,
    tun: Tun,
    *,
    drops: Drops,
    tell: Callable[[Event], None],
    fail: Callable[[OSError], None],
) -> DataPath:
    """Open the sockets, and join all; ``tell`` hears events, ``fail`` that tenc0 is gone. Raises OSError."""
    own, policy = place.own, project.policy
    translation, target_ports = project.services.translation, project.services.target_ports
    outbound = Outbound(
        table,
        own,
        project.members,
        drops,
        lookups=Lookups(possible=project.may_name),
        policy=policy,
        translation=translation,
        target_ports=target_ports,
    )
    inbound = Inbound(
        table,
        own,
        drops,
        place.tunnel_mtu,
        policy,
        translation=translation,
        target_ports=target_ports,
    )
    sockets: dict[int, SessionSocket] = {
        a.version: SessionSocket(a, settings.session_port, settings.offloads)
        for a in place.addresses
    }
    tun.offload(settings.offloads)
    pump = Pump(
        tun=tun,
        sockets=sockets,
        table=table,
        outbound=outbound,
        inbound=inbound,
        drops=drops,
        tell=tell,
        fail=fail,
        look_up=project.look_up,
    )
    return DataPath(table, outbound, pump)
