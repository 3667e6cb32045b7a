"""The test bed can see what it must find, and leaves nothing behind."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from support.capture import SESSION_PORT, Taps
from support.frames import kind_of
from support.namespaces import NETNS_DIRECTORY, Fabric, clean_stale
from support.processes import HarnessError, Process, run
from support.servers import (
    ask,
    bound,
    bulk_transfer,
    connect_many,
    sctp_packet,
    send_raw,
    start_nginx,
    tcp_echo,
    udp_echo,
)

CANARY = b"canary-7b1e55ed"
POINTS = {
    "node:br0",
    "node:veth-nginx1",
    "node:veth-nginx2",
    "nginx1:eth0",
    "nginx2:eth0",
}
FAMILIES = ("ipv4", "ipv6")

HOLDER = """
import signal
from support.namespaces import Fabric
with Fabric("nginx1", "nginx2") as fabric:
    sleeper = fabric["nginx1"].start(["sleep", "1000"])
    print(fabric.name, sleeper.pid, flush=True)
    signal.pause()
"""

# Interrupted when it starts its first program, its second, and so on until none is left to
# interrupt, it tells how often that was.
INTERRUPTED = """
import itertools, signal, sys
from support.namespaces import NETNS_DIRECTORY, Fabric
# Who was started in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
left = 0
def interrupt(event, _arguments):
    global left
    if event == "subprocess.Popen":
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGINT)
sys.addaudithook(interrupt)
for step in itertools.count(1):
    fabric, left = Fabric("one"), step
    try:
        with fabric as made:
            made["one"].start(["sleep", "1000"])
    except KeyboardInterrupt:
        assert not list(NETNS_DIRECTORY.glob(f"{fabric.name}-*")), f"step {step}"
        assert not fabric.directory.exists(), f"step {step}"
    else:
        break
print(step)
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_canaries_of_every_protocol_are_found_at_every_point(fabric: Fabric, family: str) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    source, destination = getattr(one, family), getattr(two, family)
    url = f"http://[{destination}]/" if family == "ipv6" else f"http://{destination}/"
    start_nginx(two, CANARY.decode())
    taps = Taps.everywhere(fabric)

    assert CANARY.decode() in one.run(["curl", "-sSI", url]).stdout
    one.run(["ping", "-c1", "-W5", "-p", CANARY.hex(), "-s", "64", destination])
    with (
        udp_echo(two, destination, 9000) as callers,
        bound(one, source, socket.SOCK_DGRAM, 9001) as client,
    ):
        large = (CANARY * 5000)[:64_000]
        assert ask(client, (destination, 9000), large) == large
        assert callers == {(source, 9001)}
    for protocol, payload in ((253, CANARY), (132, sctp_packet(1, 2, CANARY))):
        assert send_raw(one, two, destination, protocol, payload) == (payload, source)

    captures = taps.stop()
    assert set(captures) == POINTS
    icmp = {"ipv4": "ICMP", "ipv6": "ICMPv6"}[family]
    for capture in captures.values():
        kinds = {kind_of(frame, SESSION_PORT) for frame in capture.holding(CANARY)}
        assert kinds == {"TCP", "UDP", "UDP fragment", icmp, "protocol 253", "SCTP"}, capture


def test_a_capture_of_silence_holds_nothing(fabric: Fabric) -> None:
    captures = Taps.everywhere(fabric).stop()

    assert set(captures) == POINTS
    for capture in captures.values():
        assert not capture.said(), capture
        assert not capture.holding(CANARY)


@pytest.mark.parametrize("family", FAMILIES)
def test_callers_are_seen_by_their_own_addresses_and_ports(fabric: Fabric, family: str) -> None:
    source, server = getattr(fabric["nginx1"], family), (getattr(fabric["nginx2"], family), 9000)
    with tcp_echo(fabric["nginx2"], *server) as callers:
        calling = connect_many(fabric["nginx1"], source, server, 200, CANARY)

    assert len(calling) == 200
    assert calling == callers


def test_a_bulk_transfer_is_captured_whole(fabric: Fabric) -> None:
    taps = Taps.everywhere(fabric)
    server = (fabric["nginx2"].ipv4, 9000)
    sent, arrived = bulk_transfer(fabric["nginx1"], fabric["nginx2"], server, 20_000_000, CANARY)

    assert sent == arrived
    for capture in taps.stop().values():
        assert sum(frame.count(CANARY) for frame in capture.frames) >= 19_000


def test_nothing_is_left_when_a_test_fails(fabric: Fabric) -> None:
    failing = Fabric("lost")

    def fail() -> None:
        with failing as lost:
            lost["lost"].start(["sleep", "1000"])
            lost["lost"].run(["false"])

    with pytest.raises(HarnessError, match="exit code 1") as failure:
        fail()

    assert any("sleep 1000 (running)" in note for note in failure.value.__notes__)
    assert not failing["lost"].processes[0].running()
    assert not list(NETNS_DIRECTORY.glob(f"{failing.name}-*"))
    assert not failing.directory.exists()
    assert fabric["nginx1"].path.exists()


def test_nothing_is_left_by_an_interrupt_at_any_step() -> None:
    tests = Path(__file__).parents[1]

    done = run([sys.executable, "-c", INTERRUPTED], env={**os.environ, "PYTHONPATH": str(tests)})

    assert int(done.stdout) > 10


def test_a_killed_run_is_cleaned_up_and_a_living_one_left_alone(
    fabric: Fabric, tmp_path: Path
) -> None:
    tests = Path(__file__).parents[1]
    holder = Process(
        [sys.executable, "-c", HOLDER],
        tmp_path / "holder",
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    holder.wait_until("its fabric is up", lambda: holder.stdout.endswith("\n"))
    name, sleeper = holder.stdout.split()
    assert clean_stale() == []
    holder.stop(signal.SIGKILL)
    before = run(["ip", "link", "show"]).stdout

    assert clean_stale() == [name]

    # Nobody need have reaped it yet, but it lives nowhere any more.
    assert not Path(f"/proc/{sleeper}/ns/net").exists()
    assert not list(NETNS_DIRECTORY.glob(f"{name}-*"))
    assert not Path(f"/tmp/{name}").exists()
    assert run(["ip", "link", "show"]).stdout == before
    fabric["nginx1"].run(["ping", "-c1", "-W5", fabric["nginx2"].ipv4])
