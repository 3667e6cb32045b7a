"""Super-packets and unfinished checksums, to a real pod's programs and from them.

Both ends read section 8 by themselves: what one makes, the other has to understand.
"""

import random
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address

import pytest
from independent.client import Client
from independent.packets import UNFINISHED, packets_of, unfinished
from independent.records import Dropped
from independent.talk import (
    PORT,
    UDP_SEGMENT,
    address,
    application,
    drops,
    heard,
    packet_to,
    pieces,
    send_until_heard,
    super_packet,
)
from independent.tcp import Tcp
from independent.wire import PACKET
from support.forge import internet_checksum, ip_packet, udp_segment
from support.namespaces import Pod
from support.project import Project
from support.segmentation import Connection
from support.servers import SOCKET_SECONDS, bound, receive_exactly

TCP, UDP, ICMP, DESTINATION_OPTIONS, FRAGMENT = 6, 17, 1, 60, 44
ECT_0, CE = 2, 3
VERSIONS = pytest.mark.parametrize("version", [4, 6])
Form = tuple[bytes, int, int]  # body, flags, segment size


@VERSIONS
@pytest.mark.parametrize(("length", "size"), [(60_000, 1000), (1280, 10), (2001, 1000), (2, 1)])
def test_a_program_receives_a_udp_super_packet_as_its_packets(
    client: Client, real: Pod, version: int, length: int, size: int
) -> None:
    session = client.call(real.ipv4)
    said = random.Random(length).randbytes(length)
    with application(real, version) as program:
        program.settimeout(1.0)
        for _ in range(10):  # as above, the other way round
            body = super_packet(real, client, said, version)
            client.send(session, PACKET, body, UNFINISHED, size)
            try:
                assert [program.recv(1 << 16) for _ in pieces(said, size)] == pieces(said, size)
            except TimeoutError:
                continue
            return
    pytest.fail("no super-packet arrived")


@VERSIONS
def test_a_program_receives_a_packet_whose_checksum_was_not_finished(
    client: Client, real: Pod, version: int
) -> None:
    session = client.call(real.ipv4)
    with application(real, version) as program:
        for said in (b"", b"odd", b"even"):
            body = super_packet(real, client, said, version)
            client.send(session, PACKET, body, UNFINISHED)
            assert program.recv(100) == said


@VERSIONS
def test_tcp_carries_bulk_both_ways_in_super_packets(
    client: Client, real: Pod, version: int
) -> None:
    session = client.call(real.ipv4)
    up, down = random.Random(1).randbytes(300_000), random.Random(2).randbytes(600_000)
    there = real.ipv4 if version == 4 else real.ipv6

    def serve(listener: socket.socket) -> bytes:
        connection, _ = listener.accept()
        connection.settimeout(SOCKET_SECONDS)
        with connection:
            got = receive_exactly(connection, len(up))
            connection.sendall(down)
            connection.recv(1)  # until the other end has it all
        return got

    with bound(real, there, socket.SOCK_STREAM, PORT) as listener, ThreadPoolExecutor(1) as thread:
        listener.listen(1)
        serving = thread.submit(serve, listener)
        connection = Tcp(client, session, real, version)
        connection.send(up, 1300)
        assert connection.receive(len(down)) == down
        connection.send(b".", 1300)
        assert serving.result() == up
    largest = client.mtu - (40 if version == 4 else 60)
    assert (UNFINISHED, largest) in session.prefixes


@VERSIONS
def test_what_a_program_sends_by_udp_segment_arrives_as_its_packets(
    client: Client, real: Pod, version: int
) -> None:
    session = client.call(real.ipv4)
    with application(real, version) as program:
        program.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        for length in (60_000, 59_999, 1001):
            said = random.Random(length).randbytes(length)
            there = (address(client, version), PORT)
            expected = pieces(said, 1000)
            send_until_heard(client, session, partial(program.sendto, said, there), len(expected))
            assert heard(session) == expected
            assert session.prefixes == [(UNFINISHED, 1000)]


def test_segments_that_the_path_does_not_carry_whole_come_as_packets(
    client: Client, real: Pod
) -> None:
    """IPv6 may not be told of less than 1,280: such packets go in two datagrams."""
    client.takes = lambda data: len(data) <= 1200
    session = client.call(real.ipv4)
    size = 1280 - 48
    said = random.Random(3).randbytes(20 * size)
    with application(real, 6) as program:
        program.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        there = (address(client, 6), PORT)
        send_until_heard(client, session, partial(program.sendto, said, there), 20)
    assert sorted(heard(session)) == sorted(pieces(said, size))
    assert {segment_size for _, segment_size in session.prefixes} == {0}


def test_each_packet_of_a_super_packet_is_marked_if_one_datagram_was(
    client: Client, real: Pod
) -> None:
    session = client.call(real.ipv4)
    capable = bytearray(super_packet(real, client, bytes(3000)))
    capable[1], capable[10:12] = ECT_0, bytes(2)
    capable[10:12] = internet_checksum(bytes(capable[:20])).to_bytes(2, "big")
    with application(real) as program:
        program.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        first, *rest = session.sealer.seal(PACKET, bytes(capable), 1200, UNFINISHED, 1000)
        client.transmit([first], session.endpoint, mark=CE)
        client.transmit(rest, session.endpoint, mark=ECT_0)
        marks = [program.recvmsg(2000, 64)[1][0][2][0] for _ in range(3)]
    assert marks == [CE] * 3


def malformed(client: Client, pod: Pod, version: int) -> dict[str, Form]:
    """Give what section 8 has a receiver drop, one thing wrong in each."""
    here = ip_address(address(client, version)).packed
    there = ip_address(pod.ipv4 if version == 4 else pod.ipv6).packed

    def ip(protocol: int, body: bytes, fragment: int = 0) -> bytes:
        return ip_packet(here, there, protocol, body, fragment)

    good = super_packet(pod, client, bytes(3000), version)
    (whole,) = packets_of(good, UNFINISHED, 0, client.mtu)
    upper = udp_segment(here, there, (PORT, PORT), bytes(100))
    tcp = struct.pack("!HHIIBBHHH", PORT, PORT, 1, 1, 5 << 4, 16, 9, 0, 0)
    tail = len(good) - 3000
    syn = unfinished(Connection(here, there, TCP, (PORT, PORT)).packet(bytes(3000), flags=0x12))
    forms = {
        "flag 2": (whole, 2, 0),
        "flag 128": (whole, 128, 0),
        "another flag beside flag 1": (good, 3, 1000),
        "a segment size without flag 1": (whole, 0, 1000),
        "a single segment": (good, 1, 3000),
        "less than a segment": (good, 1, 0xFFFF),
        "no payload to segment": (super_packet(pod, client, b"", version), 1, 10),
        "129 segments": (super_packet(pod, client, bytes(1290), version), 1, 10),
        "segments larger than any MTU here": (good, 1, 1429 - tail),
        "a SYN of many segments": (syn, 1, 1000),
        "neither TCP nor UDP": (ip(ICMP, upper), 1, 0),
        "a cut UDP header": (ip(UDP, upper[:7]), 1, 0),
        "a cut TCP header": (ip(TCP, tcp[:19]), 1, 0),
        "TCP options outside": (ip(TCP, tcp[:12] + b"\x60" + tcp[13:]), 1, 0),
        "a UDP length too small": (ip(UDP, upper[:-1]), 1, 0),
        "a UDP length too large": (ip(UDP, upper + b"\0"), 1, 0),
    }
    if version == 4:
        forms["the first fragment"] = (ip(UDP, upper, 0x2000), 1, 0)
        forms["a later fragment"] = (ip(UDP, upper, 0x0001), 1, 0)
    else:
        options = bytes((UDP, 0, 1, 4, 0, 0, 0, 0))
        forms["behind an extension header"] = (ip(DESTINATION_OPTIONS, options + upper), 1, 0)
        forms["a fragment of one"] = (ip(FRAGMENT, bytes((UDP, 0)) + bytes(6) + upper), 1, 0)
    return forms


@VERSIONS
def test_each_malformed_super_packet_is_dropped_and_counted_and_the_next_good_one_arrives(
    project: Project, client: Client, real: Pod, version: int
) -> None:
    session = client.call(real.ipv4)
    before = drops(project, "packet_malformed")
    forms = malformed(client, real, version)
    with application(real, version) as program:
        for name, form in forms.items():
            client.send(session, PACKET, *form)
            after = super_packet(real, client, name.encode("ascii"), version)
            client.send(session, PACKET, after, UNFINISHED)
            assert program.recv(1 << 16) == name.encode("ascii")
    assert drops(project, "packet_malformed") == before + len(forms)


def test_the_pod_drops_what_the_client_would_and_nothing_else(
    project: Project, client: Client, real: Pod
) -> None:
    """Of super-packets made at random: two readings of section 8 agree on each batch."""
    session = client.call(real.ipv4)
    chance = random.Random(8)
    base = drops(project, "packet_malformed")
    with application(real) as program:
        for batch in range(4):
            refused = 0
            for _ in range(100):
                form = anything(chance, client, real)
                try:
                    packets_of(*form, client.mtu)
                except Dropped:
                    refused += 1
                client.send(session, PACKET, *form)
            assert 0 < refused < 100
            base += refused
            last = b"the last of batch %d" % batch
            client.send(session, PACKET, packet_to(real, client, last))
            while program.recv(1 << 16) != last:
                pass
            assert drops(project, "packet_malformed") == base


def anything(chance: random.Random, client: Client, pod: Pod) -> Form:
    """Make a PACKET of about a super-packet's form, from the client's address and whole."""
    version = chance.choice((4, 6))
    ends = (address(client, version), pod.ipv4 if version == 4 else pod.ipv6)
    here, there = (ip_address(end).packed for end in ends)
    options = bytes((1,)) * 4 * chance.randrange(10)
    flow = Connection(here, there, chance.choice((TCP, UDP)), (PORT, PORT + 1), options)
    payload = bytes(chance.choice((0, 1, 2, 100, 1000, 3000, 9000)))
    body = bytearray(unfinished(flow.packet(payload, flags=chance.randrange(256))))
    steers = {0, 2, 3, *range(12, 20)} if version == 4 else {0, 4, 5, *range(8, 40)}
    for at in chance.sample(range(min(len(body), 60)), chance.choice((0, 0, 1, 2))):
        if at not in steers:
            body[at] = chance.randrange(256)
    sizes = (0, 1, 10, 100, 1000, client.mtu - 60, client.mtu - 40, client.mtu - 28, 3000)
    return bytes(body), chance.choice((1, 1, 1, 1, 1, 1, 0, 2, 129)), chance.choice(sizes)
