"""The CA's server as a process, until a signal: not ready, and not dead, while its signer is away."""

import asyncio
import contextlib
import signal
import sys

from cryptography.hazmat.primitives.serialization import Encoding

from ca.drivers import server
from ca.drivers.service import Service
from ca.messages import Address, root_fingerprint


async def until_signal(service: Service, host: Address, port: int) -> None:
    """Serve until SIGTERM or SIGINT; say on standard output when it is ready. Raises OSError."""
    loop = asyncio.get_running_loop()
    stop, is_ready = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = loop.create_task(_serve(service, host, port, is_ready, stop))
    stopped = loop.create_task(stop.wait())
    await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not is_ready.is_set():
        serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _serve(
    service: Service, host: Address, port: int, is_ready: asyncio.Event, stop: asyncio.Event
) -> None:
    async with server.serve(service, host, port) as (bound, root):
        where = f"https://{f'[{host}]' if host.version == 6 else host}:{bound}"
        fingerprint = root_fingerprint(root.public_bytes(Encoding.DER))
        whose = service.signer.trust_domain
        sys.stdout.write(f"CA of {whose} ready at {where}, root {fingerprint}\n")
        sys.stdout.flush()
        is_ready.set()
        await stop.wait()
