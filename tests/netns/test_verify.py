"""`tencrypt verify` tells what the kernels' own frames show; what leaks here, leaks by the kernel alone."""

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from support.capture import SESSION_PORT, Taps
from support.exchanges import leaks, udp
from support.namespaces import Fabric, Pod
from support.processes import run, wait_for
from support.project import Project
from support.servers import bulk_transfer
from support.tencrypt import TENCRYPT, Proxy

from proxy.packet.checksum import checksum
from proxy.session.wire import Hello

NET_ADMIN, NET_RAW = 1 << 12, 1 << 13
LEAKS = ("canaries_out", "canaries_in", "clear_out", "foreign_out", "missed", "unreadable")
Answer = dict[str, Any]


@pytest.fixture
def project(fabric: Fabric) -> Project:
    """Two protected pods that allow it."""
    made = Project(fabric, {"verify": "project"})
    made.start()
    return made


def seen_by(answer: Answer, pod: str) -> Answer:
    found: Answer = next(one for one in answer["seen"] if one["pod"] == pod)
    return found


def verified(proxy: Proxy, peer: str) -> tuple[int, Answer]:
    """Verify, again while the peer wants a pause between two runs."""
    found: list[tuple[int, Answer]] = []

    def done() -> bool:
        found.append(proxy.verify(peer))
        return not any("busy" in reason for reason in found[-1][1]["reasons"])

    wait_for("the peer's pause to be over", done)
    return found[-1]


def plaintext(source: Pod, destination: Pod) -> bytes:
    """A frame with a TCP segment in clear, as anybody on the bridge can send it."""
    link = json.loads(destination.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]
    ends = ip_address(source.ipv4).packed + ip_address(destination.ipv4).packed
    tcp = bytes.fromhex("1234005000000001000000015010ffff00000000") + b"forged" * 20
    ip = b"\x45\0" + (20 + len(tcp)).to_bytes(2, "big") + bytes.fromhex("0000000040060000") + ends
    return bytes.fromhex(link["address"].replace(":", "")) + bytes(6) + b"\x08\0" + ip + tcp


def no_rules(pod: Pod) -> None:
    """What brings packets into tenc0 is deleted, as an administrator's mistake would."""
    for family in ("-4", "-6"):
        pod.run(["ip", family, "rule", "del", "pref", "99"])


def no_filter(pod: Pod) -> None:
    pod.run(["nft", "delete", "table", "inet", "tencrypt"])


def mirror(pod: Pod, hook: str) -> None:
    """All that passes tenc0 goes out by eth0 once more, behind every filter."""
    hooked = f'type filter hook {hook} device "tenc0" priority 0;'
    rules = f'table netdev mirror {{\nchain copies {{\n{hooked}\ndup to "eth0"\n}}\n}}\n'
    pod.run(["nft", "-f", "-"], stdin=rules)


def test_proof_says_who_the_peer_is_and_that_only_its_sessions_were_outside(
    project: Project, fabric: Fabric
) -> None:
    code, answer = project["nginx1"].verify(fabric["nginx2"].ipv4)

    assert (code, answer["verdict"], answer["reasons"]) == (0, "proven", [])
    (session,) = project["nginx1"].status()["sessions"]
    assert answer["peer"]["name"] == "nginx2"
    assert answer["peer"]["identity"] == session["peer"]["identity"]
    assert answer["peer"]["serial"] == session["peer_serial"]
    assert (answer["cipher"], answer["group"]) == (session["cipher"], session["group"])
    ways = {(flow["protocol"], "[" in flow["destination"]) for flow in answer["flows"]}
    assert ways == {("TCP", False), ("UDP", False), ("TCP", True), ("UDP", True)}
    carried = sum(flow["returned"] for flow in answer["flows"])
    for seen in answer["seen"]:
        # The capture's positive control: what it shows can carry the canaries, both ways.
        assert seen["sealed_bytes"] > 2 * carried
        for leak in LEAKS:
            assert seen[leak] == 0


def test_proof_is_given_by_name_and_drawn_for_people(project: Project, fabric: Fabric) -> None:
    project["nginx1"].verify(fabric["nginx2"].ipv4)
    socket_path = project["nginx2"].admin_socket

    done = run([TENCRYPT, "verify", "nginx1", "--socket", socket_path])

    assert re.search(
        r"^nginx1  spiffe://shop.example/ns/shop/sa/web  10.77", done.stdout, re.MULTILINE
    )
    assert "certificate " in done.stdout
    assert "X25519MLKEM768" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("proven: the canaries arrived by tenc0")


@pytest.mark.parametrize("pod_name", ["nginx1", "nginx2"])
def test_deleted_rules_and_filter_are_found_at_either_end(
    project: Project, fabric: Fabric, pod_name: str
) -> None:
    no_rules(fabric[pod_name])
    no_filter(fabric[pod_name])

    code, answer = project["nginx1"].verify(fabric["nginx2"].ipv4)

    assert (code, answer["verdict"]) == (5, "leak")
    assert seen_by(answer, pod_name)["clear_out"] > 0
    assert any(reason.startswith(f"{pod_name}: ") for reason in answer["reasons"])


def test_plaintext_that_arrives_like_any_other_is_a_leak(project: Project, fabric: Fabric) -> None:
    for pod in fabric.pods.values():
        no_rules(pod)
        no_filter(pod)

    code, answer = project["nginx1"].verify(fabric["nginx2"].ipv4)

    assert (code, answer["verdict"]) == (5, "leak")
    assert all(not flow["error"] for flow in answer["flows"])
    for seen in answer["seen"]:
        assert seen["canaries_out"] > 0
        assert seen["canaries_in"] > 0
    ways = {(flow["source"], flow["destination"]) for flow in answer["flows"]}
    told = " ".join(seen_by(answer, "nginx1")["texts"])
    assert any(f"{one} -> {other}" in told for one, other in ways)


@pytest.mark.parametrize(("pod_name", "hook"), [("nginx1", "egress"), ("nginx2", "ingress")])
def test_mirror_beside_a_whole_tunnel_is_found(
    project: Project, fabric: Fabric, pod_name: str, hook: str
) -> None:
    mirror(fabric[pod_name], hook)

    code, answer = project["nginx1"].verify(fabric["nginx2"].ipv4)

    assert (code, answer["verdict"]) == (5, "leak")
    assert all(not flow["error"] for flow in answer["flows"])
    assert seen_by(answer, pod_name)["canaries_out"] > 0


def test_deleted_rules_alone_leak_nothing_and_prove_nothing(
    project: Project, fabric: Fabric
) -> None:
    no_rules(fabric["nginx1"])

    code, answer = project["nginx1"].verify(fabric["nginx2"].ipv4)

    assert (code, answer["verdict"]) == (6, "not proven")
    assert any("TCP 10.77.0.11:" in reason for reason in answer["reasons"])
    assert seen_by(answer, "nginx1")["clear_out"] == 0


@contextlib.contextmanager
def forged(fabric: Fabric, pod: Pod, frame: bytes) -> Iterator[None]:
    """Send a frame to a pod again and again, as anybody on the bridge can."""
    stop = threading.Event()
    with fabric.node.socket(socket.AF_PACKET, socket.SOCK_RAW) as stranger:
        stranger.bind((pod.node_port, 0))

        def forge() -> None:
            while not stop.wait(0.001):
                stranger.send(frame)

        with ThreadPoolExecutor(1) as beside:
            forging = beside.submit(forge)
            try:
                yield
            finally:
                stop.set()
            forging.result()


def test_strangers_plaintext_is_told_and_spoils_no_proof(project: Project, fabric: Fabric) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    with forged(fabric, one, plaintext(two, one)):
        code, answer = project["nginx1"].verify(two.ipv4)

    assert (code, answer["verdict"]) == (0, "proven")
    assert seen_by(answer, "nginx1")["clear_in"] > 0


def test_stranger_who_has_us_answer_a_port_of_the_peer_spoils_no_proof(
    project: Project, fabric: Fabric
) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    project["nginx1"].verify(two.ipv4)
    hello = Hello(4711).encode()
    udp_part = struct.pack(">HHHH", 4242, SESSION_PORT, 8 + len(hello), 0) + hello
    ends = ip_address(two.ipv4).packed + ip_address(one.ipv4).packed
    head = bytearray(
        b"\x45\0" + (20 + len(udp_part)).to_bytes(2, "big") + bytes(4) + b"\x40\x11\0\0"
    )
    head += ends
    head[10:12] = checksum(head).to_bytes(2, "big")
    before = project["nginx1"].status()["datagrams"]["sent"].get("retry", 0)

    with forged(fabric, one, plaintext(two, one)[:14] + bytes(head) + udp_part):
        code, answer = verified(project["nginx1"], two.ipv4)

    assert project["nginx1"].status()["datagrams"]["sent"]["retry"] > before + 10
    assert (code, answer["verdict"]) == (0, "proven"), answer


def test_traffic_beside_is_never_taken_for_a_leak(project: Project, fabric: Fabric) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    project["nginx1"].verify(two.ipv4)
    answers = []

    with ThreadPoolExecutor(1) as beside:
        bulk = beside.submit(bulk_transfer, one, two, (two.ipv4, 9000), 400_000_000, b"x" * 16)
        while not bulk.done():
            answers.append(verified(project["nginx1"], two.ipv4))
        sent, arrived = bulk.result()

    assert sent == arrived
    # A machine may be too busy for a look at each frame, or for a canary to arrive in time.
    for code, answer in answers:
        assert code in {0, 6}, answer["reasons"]


def test_sessions_that_are_replaced_meanwhile_are_known(project: Project, fabric: Fabric) -> None:
    project["nginx1"].verify(fabric["nginx2"].ipv4)
    socket_path = project["nginx2"].admin_socket
    stop = threading.Event()

    def rekeys() -> None:
        while not stop.is_set():
            run([TENCRYPT, "rekey", "--socket", socket_path])

    with ThreadPoolExecutor(1) as beside:
        replacing = beside.submit(rekeys)
        answers = [verified(project["nginx1"], fabric["nginx2"].ipv4) for _ in range(2)]
        stop.set()
        replacing.result()

    for code, answer in answers:
        assert code in {0, 6}, answer["reasons"]
    assert any(code == 0 for code, _ in answers)


def test_peer_that_does_not_allow_it_is_told_apart(fabric: Fabric) -> None:
    project = Project(fabric, {"verify": "project"})
    project.start("nginx1")
    other = Proxy(fabric["nginx2"], project.ca, project.members)
    other.start_and_wait()

    code, answer = project["nginx1"].verify(fabric["nginx2"].ipv4)
    assert (code, answer["reasons"]) == (6, ['the peer takes no part: verify = "off" there'])

    code, answer = other.verify("nginx1")
    said = 'verify = "off" here: set verify = "project" on both pods'
    assert (code, answer["reasons"]) == (6, [said])


def test_peer_that_nobody_knows_is_one_clear_line(project: Project) -> None:
    code, answer = project["nginx1"].verify("nginx9")

    said = "no session with nginx9: name one of its addresses"
    assert (code, answer["reasons"]) == (6, [said])


def test_member_that_our_settings_do_not_know_is_protected_and_not_proven(fabric: Fabric) -> None:
    project = Project(fabric, {"verify": "project"})
    everybody, project.members = project.members, [fabric["nginx1"].ipv4, fabric["nginx2"].ipv4]
    project.start("nginx1")
    project.members = everybody
    project.start("nginx2")
    one, two = fabric["nginx1"], fabric["nginx2"]

    code, answer = project["nginx1"].verify(two.ipv4)

    (reason,) = answer["reasons"]
    assert code == 6
    assert reason.startswith(f"{two.ipv6} is nginx2's and in none of members and cluster_ranges")
    # The session's certificate names it: the kernel refuses it in clear from then on.
    wait_for("the order", lambda: project["nginx1"].status()["project"]["kernel_settled"])
    taps = Taps.everywhere(fabric)
    udp(one, two, "ipv6", b"canary-of-the-other-family")
    assert not leaks(taps.stop(), b"canary-of-the-other-family")


def test_only_the_lookout_may_look_and_nobody_stays(project: Project, fabric: Fabric) -> None:
    project["nginx1"].verify(fabric["nginx2"].ipv4)

    for proxy in project.proxies.values():
        assert proxy.process is not None
        agent = proxy.process.pid
        (lookout,) = [pid for pid in children(agent) if pid != proxy.daemon_pid()]
        wait_for("the watcher to be gone", partial(childless, lookout))
        assert effective(agent) == NET_ADMIN
        assert effective(lookout) == NET_ADMIN | NET_RAW
        assert Path(f"/proc/{lookout}/status").read_text().count("\t65534") == 8
        assert proxy.stop() == 0
        assert not Path(f"/proc/{lookout}").exists()


def test_without_the_setting_nobody_may_look(fabric: Fabric) -> None:
    project = Project(fabric)
    project.start("nginx1")
    assert project["nginx1"].process is not None

    (daemon,) = children(project["nginx1"].process.pid)

    assert effective(project["nginx1"].process.pid) == NET_ADMIN
    assert effective(daemon) == 0


def childless(pid: int) -> bool:
    return not children(pid)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def effective(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"^CapEff:\s+([0-9a-f]+)$", status, re.MULTILINE)[0], 16)
