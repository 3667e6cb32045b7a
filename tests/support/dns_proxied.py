"""A DNS proxy on loopback before servers of a test, and programs that ask it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

import dns.message
import dns.query
import dns.rrset
from support.dns_server import free_port

from proxy.dns.answers import read_answer
from proxy.dns.wire import Query
from proxy.drivers.dns_proxy import DnsProxy, listen
from proxy.drivers.dns_stream import DnsStreams
from proxy.drops import Drops

WEB: Final = "web.shop.svc.cluster.local"


@dataclass
class Told:
    """What the proxy told of, and what it is answered: a verdict, or what makes one."""

    verdict: bool | Awaitable[bool] | Callable[[], bool | Awaitable[bool]] = True
    answers: list[tuple[Query, bytes]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, query: Query, data: bytes) -> bool | Awaitable[bool]:
        self.answers.append((query, data))
        self.heard.set()
        read_answer(data)
        return self.verdict() if callable(self.verdict) else self.verdict


@dataclass
class Served:
    """A proxy before a server."""

    proxy: DnsProxy
    port: int
    told: Told
    drops: Drops


@asynccontextmanager
async def proxied(*servers: int) -> AsyncIterator[Served]:
    """Have a proxy with a way to each port of 127.0.0.1; all are asked through the first."""
    told, drops = Told(), Drops()
    ways = [listen("127.0.0.1", free_port(), (ip_address("127.0.0.1"), port)) for port in servers]
    proxy = DnsProxy(ways, told, drops)
    proxy.start()
    try:
        async with DnsStreams(proxy).serve():
            yield Served(proxy, ways[0].datagrams.getsockname()[1], told, drops)
    finally:
        proxy.stop()


async def ask(
    port: int, name: str, kind: str = "A", *, tcp: bool = False, seconds: float = 5
) -> dns.message.Message:
    """Ask as a program does."""
    query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    how = dns.query.tcp if tcp else dns.query.udp
    return await asyncio.to_thread(how, query, "127.0.0.1", port=port, timeout=seconds)


def texts(answer: dns.message.Message) -> set[str]:
    """Give the contents of all records."""
    return {str(record) for rrset in answer.answer for record in rrset}


def forged(data: bytes, **changed: object) -> bytes:
    """Make an answer with an address of the forger's; `changed` are attributes of dnspython's message."""
    made = dns.message.make_response(dns.message.from_wire(data))
    made.answer = [dns.rrset.from_text(f"{WEB}.", 30, "IN", "A", "192.0.2.66")]
    for key, value in changed.items():
        setattr(made, key, value)
    return made.to_wire()
