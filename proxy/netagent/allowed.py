"""What may pass in clear, as lines of the filter's chains: what is listed, resolvers, the CA, sessions' datagrams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from proxy.netagent.nft_text import IP, match

if TYPE_CHECKING:
    from proxy.netagent.settings import Address, NetSettings, Network

_REPLY: Final = "ct direction reply ct state established"
_ERRORS: Final = "meta l4proto { icmp, ipv6-icmp } ct state related"
_DNS: Final = "meta l4proto { tcp, udp } th"


class Allowed:
    """The lines of one pod's settings."""

    def __init__(self, settings: NetSettings) -> None:
        """Begin; ``tracks`` says whether anything needs connection tracking."""
        self._settings = settings
        redirected = settings.dns_port is not None
        lists = settings.clear_in or settings.clear_out or settings.ca_inside
        self.tracks = bool(lists or redirected or settings.dns_bypass or settings.resolvers)
        self.tracks |= not settings.strict

    def networks(self) -> Iterator[Address | Network]:
        """Yield all with whom something may pass in clear."""
        for one in (*self._settings.clear_in, *self._settings.clear_out):
            yield one.network
        yield from self._settings.resolvers

    def session_arriving(self) -> list[str]:
        """Let in sessions' datagrams, whole, to where the daemon has the port: at others a program may have it."""
        interface, port = self._settings.interface, self._settings.session_port
        whole = {4: "ip frag-off & 0x3fff == 0", 6: "ip6 nexthdr udp"}
        return [
            f'iifname "{interface}" {IP[one.version]} daddr {one} {whole[one.version]} udp dport {port} accept'
            for one in self._settings.addresses
        ]

    def session_leaving(self) -> list[str]:
        """Let out the daemon's."""
        settings = self._settings
        return [
            f'oifname "{settings.interface}" meta skuid {settings.uid} udp sport {settings.session_port} accept'
        ]

    def arriving(self) -> list[str]:
        """Let pass who may speak to us in clear, and the answers of those to whom we may."""
        settings = self._settings
        rules = [match("saddr", one, "dport") for one in settings.clear_in]
        rules += [f"{match('saddr', one, 'sport')} {_REPLY}" for one in settings.clear_out]
        rules += [
            f"{IP[one.version]} saddr {one} {_DNS} sport 53 {_REPLY}" for one in settings.resolvers
        ]
        if settings.ca_inside:
            rules.append(f"{self._ca('saddr')} tcp sport {settings.ca_port} {_REPLY}")
        return [f"{rule} accept" for rule in (*rules, *self._errors())]

    def leaving(self) -> list[str]:
        """Let pass to whom we may speak in clear, and our answers to who may speak to us."""
        settings = self._settings
        rules = [match("daddr", one, "dport") for one in settings.clear_out]
        rules += [f"{match('daddr', one, 'sport')} {_REPLY}" for one in settings.clear_in]
        daemon = f"meta skuid {settings.uid} " if settings.dns_port is not None else ""
        rules += [
            f"{daemon}{IP[one.version]} daddr {one} {_DNS} dport 53" for one in settings.resolvers
        ]
        if settings.ca_inside:
            to_ca = f"{self._ca('daddr')} tcp dport {settings.ca_port}"
            # What the kernel sends for a connection whose socket has gone has no user.
            rules += [f"meta skuid {settings.uid} {to_ca}", f"{to_ca} ct state established"]
        return [f"{rule} accept" for rule in (*rules, *self._errors())]

    def _errors(self) -> list[str]:
        # Of connections in clear, for a sealed one never comes here: those that are listed.
        return [_ERRORS] if self.tracks else []

    def _ca(self, where: str) -> str:
        address = self._settings.ca_address
        return "" if address is None else f"{IP[address.version]} {where} {address}"
