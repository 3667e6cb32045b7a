"""Traffic of every kind between pods: nginx, echo servers, raw packets, bulk transfers.

nginx is the real one. The rest are sockets that live in a pod and are served by threads here: no
readiness to wait for, nothing to kill, and what arrived is at hand to compare.
"""

import contextlib
import hashlib
import json
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from support.naive import crc32c
from support.namespaces import Namespace, Pod, family_of
from support.processes import HarnessError, Process

SOCKET_SECONDS: Final = 15.0
IPERF3_PORT: Final = 5201
CHUNK: Final = 1 << 16
IPV4_HEADER_WORDS: Final = 0x0F

NGINX_CONFIGURATION: Final = """\
daemon off;
user root;
worker_processes 1;
pid {prefix}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    server {{
        {server}
        root {prefix}/html;
    }}
}}
"""
"""One worker in the foreground, files under {prefix}; {server} says where it listens, and more."""


def start_nginx(pod: Namespace, canary: str, addresses: Sequence[str] = ()) -> Process:
    """Start nginx on port 80, of a pod's both addresses; `canary` is in its page and each answer's head."""
    if isinstance(pod, Pod):
        addresses = addresses or (pod.ipv4, pod.ipv6)
    prefix = pod.directory / f"{pod.label}.nginx"
    (prefix / "html").mkdir(parents=True)
    (prefix / "html/index.html").write_text(f"<h1>{canary}</h1>\n", encoding="ascii")
    configuration = prefix / "nginx.conf"
    listen = [f"[{one}]" if ":" in one else one for one in addresses]
    server = "".join(f"listen {one}:80; " for one in listen) + f'add_header X-Canary "{canary}";'
    configuration.write_text(
        NGINX_CONFIGURATION.format(prefix=prefix, server=server), encoding="ascii"
    )
    process = pod.start(["nginx", "-p", prefix, "-c", configuration, "-e", "stderr"])
    pod.wait_for_listener(process, 80)
    return process


def bound(pod: Pod, address: str, kind: socket.SocketKind, port: int) -> socket.socket:
    """Make a socket of the pod, bound to one of its addresses, that gives up after a while."""
    made = pod.socket(family_of(address), kind)
    made.settimeout(SOCKET_SECONDS)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    return made


@contextlib.contextmanager
def udp_echo(pod: Pod, address: str, port: int) -> Iterator[set[tuple[str, int]]]:
    """Send each datagram back; yields the growing set of its senders, as the server sees them.

    An empty datagram ends it.
    """
    callers = set()

    def echo(server: socket.socket) -> bool:
        payload, caller = server.recvfrom(CHUNK)
        if not payload:  # shut down: nobody sent this
            return False
        callers.add((caller[0], caller[1]))
        server.sendto(payload, caller)
        return True

    with _serving(bound(pod, address, socket.SOCK_DGRAM, port), echo):
        yield callers


@contextlib.contextmanager
def tcp_echo(pod: Pod, address: str, port: int) -> Iterator[set[tuple[str, int]]]:
    """Send back what each connection says; yields the growing set of callers."""
    callers = set()

    def echo(connection: socket.socket) -> None:
        connection.settimeout(SOCKET_SECONDS)
        with connection, contextlib.suppress(OSError):
            while said := connection.recv(CHUNK):
                connection.sendall(said)

    def accept(listener: socket.socket) -> bool:
        connection, caller = listener.accept()
        callers.add((caller[0], caller[1]))
        threading.Thread(target=echo, args=(connection,), daemon=True).start()
        return True

    listener = bound(pod, address, socket.SOCK_STREAM, port)
    listener.listen(512)
    with _serving(listener, accept):
        yield callers


@contextlib.contextmanager
def _serving(listener: socket.socket, serve_one: Callable[[socket.socket], bool]) -> Iterator[None]:
    """Call `serve_one` in a thread again and again, until it says False or the context ends."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while serve_one(listener):
                pass

    listener.settimeout(None)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        # close() would leave the thread in its call. shutdown() wakes it, on a UDP socket too,
        # although that answers ENOTCONN.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(SOCKET_SECONDS)
        listener.close()


def iperf3(client: Pod, server: Pod, address: str, seconds: int) -> float:
    """Measure one TCP stream by iperf3: bits per second that arrived."""
    serving = server.start(["iperf3", "--server", "--port", str(IPERF3_PORT)])
    server.wait_for_listener(serving, IPERF3_PORT)
    where = ("--client", address, "--port", str(IPERF3_PORT))
    done = client.run(["iperf3", *where, "--time", str(seconds), "--json"], timeout=seconds + 30)
    serving.stop()
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])


def ask(client: socket.socket, server: tuple[str, int], payload: bytes) -> bytes:
    """Send one UDP datagram and give the one that comes back; `TimeoutError` if none does."""
    client.sendto(payload, server)
    answer: bytes = client.recv(CHUNK)
    return answer


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Read `size` bytes; fewer only if the other end closes."""
    parts: list[bytes] = []
    while size and (part := connection.recv(min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def connect_many(
    client: Pod, source: str, server: tuple[str, int], count: int, payload: bytes
) -> set[tuple[str, int]]:
    """Hold `count` TCP connections to an echo server at once and talk over every one.

    Gives the local address and port of each; `HarnessError` if one echo differs.
    """
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(count):
            connection = stack.enter_context(bound(client, source, socket.SOCK_STREAM, 0))
            connection.connect(server)
            connections.append(connection)
        for number, connection in enumerate(connections):
            connection.sendall(payload + b"%08d" % number)
        for number, connection in enumerate(connections):
            expected = payload + b"%08d" % number
            if receive_exactly(connection, len(expected)) != expected:
                raise HarnessError(f"connection {number} of {count} came back changed")
        names = (connection.getsockname() for connection in connections)
        return {(name[0], name[1]) for name in names}


def bulk_transfer(
    sender: Pod, receiver: Pod, server: tuple[str, int], size: int, canary: bytes
) -> tuple[str, str]:
    """Send `size` bytes over one TCP connection; SHA-256 of what was sent and what arrived.

    Every kilobyte of it is random (of a fixed seed) but for a `canary`.
    """
    block = b"".join(
        canary + noise[len(canary) :]
        for noise in (random.Random(n).randbytes(1024) for n in range(64))
    )

    def send() -> str:
        digest = hashlib.sha256()
        with sender.socket(family_of(server[0]), socket.SOCK_STREAM) as connection:
            connection.settimeout(SOCKET_SECONDS)
            connection.connect(server)
            for start in range(0, size, len(block)):
                part = block[: size - start]
                digest.update(part)
                connection.sendall(part)
        return digest.hexdigest()

    def receive(listener: socket.socket) -> str:
        digest = hashlib.sha256()
        connection, _ = listener.accept()
        connection.settimeout(SOCKET_SECONDS)
        with connection:
            while part := connection.recv(CHUNK):
                digest.update(part)
        return digest.hexdigest()

    with bound(receiver, server[0], socket.SOCK_STREAM, server[1]) as listener:
        listener.listen(1)
        with ThreadPoolExecutor(1) as thread:
            sent = thread.submit(send)
            arrived = receive(listener)
            return sent.result(), arrived


def send_raw(
    sender: Pod, receiver: Pod, destination: str, protocol: int, payload: bytes
) -> tuple[bytes, str]:
    """Send one packet of any IP protocol; the payload that arrived, and from where.

    `TimeoutError` if none arrives.
    """
    family = family_of(destination)
    with (
        receiver.socket(family, socket.SOCK_RAW, protocol) as listening,
        sender.socket(family, socket.SOCK_RAW, protocol) as sending,
    ):
        listening.settimeout(SOCKET_SECONDS)
        listening.bind((destination, 0))
        sending.sendto(payload, (destination, 0))
        arrived, source = listening.recvfrom(CHUNK)
    if family is socket.AF_INET:  # raw(7): IPv4 sockets receive the header, ipv6 ones do not
        arrived = arrived[4 * (arrived[0] & IPV4_HEADER_WORDS) :]
    return arrived, source[0]


def sctp_packet(source_port: int, destination_port: int, user_data: bytes) -> bytes:
    """Make an SCTP packet of one DATA chunk (RFC 9260 sections 3.1 and 3.3.1), checksum right."""
    padding = bytes(-len(user_data) % 4)
    chunk = struct.pack("!BBHIHHI", 0, 3, 16 + len(user_data), 1, 0, 0, 0) + user_data + padding
    header = struct.pack("!HHI", source_port, destination_port, 0x54435450)
    checksum = crc32c(header + bytes(4) + chunk).to_bytes(4, "little")
    return header + checksum + chunk
