"""Records in pieces of any size between a client and a real pod, and what both say of losses."""

import random
import socket
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from independent import records as records_module
from independent.client import Client, Session
from independent.records import Sealer
from independent.talk import (
    PORT,
    UDP_SEGMENT,
    address,
    application,
    counts,
    drops,
    heard,
    packet_to,
    pieces,
)
from independent.wire import PACKET, PONG, RECORD_HEADER, Record, parse
from support.namespaces import Pod
from support.project import Project

SEALED: Final = 4 + 28 + 16  # what a record adds to a UDP payload's length
MESSAGE: Final = random.Random(5).randbytes(60_000)


def records(datagrams: list[bytes]) -> list[Record]:
    return [record for record in map(parse, datagrams) if isinstance(record, Record)]


def is_first_of_several(datagram: bytes) -> bool:
    return any(record.count > 1 and record.segment == 0 for record in records([datagram]))


def losing(k: int) -> Callable[[list[bytes]], list[bytes]]:
    """Lose the k-th of the datagrams that leave."""
    return lambda datagrams: datagrams[:k] + datagrams[k + 1 :]


@pytest.fixture
def patient(client: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Give a client that loses no record because the machine is busy, but what a test loses."""
    monkeypatch.setattr(records_module, "REASSEMBLY_SECONDS", 60.0)
    return client


def bulk(client: Client, program: socket.socket) -> Iterator[int]:
    """Let a program send super-packets again and again; largest number of datagrams a record.

    Serves the client after each.
    """
    program.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
    takes, seen = client.takes, [1]

    def takes_and_tells(data: bytes) -> bool:
        seen.extend(record.count for record in records([data]))
        return takes(data)

    client.takes = takes_and_tells
    for _ in range(400):
        program.sendto(MESSAGE, (address(client), PORT))
        client.listen(0.03)
        yield max(seen)
        seen[1:] = []


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("piece", [953, 952, 477, 476, 311, 319, 150, 16])
def test_pieces_of_any_size_make_the_record(
    client: Client, real: Pod, piece: int, order: int
) -> None:
    session = client.call(real.ipv4)
    said = random.Random(piece).randbytes(954 - SEALED)
    client.size, client.arrange = piece + RECORD_HEADER, lambda datagrams: datagrams[::order]
    with application(real) as program:
        sent = records(client.send(session, PACKET, packet_to(real, client, said)))
        assert program.recv(2000) == said
    assert {len(record.piece) for record in sent[:-1]} == {piece}
    assert 0 < len(sent[-1].piece) <= piece


def test_pieces_of_another_size_than_the_first_ones_are_not_taken(
    project: Project, client: Client, real: Pod
) -> None:
    """One record sealed twice in different pieces, which the header does not tell apart."""
    session = client.call(real.ipv4)
    said = random.Random(6).randbytes(954 - SEALED)
    packet = packet_to(real, client, said)
    twin = Sealer(session.sealer.keys, session.sealer.index, session.sealer.counter)
    of_476 = session.sealer.seal(PACKET, packet, 476 + RECORD_HEADER)
    of_400 = twin.seal(PACKET, packet, 400 + RECORD_HEADER)
    assert {len(of_476), len(of_400)} == {3}
    before = drops(project, "reassembly")
    with application(real) as program:
        client.transmit([of_476[0], *of_400[1:], *of_476[1:]], session.endpoint)
        assert program.recv(2000) == said
    assert drops(project, "reassembly") == before + 2


def test_a_pong_counts_records_that_opened_and_those_given_up(client: Client, real: Pod) -> None:
    session = client.call(real.ipv4)
    packet = packet_to(real, client, bytes(3000))
    for _ in range(3):
        client.send(session, PACKET, packet)
    client.send(session, PACKET, packet_to(real, client, b"in one datagram"))
    assert counts(client, session) == (3, 0)
    for lost in (0, 1, 2):
        client.arrange = losing(lost)
        client.send(session, PACKET, packet)
        client.arrange = list
        for _ in range(40):
            client.listen(0.05)
            if counts(client, session)[1] == lost + 1:
                break
        assert counts(client, session) == (3, lost + 1)
    client.send(session, PACKET, packet)
    assert counts(client, session) == (4, 3)


def test_a_pod_none_of_whose_large_records_open_sends_one_datagram_a_record(
    client: Client, real: Pod
) -> None:
    client.takes = lambda data: not is_first_of_several(data)
    session = client.call(real.ipv4)
    with application(real) as program:
        largest = []
        for count in bulk(client, program):
            largest.append(count)
            if count == 1 and heard(session)[-60:] == pieces(MESSAGE, 1000):
                break
    assert largest[0] > 40
    assert largest[-1] == 1
    assert {size for _, size in session.prefixes} == {0}


def test_a_pod_that_loses_some_large_records_halves_them(patient: Client, real: Pod) -> None:
    client, lost = patient, 0

    def loses_each_fifth(data: bytes) -> bool:
        nonlocal lost
        lost += is_first_of_several(data)
        return not is_first_of_several(data) or lost % 5 != 0

    client.takes = loses_each_fifth
    client.call(real.ipv4)
    with application(real) as program:
        largest = []
        for count in bulk(client, program):
            largest.append(count)
            if count <= 8:
                break
    assert list(dict.fromkeys(largest)) == [largest[0], 32, 16, 8]
    assert largest[0] > 40


def test_a_pong_of_eight_bytes_tells_the_pod_nothing_of_loss(
    client: Client, real: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    def briefly(session: Session, asked: bytes, source: tuple[str, int]) -> None:
        client.transmit(session.sealer.seal(PONG, asked), source)

    monkeypatch.setattr(client, "_pong", briefly)
    client.takes = lambda data: not is_first_of_several(data)
    session = client.call(real.ipv4)
    with application(real) as program:
        for count in bulk(client, program):
            assert count > 40
            if len(session.pings) > 8:
                return
    pytest.fail("the pod does not ask")
