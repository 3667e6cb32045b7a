"""A killed proxy lets nothing through in clear and comes back by itself; forgers never get in."""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from support.capture import Taps
from support.exchanges import FAMILIES, SERVER_PORT, Family, address, leaks
from support.forge import chatter, send_forged_udp
from support.kernel_state import refused_count
from support.namespaces import BRIDGE, Fabric, Pod
from support.processes import Process, wait_for
from support.project import Project
from support.servers import ask, bound, receive_exactly, tcp_echo, udp_echo
from support.tencrypt import Proxy

from proxy.drops import Drop

CANARY = b"canary in the gap"
ECHO_PORT = 9100
BACK_SECONDS = 4.0  # about one; the machine may be busy
ANSWER_SECONDS = 0.1


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    """Three members: nginx1 and nginx2 are protected, `plain` has no Tencrypt.

    The controls come first, on the same fabric: what must not be seen later is seen now.
    """
    with Fabric("nginx1", "nginx2", "plain") as fabric:
        one, two = fabric["nginx1"], fabric["nginx2"]
        taps = Taps.everywhere(fabric)
        with chatter(one, two, CANARY):
            pass
        for point, capture in taps.stop().items():
            if "plain" not in point:
                assert capture.holding(CANARY), f"the control failed at {point}"
        for family in FAMILIES:
            for place, interface in ((fabric["plain"], "eth0"), (fabric.node, BRIDGE)):
                with bound(one, address(one, family), socket.SOCK_DGRAM, SERVER_PORT) as server:
                    send_forged_udp(place, interface, address(two, family), one, CANARY)
                    came = server.recvfrom(100)
                assert came[0] == CANARY
                assert came[1][:2] == (address(two, family), SERVER_PORT)

        made = Project(fabric)
        made.start("nginx1", "nginx2")
        yield made


def kill_daemon(proxy: Proxy) -> None:
    assert proxy.kill_daemon() == 1


def kill_agent(proxy: Proxy) -> None:
    """The daemon hears of it, and ends by itself."""
    daemon = os.pidfd_open(proxy.daemon_pid())
    assert running(proxy).stop(signal.SIGKILL) == -signal.SIGKILL
    wait_for_end(daemon)


def kill_both(proxy: Proxy) -> None:
    daemon = os.pidfd_open(proxy.daemon_pid())
    running(proxy).signal(signal.SIGKILL)
    signal.pidfd_send_signal(daemon, signal.SIGKILL)
    wait_for_end(daemon)
    running(proxy).wait()


def kill_and_delete_tunnel(proxy: Proxy) -> None:
    """The unreachable routes hold alone."""
    kill_both(proxy)
    proxy.pod.ip("link del tenc0\n")


def kill_and_flush_routes(proxy: Proxy) -> None:
    """The filter holds alone."""
    kill_both(proxy)
    for option in ("-4", "-6"):
        proxy.pod.run(["ip", option, "rule", "del", "pref", "99"])
        proxy.pod.run(["ip", option, "route", "flush", "table", "126"])


def running(proxy: Proxy) -> Process:
    assert proxy.process is not None
    return proxy.process


def wait_for_end(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    assert poll.poll(10_000)
    os.close(process)


@pytest.mark.parametrize(
    ("kill", "first"),
    [
        (kill_daemon, "survivor"),
        (kill_daemon, "restarted"),
        (kill_agent, "survivor"),
        (kill_both, "restarted"),
        (kill_both, "both"),
        (kill_and_delete_tunnel, "survivor"),
        (kill_and_flush_routes, "restarted"),
    ],
)
def test_a_killed_peer_leaks_nothing_and_comes_back_by_itself(
    project: Project, kill: Callable[[Proxy], None], first: str
) -> None:
    survivor, killed = project.fabric["nginx1"], project.fabric["nginx2"]
    here, there = (killed, survivor) if first == "restarted" else (survivor, killed)
    with (
        tcp_echo(killed, killed.ipv4, ECHO_PORT),
        udp_echo(there, there.ipv4, SERVER_PORT),
        udp_echo(there, there.ipv6, SERVER_PORT),
        bound(survivor, survivor.ipv4, socket.SOCK_STREAM, 0) as connection,
    ):
        connection.connect((killed.ipv4, ECHO_PORT))
        assert echoes(connection, b"before")

        taps = Taps.everywhere(project.fabric)
        with contextlib.ExitStack() as talking:
            talking.enter_context(chatter(survivor, killed, CANARY))
            kill(project["nginx2"])
            if first != "both":
                talking.close()
            project["nginx2"].start_and_wait()

        for family in FAMILIES:
            wait_for_answer(here, there, family)
        assert echoes(connection, b"the same connection, afterwards")
    assert not leaks(taps.stop(), CANARY, b"afterwards")


def echoes(connection: socket.socket, text: bytes) -> bool:
    connection.sendall(text)
    return receive_exactly(connection, len(text)) == text


def wait_for_answer(here: Pod, there: Pod, family: Family) -> None:
    """Ask again and again: what was sent into the gap is lost, as on any network."""
    with bound(here, address(here, family), socket.SOCK_DGRAM, 0) as asking:
        asking.settimeout(ANSWER_SECONDS)

        def answered() -> bool:
            with contextlib.suppress(TimeoutError):
                return ask(asking, (address(there, family), SERVER_PORT), b"hello") == b"hello"
            return False

        wait_for(f"{family} to flow again", answered, BACK_SECONDS)


@contextlib.contextmanager
def killed(proxy: Proxy) -> Iterator[None]:
    """The proxy's daemon is dead within."""
    kill_daemon(proxy)
    try:
        yield
    finally:
        proxy.start_and_wait()


@contextlib.contextmanager
def refusal(pod: Pod) -> Iterator[None]:
    """Wait until the pod's filter has refused what is sent within."""
    before = refused_count(pod, "refused_arriving")
    yield
    wait_for("the refusal", lambda: refused_count(pod, "refused_arriving") > before)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("state", ["running", "killed"])
def test_plaintext_in_a_members_name_is_refused(
    project: Project, state: str, family: Family
) -> None:
    one, two, plain = (project.fabric[name] for name in ("nginx1", "nginx2", "plain"))
    forged = address(two, family)
    with (
        killed(project["nginx1"]) if state == "killed" else contextlib.nullcontext(),
        bound(one, address(one, family), socket.SOCK_DGRAM, SERVER_PORT) as server,
    ):
        for place, interface in ((plain, "eth0"), (project.fabric.node, BRIDGE)):
            with refusal(one):
                send_forged_udp(place, interface, forged, one, CANARY)
        # A member that has no Tencrypt, by its own kernel.
        with refusal(one), bound(plain, address(plain, family), socket.SOCK_DGRAM, 0) as own:
            own.sendto(CANARY, (address(one, family), SERVER_PORT))
        server.setblocking(False)  # noqa: FBT003 - the standard library's signature
        with pytest.raises(BlockingIOError):
            server.recv(100)


def test_a_member_without_tencrypt_is_told_nothing_in_clear(project: Project) -> None:
    one, plain = project.fabric["nginx1"], project.fabric["plain"]
    dropped = project["nginx1"].status()["drops"].get(Drop.NO_SESSION, 0)
    taps = Taps.everywhere(project.fabric)
    with bound(one, one.ipv4, socket.SOCK_DGRAM, 0) as asking:
        asking.sendto(CANARY, (plain.ipv4, SERVER_PORT))
    wait_for("the call to be given up", lambda: given_up(project["nginx1"], plain.ipv4))
    for point, capture in taps.stop().items():
        assert not capture.holding(CANARY)
        if "nginx2" not in point:
            assert capture.kinds()["session HELLO"] >= 1, point
    assert project["nginx1"].status()["drops"][Drop.NO_SESSION] == dropped + 1


def given_up(proxy: Proxy, host: str) -> bool:
    told = [event["address"] for event in proxy.events() if event["event"] == "unreachable"]
    return host in told
