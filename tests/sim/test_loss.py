"""Super-packets on paths that lose: records shrink where that helps, and grow again."""

from collections.abc import Callable
from ipaddress import ip_address
from struct import pack

import pytest
from sim.world import Weather, World, udp_packet
from support.pki import Authority, Leaf
from support.segmentation import TCP, UDP, Connection

from proxy.packet.segments import split
from proxy.packet.transport import find_transport
from proxy.session.record_limit import CALM, LONGEST_CALM
from proxy.session.wire import MOST_DATAGRAMS, RECORD

A, B = "10.0.0.1", "10.0.0.2"
PACKED_A, PACKED_B = ip_address(A).packed, ip_address(B).packed
MSS = 1368
SEGMENTS = 40


class Bulk:
    """Node a sends super-packets to b; what arrives is counted in segments."""

    def __init__(self, authority: Authority, seed: int = 1) -> None:
        self.world = World(seed)
        self.a = self.world.join(authority.issue(Leaf(pod="a", addresses=(A,))))
        self.b = self.world.join(authority.issue(Leaf(pod="b", addresses=(B,))))
        self.a.send_packet(udp_packet(A, B, b"first"))
        self.world.run(1)
        self.flow = Connection(PACKED_A, PACKED_B, UDP)

    @property
    def most(self) -> int:
        return self.a.table.current[PACKED_B].limit.most

    def send(self, seconds: float, pace: float = 0.01) -> float:
        """Send one each ``pace`` seconds for a while; the share of segments that arrived."""
        self.b.received.clear()
        packet = self.flow.packet(bytes(MSS * SEGMENTS))
        count = round(seconds / pace)
        for _ in range(count):
            self.a.send_frame(pack("=BBHHHH", 1, 5, 0, MSS, 20, 6) + packet)
            self.world.run(pace)
        arrived = sum(-(-(len(one) - 28) // MSS) for one in self.b.received)
        return arrived / (count * SEGMENTS)

    def lose(self, is_lost: Callable[[bytes], bool]) -> None:
        self.world.tamper = lambda data, source, _to: (
            [] if source == A and data[0] >= RECORD and is_lost(data) else [data]
        )


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def bulk(authority: Authority) -> Bulk:
    return Bulk(authority)


def test_path_that_loses_nothing_carries_whole_super_packets(bulk: Bulk) -> None:
    assert bulk.send(1) == 1.0
    assert bulk.most == MOST_DATAGRAMS
    assert bulk.a.table.current[PACKED_B].packets_out == 100 * SEGMENTS + 1
    assert bulk.b.table.current[PACKED_A].packets_in == 100 * SEGMENTS + 1


def test_path_that_carries_no_record_of_several_datagrams_gets_single_ones(bulk: Bulk) -> None:
    """As behind a driver that breaks UDP_SEGMENT or UDP_GRO; within half a second of traffic."""
    bulk.lose(lambda data: data[0] > RECORD)
    bulk.send(0.5)
    assert bulk.most == 1
    assert bulk.send(1) == 1.0


def test_path_that_was_broken_is_tried_again_less_and_less_often(bulk: Bulk) -> None:
    bulk.lose(lambda data: data[0] > RECORD)
    bulk.send(0.5)
    first = bulk.send(3 * CALM, 0.1)
    later = bulk.send(20 * CALM, 0.1)
    assert first < later
    assert later > 0.95
    bulk.lose(lambda _data: False)
    bulk.world.run(LONGEST_CALM)
    for _ in range(8):
        bulk.send(1)
        bulk.world.run(CALM)
    assert bulk.most == MOST_DATAGRAMS
    assert bulk.send(1) == 1.0


@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_records_shrink_until_a_lost_datagram_costs_little(bulk: Bulk, loss: float) -> None:
    draw = bulk.world.random
    bulk.lose(lambda _data: draw.random() < loss)
    bulk.send(5)
    assert bulk.most <= 4
    # One segment for each lost datagram would be the best that can be.
    assert bulk.send(5) > 1 - 4 * loss


def test_full_queue_makes_no_small_records(bulk: Bulk) -> None:
    """Whole records that are missing tell of a receiver that is too slow: smaller ones only cost it more."""
    draw = bulk.world.random
    lost: dict[bytes, bool] = {}
    bulk.lose(lambda data: lost.setdefault(data[8:16], draw.random() < 0.3))
    bulk.send(5)
    assert bulk.most == MOST_DATAGRAMS


def test_counts_of_a_stranger_change_nothing(bulk: Bulk) -> None:
    """Counts come sealed; a PONG that answers no question is not heard either."""
    session = bulk.a.table.current[PACKED_B]
    session.limit.answered(b"12345678", 0, 1 << 31, bulk.world.now)
    session.limit.answered(b"", 0, 1 << 31, bulk.world.now)
    assert bulk.most == MOST_DATAGRAMS


def test_super_packet_that_waited_for_its_session_arrives(authority: Authority) -> None:
    world = World(1)
    a = world.join(authority.issue(Leaf(pod="a", addresses=(A,))))
    b = world.join(authority.issue(Leaf(pod="b", addresses=(B,))))
    packet = Connection(PACKED_A, PACKED_B, TCP).packet(bytes(MSS * 3))
    a.send_frame(pack("=BBHHHH", 1, 1, 0, MSS, 20, 16) + packet)
    world.run(1)
    assert [len(one) for one in b.received] == [len(packet)]
    assert b.frames[0][:10] == pack("=BBHHHH", 1, 1, 40, MSS, 20, 16)


def test_segments_that_the_path_does_not_carry_are_told_to_the_application(bulk: Bulk) -> None:
    bulk.world.mtu = lambda _from, _to: 1300
    for _ in range(4):
        bulk.a.send_packet(udp_packet(A, B, b"x"))
        bulk.world.run(2)
    bulk.send(0.05)
    assert not bulk.b.received[1:]
    (told, *_) = bulk.a.told
    assert told[20:22] == bytes((3, 4))
    room = int.from_bytes(told[26:28], "big")
    packet = bulk.flow.packet(bytes((room - 28) * 10))
    found = find_transport(memoryview(packet))
    assert found is not None
    assert len(list(split(memoryview(packet), found, room - 28, 1))) == 10
    bulk.b.received.clear()
    bulk.a.send_frame(pack("=BBHHHH", 1, 5, 0, room - 28, 20, 6) + packet)
    bulk.world.run(0.1)
    assert len(bulk.b.received) == 1


def test_ipv6_segments_of_1280_bytes_cross_a_path_that_carries_no_more(
    authority: Authority,
) -> None:
    """RFC 8200 5: no application needs to send less, so a super-packet must not be refused for it."""
    world = World(1)
    own, other = ("fd00::1", "fd00::2")
    a = world.join(authority.issue(Leaf(pod="a", addresses=(own,))))
    b = world.join(authority.issue(Leaf(pod="b", addresses=(other,))))
    world.mtu = lambda _from, _to: 1294
    for _ in range(4):
        a.send_packet(udp_packet(own, other, b"x"))
        world.run(2)
    b.received.clear()
    flow = Connection(ip_address(own).packed, ip_address(other).packed, TCP)
    size = 1280 - 60
    a.send_frame(pack("=BBHHHH", 1, 4, 0, size, 40, 16) + flow.packet(bytes(size * 10)))
    world.run(0.5)
    assert [len(one) for one in b.received] == [1280] * 10
    assert not a.told


def test_super_packet_of_more_segments_than_a_receiver_takes_is_cut(bulk: Bulk) -> None:
    bulk.b.received.clear()
    packet = bulk.flow.packet(bytes(300))
    bulk.a.send_frame(pack("=BBHHHH", 1, 5, 0, 1, 20, 6) + packet)
    bulk.world.run(0.1)
    assert [len(one) - 28 for one in bulk.b.received] == [128, 128, 44]


def test_tcp_behind_extension_headers_arrives_packet_by_packet(authority: Authority) -> None:
    """IPV6_DSTOPTS on a TCP socket: tenc0 puts such segments together too."""
    world = World(1)
    own, other = ("fd00::1", "fd00::2")
    a = world.join(authority.issue(Leaf(pod="a", addresses=(own,))))
    b = world.join(authority.issue(Leaf(pod="b", addresses=(other,))))
    flow = Connection(ip_address(own).packed, ip_address(other).packed, TCP)
    options = bytes((TCP, 0, 1, 4, 0, 0, 0, 0))

    def behind_options(packet: bytes) -> bytes:
        length = (len(packet) - 40 + len(options)).to_bytes(2, "big")
        return packet[:4] + length + b"\x3c" + packet[7:40] + options + packet[40:]

    payload = bytes(range(250)) * 12
    whole = behind_options(flow.packet(payload))
    a.send_frame(pack("=BBHHHH", 1, 4, 0, 1000, 48, 16) + whole)
    world.run(1)
    a.send_frame(pack("=BBHHHH", 1, 4, 0, 1000, 48, 16) + whole)
    world.run(1)
    expected = [behind_options(one) for one in flow.segments(payload, 1000)]
    assert b.received == expected * 2
    assert not a.drops


def test_records_that_arrive_spoilt_count_as_lost(bulk: Bulk) -> None:
    """As behind a device that corrupts what it cuts."""
    draw = bulk.world.random
    bulk.world.tamper = lambda data, source, _to: (
        [data[:-1] + bytes((data[-1] ^ 1,))]
        if source == A and data[0] > RECORD and data[1] == 1 and draw.random() < 0.3
        else [data]
    )
    bulk.send(5)
    assert bulk.most <= 2


def test_who_drops_the_answers_does_not_hide_what_is_lost(bulk: Bulk) -> None:
    bulk.world.tamper = lambda data, source, _to: (
        [] if (source == B and data[0] >= RECORD) or (data[0] > RECORD and data[1] == 5) else [data]
    )
    bulk.send(15)
    assert bulk.most <= 2


def test_answer_that_takes_long_is_heard(bulk: Bulk) -> None:
    bulk.world.weather = Weather(delay=0.2)
    bulk.lose(lambda data: data[0] > RECORD)
    bulk.send(3)
    assert bulk.most == 1


def test_new_session_over_a_broken_path_does_not_begin_anew(bulk: Bulk) -> None:
    bulk.lose(lambda data: data[0] > RECORD)
    bulk.send(0.5)
    former = bulk.a.table.current[PACKED_B]
    bulk.a.table.renew(bulk.world.now)
    bulk.a.settle()
    bulk.world.run(0.5)
    assert bulk.a.table.current[PACKED_B] is not former
    assert bulk.most == 1
    assert bulk.send(1) == 1.0
