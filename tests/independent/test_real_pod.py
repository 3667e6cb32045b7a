"""Records: a client written from docs/protocol.md alone and a real pod, which cannot tell.

What fails here is wrong in the proxy, in the document or in the client: find out which.
"""

import random
import socket

import pytest
from independent.client import Client
from independent.talk import (
    PORT,
    address,
    application,
    drops,
    echo_over,
    heard,
    logged,
    packet_to,
    sessions_with,
)
from independent.wire import FIRST_RECORD, PACKET, PING, RECORD_HEADER, Hint, Record, parse
from support.capture import SESSION_PORT
from support.forge import udp_packet
from support.namespaces import Pod
from support.processes import wait_for
from support.project import Project
from support.servers import bound

ECT_0, CE = 2, 3


def test_a_call_makes_a_session_and_a_packet_comes_back_whole(
    project: Project, client: Client, real: Pod
) -> None:
    session = client.call(real.ipv4)
    echo_over(client, session, real, b"canary of an independent client")
    (seen,) = sessions_with(project, client)
    assert (seen["role"], seen["generation"], seen["group"]) == ("responder", 1, "X25519MLKEM768")
    assert seen["endpoint"] == f"{address(client)}:{SESSION_PORT}"
    assert session.generation == 1
    assert not client.dropped


def test_the_pod_calls_the_client_when_an_application_speaks(client: Client, real: Pod) -> None:
    with application(real) as program:
        program.sendto(b"anybody there?", (address(client), PORT))
        session = client.accept()
        client.wait_for("the packet", lambda: heard(session) == [b"anybody there?"])
        client.send(session, PACKET, packet_to(real, client, b"yes"))
        assert program.recvfrom(100) == (b"yes", (address(client), PORT))
    assert not session.initiator
    assert session.generation == 1


def test_a_session_over_ipv6_carries_packets_of_both_families(
    ipv6_client: Client, real: Pod
) -> None:
    session = ipv6_client.call(real.ipv6)
    echo_over(ipv6_client, session, real, b"IPv4 in IPv6")
    with application(real, 6) as program:
        program.sendto(b"IPv6 in IPv6", (address(ipv6_client, 6), PORT))
        ipv6_client.wait_for("it", lambda: b"IPv6 in IPv6" in heard(session))


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_record_of_many_datagrams_arrives_whole_in_whatever_order(
    client: Client,
    real: Pod,
    shuffled: bool,  # noqa: FBT001 - a parameter of pytest's
) -> None:
    session = client.call(real.ipv4)
    if shuffled:  # and each one twice
        order = random.Random(2)
        client.arrange = lambda pieces: order.sample(pieces * 2, 2 * len(pieces))
    said = random.Random(1).randbytes(60_000 if not shuffled else 8_000)
    with application(real) as program:
        program.settimeout(1.0)
        for _ in range(10):  # pieces wait for each other 20 ms: a busy machine may take longer
            client.send(session, PACKET, packet_to(real, client, said))
            try:
                assert program.recv(1 << 16) == said
            except TimeoutError:
                continue
            return
    pytest.fail("no record arrived")


def test_on_a_narrow_path_the_pods_packet_comes_in_two_datagrams(client: Client, real: Pod) -> None:
    records: list[tuple[int, int]] = []

    def narrow(data: bytes) -> bool:
        if data[0] > FIRST_RECORD and len(data) <= 1200:
            found = parse(data)
            assert isinstance(found, Record)
            records.append((found.count, found.segment))
        return len(data) <= 1200

    client.takes = narrow
    session = client.call(real.ipv4)
    said = random.Random(4).randbytes(1280 - 48)
    with application(real, 6) as program:
        for _ in range(40):  # lost until the pod has found out what the path carries
            program.sendto(said, (address(client, 6), PORT))
            client.listen(0.25)
            if session.packets:
                break
    assert heard(session)[:1] == [said]
    assert records[:2] == [(2, 0), (2, 1)]


def test_the_pod_asks_at_once_whether_the_path_carries_what_its_interface_does(
    client: Client, real: Pod
) -> None:
    session = client.call(real.ipv4)
    client.wait_for("a PING", lambda: bool(session.pings))
    overhead = 48 + RECORD_HEADER + 4 + 16  # IPv6 and UDP, header, prefix, tag
    assert len(session.pings[0]) == 1500 - overhead
    assert not any(session.pings[0][8:])


def test_a_ping_is_answered_by_its_eight_bytes_and_two_counts(client: Client, real: Pod) -> None:
    session = client.call(real.ipv4)
    client.send(session, PING, b"8 bytes." + bytes(600))
    client.wait_for("a PONG", lambda: bool(session.pongs))
    assert session.pongs == [b"8 bytes." + bytes(8)]


def test_close_ends_the_session_at_the_pod(project: Project, client: Client, real: Pod) -> None:
    session = client.call(real.ipv4)
    echo_over(client, session, real, b"before")
    client.close(session)
    closed = [client.own.pod, 1, "closed by peer"]
    wait_for(
        "the end",
        lambda: (
            closed
            in [[e["peer"], e["generation"], e["why"]] for e in logged(project, "session_closed")]
        ),
    )
    assert not sessions_with(project, client)


def test_a_hint_of_a_client_that_forgot_brings_a_new_session(client: Client, real: Pod) -> None:
    first = client.call(real.ipv4)
    client.forget(first)
    with application(real) as program:
        program.sendto(b"lost", (address(client), PORT))
        second = client.accept()
        assert second.generation == first.generation + 1
        program.sendto(b"found", (address(client), PORT))
        client.wait_for("it", lambda: b"found" in heard(second))


def test_a_record_of_an_unknown_session_is_answered_by_its_hint(client: Client, real: Pod) -> None:
    session = client.call(real.ipv4)
    client.close(session)
    client.send(session, PACKET, packet_to(real, client, b"into the void"))
    hint = Hint(session.sealer.index, session.sealer.counter)
    client.wait_for("a HINT", lambda: client.hints == [hint])


def test_a_replayed_record_is_counted_and_not_delivered(
    project: Project, client: Client, real: Pod
) -> None:
    session = client.call(real.ipv4)
    with application(real) as program:
        record = client.send(session, PACKET, packet_to(real, client, b"once"))
        assert program.recv(100) == b"once"
        before = drops(project, "replay")
        client.transmit(record, session.endpoint)
        client.send(session, PACKET, packet_to(real, client, b"afterwards"))
        assert program.recv(100) == b"afterwards"
        assert drops(project, "replay") == before + 1


def test_a_spoilt_record_is_not_delivered_and_spoils_nothing_else(
    client: Client, real: Pod
) -> None:
    session = client.call(real.ipv4)
    (good,) = session.sealer.seal(PACKET, packet_to(real, client, b"good"))
    with application(real) as program:
        for at in range(len(good)):  # each byte once: header, token, sealed bytes, tag
            spoilt = good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :]
            client.transmit([spoilt], session.endpoint)
        client.transmit([good], session.endpoint)
        assert program.recv(100) == b"good"
        client.send(session, PACKET, packet_to(real, client, b"the next"))
        assert program.recv(100) == b"the next"


def test_an_inner_source_that_the_certificate_does_not_name_is_dropped(
    project: Project, client: Client, real: Pod
) -> None:
    session = client.call(real.ipv4)
    before = drops(project, "foreign_source")
    foreign = project.fabric["client0"].ipv4
    with application(real) as program:
        client.send(session, PACKET, udp_packet(foreign, real.ipv4, PORT, b"I am another"))
        client.send(session, PACKET, packet_to(real, client, b"I am myself"))
        assert program.recv(100) == b"I am myself"
    assert drops(project, "foreign_source") == before + 1


def test_marks_of_congestion_travel_outside_and_come_in_again(client: Client, real: Pod) -> None:
    session = client.call(real.ipv4)
    with application(real) as program:
        program.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, ECT_0)
        program.sendto(b"marked", (address(client), PORT))
        client.wait_for("it", lambda: bool(session.packets))
        assert session.marks == [ECT_0]
        program.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        capable = bytearray(packet_to(real, client, b"through congestion"))
        capable[1] = ECT_0
        checksum = (int.from_bytes(capable[10:12], "big") - ECT_0) % 0xFFFF  # RFC 1624
        capable[10:12] = checksum.to_bytes(2, "big")
        client.transmit(session.sealer.seal(PACKET, bytes(capable)), session.endpoint, mark=CE)
        said, marks, *_ = program.recvmsg(100, 64)
    assert said == b"through congestion"
    assert marks[0][2][0] == CE


def test_the_session_follows_a_client_whose_port_changes(
    project: Project, client: Client, real: Pod
) -> None:
    session = client.call(real.ipv4)
    pod = project.fabric[client.own.pod]
    with (
        bound(pod, pod.ipv4, socket.SOCK_DGRAM, SESSION_PORT + 1) as other,
        application(real) as program,
    ):
        client.move(other)
        client.send(session, PACKET, packet_to(real, client, b"from another port"))
        assert program.recv(100) == b"from another port"
        for _ in range(40):  # to the former port until the new one has proved itself
            program.sendto(b"found you", (address(client), PORT))
            client.listen(0.1)
            if session.packets:
                break
    assert heard(session)[:1] == [b"found you"]
