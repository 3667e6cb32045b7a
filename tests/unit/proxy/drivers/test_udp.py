"""The session port's sockets on loopback: each kind of datagram has its own, and they answer as one."""

import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from proxy.drivers import clock
from proxy.drivers.udp import Lane, SessionSocket
from proxy.session.wire import FLIGHT, HELLO, HINT, RECORD, RETRY

RECORDS, HANDSHAKES, HELLOS = range(3)


@pytest.fixture(params=["127.0.0.1", "::1"])
def session(request: pytest.FixtureRequest) -> Iterator[SessionSocket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = SessionSocket(ip_address(request.param), port)
    yield made
    made.close()


@pytest.fixture
def peer(session: SessionSocket) -> Iterator[socket.socket]:
    own = session.lanes[0].socket
    with socket.socket(own.family, socket.SOCK_DGRAM) as made:
        made.bind((own.getsockname()[0], 0))
        made.connect(own.getsockname())
        made.settimeout(5)
        yield made


def arrived(session: SessionSocket) -> tuple[int, bytes, int]:
    """Return the lane, bytes and ECN field of the next datagram."""
    ready, _, _ = select.select(session.lanes, [], [], 5)
    (lane,) = ready
    assert isinstance(lane, Lane)
    buffer = memoryview(bytearray(2000))
    received = lane.receive(buffer)
    assert received is not None
    size, _, _, ecn = received
    assert lane.receive(buffer) is None
    return session.lanes.index(lane), bytes(buffer[:size]), ecn


@pytest.mark.parametrize(
    ("kind", "lane"),
    [
        (0, HANDSHAKES),
        (HELLO, HELLOS),
        (RETRY, HANDSHAKES),
        (FLIGHT, HANDSHAKES),
        (HINT, HANDSHAKES),
        (127, HANDSHAKES),
        (RECORD, RECORDS),
        (RECORD + 63, RECORDS),
        (255, RECORDS),
    ],
)
def test_each_kind_waits_in_its_own_queue(
    session: SessionSocket, peer: socket.socket, kind: int, lane: int
) -> None:
    for payload in (bytes((kind,)), bytes((kind,)) * 1200):
        peer.send(payload)
        assert arrived(session) == (lane, payload, 0)


def test_empty_datagram_stops_nothing(session: SessionSocket, peer: socket.socket) -> None:
    peer.send(b"")
    assert arrived(session)[1:] == (b"", 0)
    peer.send(bytes((RECORD,)))
    assert arrived(session)[0] == RECORDS


def test_flood_of_hellos_leaves_room_for_records_and_handshakes(
    session: SessionSocket, peer: socket.socket
) -> None:
    for _ in range(50_000):  # many times what any receive buffer holds
        peer.send(bytes((HELLO,)) * 1200)
    peer.send(bytes((RECORD,)))
    peer.send(bytes((FLIGHT,)))
    ready, _, _ = select.select(session.lanes, [], [], 5)
    assert [session.lanes.index(lane) for lane in ready] == [RECORDS, HANDSHAKES, HELLOS]


def test_all_that_is_sent_comes_from_the_session_port(
    session: SessionSocket, peer: socket.socket
) -> None:
    for ecn in range(4):
        assert session.send(b"answer", 6, peer.getsockname()[:2], ecn)
        data, source = peer.recvfrom(100)
        assert (data, source) == (b"answer", peer.getpeername())


def test_ecn_field_is_read_and_written(session: SessionSocket) -> None:
    own = session.lanes[0].socket.getsockname()[:2]
    for ecn in range(4):
        assert session.send(bytes((RECORD, ecn)), 2, own, ecn)
        assert arrived(session) == (RECORDS, bytes((RECORD, ecn)), ecn)


def test_port_that_another_program_has_is_not_shared(session: SessionSocket) -> None:
    host, port = session.lanes[0].socket.getsockname()[:2]
    with (
        socket.socket(session.lanes[0].socket.family, socket.SOCK_DGRAM) as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind((host, port))


def test_datagrams_that_leave_by_one_send_arrive_one_by_one(
    session: SessionSocket, peer: socket.socket
) -> None:
    data = b"".join(bytes((n,)) * 100 for n in range(9)) + b"rest"
    assert session.send(data, 100, peer.getsockname()[:2])
    assert [peer.recv(2000) for _ in range(10)] == [
        data[at : at + 100] for at in range(0, 904, 100)
    ]
    assert session.cuts


def test_send_that_the_kernel_does_not_cut_goes_one_by_one_for_a_minute(
    session: SessionSocket, peer: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device without checksums; here by more datagrams than any kernel cuts at once."""
    now = 1000.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    many, few = bytes(10 * 200), bytes(10 * 3)
    assert session.send(many, 10, peer.getsockname()[:2])
    assert [peer.recv(2000) for _ in range(200)] == [bytes(10)] * 200
    assert not session.cuts
    cuts = []
    for pause in (59, 2):
        now += pause
        assert session.send(few, 10, peer.getsockname()[:2])
        cuts.append(session.cuts)
    assert cuts == [False, True]
    assert [peer.recv(2000) for _ in range(6)] == [bytes(10)] * 6


def test_path_that_takes_no_datagram_says_nothing_about_cutting(session: SessionSocket) -> None:
    family = session.lanes[0].socket.family
    nowhere = "240.0.0.1" if family == socket.AF_INET else "::ffff:240.0.0.1"
    assert not session.send(bytes(100), 10, (nowhere, 9))
    assert session.cuts


@pytest.mark.parametrize("offloads", [{"gso"}, {"gro"}, set()])
def test_offloads_that_were_not_asked_for_are_not_used(offloads: set[str]) -> None:
    made = SessionSocket(ip_address("127.0.0.1"), 0, offloads)
    assert (made.cuts, made.joins) == ("gso" in offloads, "gro" in offloads)
    made.close()
