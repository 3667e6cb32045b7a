"""Tencrypt's DNS proxy in a process of its own, as the daemon runs it: answers are read and heeded before they go on.

    python -m bench.dns_proxy PORT SERVER    two ports of 127.0.0.1: its own, and that of the server it stands before

Prints a line when it listens, and ends with SIGTERM.

What a pod has besides is left out: packets, and a kernel that is told of members (here nothing has to be ordered,
as in strict mode for addresses inside the ranges).
"""

import asyncio
import signal
import sys
from ipaddress import ip_address, ip_network

from proxy.dns.answers import read_answer
from proxy.dns.wire import Query
from proxy.dns.zone import Owner, Zone
from proxy.drivers.dns_proxy import DnsProxy, listen
from proxy.drops import Drops
from proxy.flow.membership import Membership


async def serve(port: int, server: int) -> None:
    """Pass on what arrives, until told to end."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    zone = Zone("shop", "cluster.local")
    members = Membership(
        own=(),
        members=(),
        ranges=(ip_network("10.0.0.0/8"),),
        clear=(),
        resolvers=(),
        permissive=False,
    )

    def heard(_query: Query, data: bytes) -> bool:
        return all(
            fact.owner is not Owner.PROJECT
            or members.zone(fact.address, fact.name, fact.ttl, loop.time())
            for fact in zone.facts(read_answer(data))
        )

    way = listen("127.0.0.1", port, (ip_address("127.0.0.1"), server))
    proxy = DnsProxy([way], heard, Drops())
    proxy.start()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    print("listening", flush=True)
    await ended.wait()
    proxy.stop()
    way.stream.close()


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:3])))
