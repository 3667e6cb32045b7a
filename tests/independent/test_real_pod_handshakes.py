"""Handshakes: how a real pod treats what docs/protocol.md says of HELLO, RETRY and FLIGHT."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from independent.client import Client
from independent.handshake import Answer
from independent.identity import SUITES, Refused
from independent.talk import (
    PORT,
    address,
    application,
    drops,
    echo_over,
    heard,
    logged,
    overheard,
    packet_to,
    serve_until,
    sessions_with,
)
from independent.wire import FIRST_RECORD, FLIGHT, PACKET, PING, RETRY, Flight, Hello, parse
from support.capture import SESSION_PORT
from support.namespaces import Pod
from support.project import Project

MOST = (1 << 63) - 1


def flights(datagrams: list[bytes]) -> list[Flight]:
    parsed = [parse(datagram) for datagram in datagrams]
    return [one for one in parsed if isinstance(one, Flight) and one.data]


@pytest.mark.parametrize("suite", SUITES)
def test_the_callers_suite_is_agreed_and_seals(
    project: Project, client: Client, real: Pod, suite: str
) -> None:
    client.credential = replace(client.credential, suites=[suite])
    session = client.call(real.ipv4)
    echo_over(client, session, real, suite.encode("ascii"))
    assert [seen["cipher"] for seen in sessions_with(project, client)] == [suite]


def test_a_proposal_is_taken_up_to_two_below_2_to_the_63_and_then_counts_as_none(
    client: Client, real: Pod
) -> None:
    for proposed, chosen in ((0, 1), (7, 7), (MOST - 1, MOST - 1), (MOST, 1), (2 * MOST + 1, 1)):
        session = client.call(real.ipv4, proposed)
        assert session.generation == chosen
        client.close(session)


def test_a_newer_session_seals_and_the_older_one_still_opens(client: Client, real: Pod) -> None:
    older = client.call(real.ipv4)
    newer = client.call(real.ipv4, 1)
    assert (older.generation, newer.generation) == (1, 2)
    with application(real) as program:
        program.sendto(b"over the newer", (address(client), PORT))
        client.wait_for("it", lambda: heard(newer) == [b"over the newer"])
        client.send(older, PACKET, packet_to(real, client, b"over the older"))
        assert program.recv(100) == b"over the older"
    assert not older.packets


def test_of_crossing_handshakes_of_one_generation_the_lower_session_id_seals(
    client: Client, real: Pod
) -> None:
    """Each side chooses while it knows the other handshake's session, unconfirmed, proposing 1."""

    def leaves(data: bytes) -> bool:
        roles = {session.initiator for session in client.sessions.values()}
        if data[0] >= FIRST_RECORD:
            return any(s.initiator and s.confirmed for s in client.sessions.values())
        for flight in flights([data]):
            if not flight.generation:  # ours as responder: not before our own call's session stands
                return True in roles
            if flight.responder != bytes(8):  # our Finished: not before the other one's has come
                return False in roles
        return True

    client.arrange = lambda datagrams: [d for d in datagrams if leaves(d)]
    with application(real) as program:
        program.sendto(b"crossing", (address(client), PORT))
        called = client.call(real.ipv4)
        (accepted,) = [s for s in client.sessions.values() if s is not called]
        client.wait_for("its confirmation", lambda: accepted.confirmed)
        assert (called.generation, accepted.generation) == (2, 2)
        lower = min(called, accepted, key=lambda session: session.id)
        program.sendto(b"which one?", (address(client), PORT))
        client.wait_for("it", lambda: b"which one?" in heard(called) + heard(accepted))
    assert b"which one?" in heard(lower)


def test_flights_in_reverse_order_and_doubled_make_a_session(client: Client, real: Pod) -> None:
    client.arrange = lambda datagrams: (datagrams * 2)[::-1]
    session = client.call(real.ipv4)
    client.arrange = list
    echo_over(client, session, real, b"backwards")


def test_a_repeated_last_flight_is_answered_by_done_until_one_arrives(
    client: Client, real: Pod
) -> None:
    lost: list[bytes] = []

    def takes(data: bytes) -> bool:
        if data[0] >= FIRST_RECORD and len(lost) < 3:
            lost.append(data)
            return False
        return True

    client.takes = takes
    echo_over(client, client.call(real.ipv4), real, b"after three lost DONEs")
    assert len(lost) == 3


def test_flights_repeated_after_the_end_begin_nothing(
    project: Project, client: Client, real: Pod
) -> None:
    sent: list[bytes] = []

    def keep(datagrams: list[bytes]) -> list[bytes]:
        sent.extend(datagrams)
        return datagrams

    client.arrange = keep
    session = client.call(real.ipv4)
    client.arrange = list
    answers = overheard(client)
    client.transmit([d for d in sent if d[0] == FLIGHT], session.endpoint)
    echo_over(client, session, real, b"still here")
    assert FLIGHT not in {answer[0] for answer in answers}
    assert len(sessions_with(project, client)) == 1


def test_a_flight_whose_header_differs_is_dropped_whole(client: Client, real: Pod) -> None:
    """Forged copies with bytes of their own come before each piece but the first."""

    def forge(datagrams: list[bytes]) -> list[bytes]:
        forged = []
        for datagram in datagrams:
            for piece in flights([datagram]):
                if piece.offset:
                    noise = replace(piece, data=bytes(len(piece.data)))
                    forged.append(replace(noise, index=piece.index ^ 1).encode())
                    forged.append(replace(noise, generation=piece.generation + 1).encode())
                    forged.append(replace(noise, features=piece.features ^ 1).encode())
                    forged.append(replace(noise, responder=os.urandom(8)).encode())
            forged.append(datagram)
        return forged

    client.arrange = forge
    session = client.call(real.ipv4, seconds=1.0)  # the first attempt is to succeed
    client.arrange = list
    echo_over(client, session, real, b"none of it was believed")


def test_a_flight_with_a_cookie_that_the_pod_did_not_make_is_not_answered(
    client: Client, real: Pod
) -> None:
    answers = overheard(client)
    endpoint = (real.ipv4, SESSION_PORT)
    forged = Flight(1, os.urandom(8), cookie=os.urandom(20), data=bytes(100))
    client.transmit([forged.encode(), Hello(os.urandom(8)).encode()], endpoint)
    client.wait_for("a RETRY", lambda: RETRY in {answer[0] for answer in answers})
    assert [answer[0] for answer in answers] == [RETRY]


def test_what_is_not_of_its_form_is_not_answered(client: Client, real: Pod) -> None:
    hello = Hello(os.urandom(8)).encode()
    wrong = [
        *(hello[:-1], hello + bytes(1), hello[:-1] + b"\1", hello[:4] + b"\1" + hello[5:]),
        Hello(os.urandom(8), newest=3, oldest=2).encode(),
        Hello(os.urandom(8), newest=0, oldest=0).encode(),
        Hello(bytes(8)).encode(),
    ]
    answers = overheard(client)
    client.transmit([*wrong, hello], (real.ipv4, SESSION_PORT))
    client.wait_for("a RETRY", lambda: bool(answers))
    assert [answer[8:16] for answer in answers] == [hello[8:16]]


def test_offers_of_a_later_version_are_bound_and_not_chosen(client: Client, real: Pod) -> None:
    client.offer = Flight(0, bytes(8), newest=9, oldest=0, features=0xFFFF_FFFF)
    echo_over(client, client.call(real.ipv4), real, b"version 1 all the same")


def test_a_choice_of_features_outside_the_offer_is_refused(
    project: Project, client: Client, real: Pod
) -> None:
    client.choice = 4
    before = drops(project, "handshake_mismatch")
    with application(real) as program:
        program.sendto(b"a feature?", (address(client), PORT))
        serve_until(client, "a drop", lambda: drops(project, "handshake_mismatch") > before)
    assert not client.sessions


@pytest.mark.parametrize("chosen", [0, MOST + 1])
def test_a_choice_of_generation_that_is_none_is_refused(
    project: Project, client: Client, real: Pod, monkeypatch: pytest.MonkeyPatch, chosen: int
) -> None:
    monkeypatch.setattr(client, "_generation", lambda *_: chosen)
    before = drops(project, "generation")
    with application(real) as program:
        program.sendto(b"which generation?", (address(client), PORT))
        serve_until(client, "a drop", lambda: drops(project, "generation") > before)
    assert not any(session.confirmed for session in client.sessions.values())


def test_nothing_but_done_confirms_a_session_to_its_caller(
    project: Project, client: Client, real: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ping(answer: Answer) -> list[bytes]:
        return client.sessions[answer.header.index].sealer.seal(PING, b"not DONE")

    monkeypatch.setattr(client, "_done", ping)
    with application(real) as program:
        program.sendto(b"confirmed?", (address(client), PORT))
        states: list[str] = []

        def there() -> bool:
            states[:] = [session["state"] for session in sessions_with(project, client)]
            return bool(states)

        serve_until(client, "the session", there)
        assert states == ["unconfirmed"]
        monkeypatch.undo()
        client.wait_for("DONE", lambda: any(s.confirmed for s in client.sessions.values()))


def test_a_client_of_another_namespace_reads_the_pods_refusal(
    project: Project, outsider: Client, real: Pod
) -> None:
    judge_as_an_insider = replace(outsider.own, project="shop.example/ns/shop")
    outsider.credential = replace(outsider.credential, own=judge_as_an_insider)
    with pytest.raises(Refused, match="alert"):
        outsider.call(real.ipv4, seconds=0.1)
    refused = logged(project, "handshake_refused")
    assert (address(outsider), "foreign_project") in [(e["endpoint"], e["reason"]) for e in refused]


def test_a_pod_that_answers_at_anothers_address_is_refused(
    project: Project, make_client: Callable[[], Client], real: Pod
) -> None:
    client, other = make_client(), make_client()
    client.credential, where = other.credential, address(client)
    with application(real) as program:
        program.sendto(b"who is there?", (where, PORT))
        client.wait_for(
            "the refusal",
            lambda: (
                (where, "address_not_named")
                in [(e["endpoint"], e["reason"]) for e in logged(project, "handshake_refused")]
            ),
        )
    assert not any(session.confirmed for session in client.sessions.values())
