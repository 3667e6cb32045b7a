"""A pod's network as its settings and its machine have it: what both `tencrypt run` and `tencrypt net` begin with."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address

from proxy import settings_values as values
from proxy.dns.resolv import ResolvError, parse_resolvers
from proxy.drivers.resolv_conf import RESOLV_CONF
from proxy.netagent.drivers import inspect
from proxy.netagent.errors import MachineLacksError
from proxy.netagent.settings import Address, NetSettings
from proxy.settings import Settings, SettingsError, check_addresses


def by_resolv_conf(settings: Settings) -> Settings:
    """Return the settings where programs find the DNS proxy by resolv.conf; raises as `find`, or MachineLacksError."""
    if settings.project.resolvers:
        raise SettingsError(f"resolvers: leave it out with --resolv-conf: {RESOLV_CONF} names them")
    if not RESOLV_CONF.exists():
        raise SettingsError(f"--resolv-conf: there is no {RESOLV_CONF}")
    if not os.access(RESOLV_CONF, os.W_OK):
        raise MachineLacksError(
            f"{RESOLV_CONF} cannot be written: leave out --resolv-conf, and queries are redirected by the kernel"
        )
    project = replace(settings.project, dns_port=None, resolvers=_of_file())
    return replace(settings, project=project)


def find(settings: Settings) -> NetSettings:
    """Find out what the settings leave out, in the present network namespace.

    Raises SettingsError, or NetAgentError for what the machine has.
    """
    found = inspect.find_interface(settings.addresses, settings.interface)
    project = settings.project
    ca_address, ca_port = _ca(settings)
    return NetSettings(
        interface=found.name,
        interface_mtu=found.mtu,
        addresses=_addresses(settings, found),
        members=project.members,
        session_port=settings.session_port,
        uid=settings.daemon_uid,
        gid=settings.daemon_uid,
        verify=settings.verify,
        ranges=project.ranges,
        strict=project.strict,
        clear_in=project.clear_in,
        clear_out=project.clear_out,
        resolvers=_resolvers(settings),
        dns_port=project.dns_port,
        dns_bypass=project.dns_bypass,
        ca_address=ca_address,
        ca_port=ca_port,
    )


def _addresses(settings: Settings, found: inspect.InterfaceInfo) -> tuple[Address, ...]:
    """Return the pod's addresses, one a family, all named by the token."""
    addresses = settings.addresses or found.addresses
    if not addresses:
        raise SettingsError(
            f"interface {found.name} holds no address: give it one, or set addresses"
        )
    if len({address.version for address in addresses}) != len(addresses):
        listing = ", ".join(map(str, addresses))
        raise SettingsError(
            f"addresses are {listing}: one IPv4 and one IPv6 address at most; choose by setting addresses"
        )
    check_addresses(settings, addresses)
    return addresses


def _ca(settings: Settings) -> tuple[Address | None, int]:
    """Return the CA's address, None where it is a name, and its port; 0 where it lies outside the ranges."""
    port = int(settings.ca_address.rpartition(":")[2])
    try:
        address = ip_address(values.host(settings.ca_address))
    except ValueError:
        return None, port
    inside = any(address in one for one in settings.project.ranges)
    return address, port if inside else 0


def _resolvers(settings: Settings) -> tuple[Address, ...]:
    project = settings.project
    if project.resolvers or project.ranges == project.members:
        return project.resolvers
    return _of_file()


def _of_file() -> tuple[Address, ...]:
    try:
        return parse_resolvers(RESOLV_CONF.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise SettingsError(f"{RESOLV_CONF}: {error.strerror}: set resolvers") from None
    except ResolvError as error:
        raise SettingsError(f"{RESOLV_CONF}: {error}: set resolvers") from None
