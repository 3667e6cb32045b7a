"""Long TCP connections with running checksums: what happens to a project, they shall not notice."""

import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from support.namespaces import Pod
from support.processes import wait_for
from support.servers import receive_exactly
from typing_extensions import override

BLOCK: Final = 2048


class Talk(threading.Thread):
    """Talks over all connections at once, round by round, and keeps a running checksum of each direction."""

    def __init__(self, connections: list[socket.socket], over: threading.Event) -> None:
        super().__init__()
        self._connections, self._over = connections, over
        self.sent = [hashlib.sha256() for _ in connections]
        self.heard = [hashlib.sha256() for _ in connections]
        self.rounds = 0
        self.error: OSError | None = None
        self._noise = random.Random(11)

    @override
    def run(self) -> None:
        try:
            while not self._over.is_set():
                self._round()
        except OSError as error:
            self.error = error

    def _round(self) -> None:
        for connection, sent in zip(self._connections, self.sent, strict=True):
            block = self._noise.randbytes(BLOCK)
            connection.sendall(block)
            sent.update(block)
        for connection, heard in zip(self._connections, self.heard, strict=True):
            heard.update(receive_exactly(connection, BLOCK))
        self.rounds += 1

    def another_round(self) -> None:
        """Wait until each connection has carried a whole block both ways."""
        before = self.rounds
        wait_for("a round", lambda: self.rounds > before + 1 or not self.is_alive(), 30)

    def check(self) -> None:
        """Fail where one broke, or said other than was heard."""
        assert self.error is None
        for sent, heard in zip(self.sent, self.heard, strict=True):
            assert sent.hexdigest() == heard.hexdigest()


@contextmanager
def talking(client: Pod, host: str, port: int, count: int) -> Iterator[Talk]:
    """Give a talk over so many connections to an echo server; at the end it is checked."""
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            made = stack.enter_context(client.socket(socket.AF_INET, socket.SOCK_STREAM))
            made.settimeout(20)
            made.connect((host, port))
            connections.append(made)
        over = threading.Event()
        talk = Talk(connections, over)
        talk.start()
        try:
            yield talk
        finally:
            over.set()
            talk.join()
        talk.check()
