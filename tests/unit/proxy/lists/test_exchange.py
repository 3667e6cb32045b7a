"""A pod among peers that tell the truth, lie, stall or vanish; sessions are stand-ins, the clock is turned by hand."""

from collections.abc import Callable
from typing import cast

import pytest
from support.list_peers import LIST, NEW, OLD, Line, Peer, Pod, honest

from ca.lists import LARGEST_ENVELOPE
from proxy.drops import Drop
from proxy.lists.exchange import (
    ANSWERS,
    LAG,
    MOST_REMEMBERED,
    PATIENCE,
    PUT_OFF,
    TELL_PACE,
    TOLD_AT_ONCE,
)
from proxy.lists.fetch import ASK_AGAIN, LONGEST, TRIES
from proxy.lists.messages import LARGEST_PIECE, Ask, Message, Part, Version
from proxy.session.session import Session


@pytest.fixture
def pod() -> Pod:
    return Pod()


def test_peer_is_told_what_we_have_when_its_session_opens(pod: Pod) -> None:
    pod.session("a")
    assert pod.table.sent == []
    pod.adopt(NEW)
    b = pod.session("b")
    assert pod.table.sent == [(cast("Line", b), Version(NEW))]


def test_new_version_is_told_to_each_peer_once_and_thousands_not_in_one_go(pod: Pod) -> None:
    count = 3 * TOLD_AT_ONCE
    for n in range(count):
        pod.session(f"p{n}")
    pod.adopt(NEW)
    pod.run(0)
    assert len(pod.table.sent) == TOLD_AT_ONCE
    pod.run(3 * TELL_PACE)
    assert len({line.index for line, _ in pod.table.sent}) == len(pod.table.sent) == count
    assert pod.exchange.next_timer() is None


def test_later_signature_is_told_only_when_it_is_much_later(pod: Pod) -> None:
    pod.session("a")
    for issued, told in ((200, 1), (200 + LAG - 1, 1), (200 + LAG, 2)):
        pod.adopt((2, issued))
        pod.run(1)
        assert len(pod.table.sent) == told


def test_newer_list_is_fetched_whole_and_told_on_to_all(pod: Pod) -> None:
    pod.adopt(OLD, b"old")
    a = pod.session("a")
    pod.session("b")
    pod.run(1)
    pod.table.log.clear()
    pod.hear(a, Version(NEW))
    pod.run(PATIENCE + 0.1, honest)
    assert pod.offered == [LIST]
    told = [line.peer.pod for line, message in pod.table.log if message == Version(NEW)]
    assert told == ["a", "b"]
    pod.hear(a, Ask(NEW, 0))
    assert pod.table.log[-1][1] == Part(NEW, 0, len(LIST), LIST[:LARGEST_PIECE])


def test_ca_that_answers_first_spares_the_peer(pod: Pod) -> None:
    a = pod.session("a")
    pod.hear(a, Version(NEW))
    pod.run(PATIENCE / 2)
    pod.adopt(NEW)
    pod.run(10)
    assert pod.asked() == []


def test_older_and_equal_versions_are_not_fetched_and_the_older_is_answered(pod: Pod) -> None:
    pod.adopt(NEW)
    a = pod.session("a")
    pod.table.sent.clear()
    for age in (NEW, (2, 200 + LAG - 1), (2, 0)):
        pod.hear(a, Version(age))
    assert pod.table.sent == []
    pod.hear(a, Version(OLD))
    pod.run(10)
    assert pod.table.sent == [(cast("Line", a), Version(NEW))]


def test_much_later_signature_of_the_same_version_is_fetched(pod: Pod) -> None:
    pod.adopt(NEW, b"old")
    pod.genuine = (2, 200 + LAG)
    pod.hear(pod.session("a"), Version(pod.genuine))
    pod.run(PATIENCE, honest)
    assert pod.offered == [LIST]


def test_lost_question_is_repeated_and_then_given_up(pod: Pod) -> None:
    pod.hear(pod.session("a"), Version(NEW))
    pod.run(PATIENCE + TRIES * ASK_AGAIN + 1)
    assert pod.asked() == [("a", Ask(NEW, 0))] * TRIES
    assert pod.drops[Drop.ROSTER] == 1
    assert pod.exchange.next_timer() is None


def test_peer_that_stalls_is_left_for_the_next_and_put_off_whatever_sessions_it_opens(
    pod: Pod,
) -> None:
    pod.hear(pod.session("liar"), Version((1 << 63, 0)))
    pod.hear(pod.session("b"), Version(NEW))

    def answer(line: Line, ask: Ask) -> Message | None:
        return honest(line, ask) if line.peer.pod == "b" else None

    pod.run(PATIENCE + TRIES * ASK_AGAIN + 0.1, answer)
    assert pod.offered == [LIST]
    pod.hear(pod.session("liar"), Version((1 << 63, 0)))
    pod.run(PUT_OFF - 10)
    assert pod.asked() == []
    pod.run(10)
    pod.hear(pod.session("liar"), Version((1 << 63, 0)))
    pod.run(PATIENCE)
    assert [who for who, _ in pod.asked()] == ["liar"]


def test_peer_that_sends_slowly_is_given_up_after_a_minute(pod: Pod) -> None:
    pod.hear(pod.session("slow"), Version(NEW))
    pod.run(PATIENCE)
    began = pod.now
    session = cast("Session", pod.table.sent[0][0])
    while pod.exchange.next_timer() is not None and pod.now < began + 2 * LONGEST:
        _, ask = pod.asked()[-1]
        pod.run(ASK_AGAIN * (TRIES - 1) + 0.5)
        pod.hear(session, Part(NEW, ask.offset, LARGEST_ENVELOPE, bytes(LARGEST_PIECE)))
    assert pod.now - began <= LONGEST + ASK_AGAIN * TRIES
    assert pod.drops[Drop.ROSTER] == 1


LIES: dict[str, Callable[[Line, Ask], Message]] = {
    "noise": lambda _, ask: Part(ask.age, ask.offset, 4, b"list"),
    "too large": lambda _, ask: Part(
        ask.age, ask.offset, LARGEST_ENVELOPE + 1, bytes(LARGEST_PIECE)
    ),
    "small pieces": lambda _, ask: Part(ask.age, ask.offset, 5000, b"x"),
    "other sizes": lambda _, ask: Part(
        ask.age, ask.offset, 9000 + ask.offset, bytes(LARGEST_PIECE)
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_liar_is_asked_once_and_the_list_in_use_stays(
    pod: Pod, lie: Callable[[Line, Ask], Message]
) -> None:
    pod.adopt(OLD, b"ours")
    liar = pod.session("liar")
    for _ in range(5):
        pod.hear(liar, Version(NEW))
        pod.run(PATIENCE + 10, lie)
    assert len(pod.offered) <= 1
    assert pod.drops[Drop.ROSTER] == 1
    pod.table.sent.clear()
    pod.hear(liar, Ask(OLD, 0))
    assert pod.table.sent[-1][1] == Part(OLD, 0, 4, b"ours")


def test_list_that_is_larger_than_any_is_not_fetched(pod: Pod) -> None:
    pod.hear(pod.session("liar"), Version(NEW))
    pod.run(PATIENCE + 1, LIES["too large"])
    asks = [message for _, message in pod.table.log if isinstance(message, Ask)]
    assert asks == [Ask(NEW, 0)]
    assert pod.drops[Drop.ROSTER] == 1


def test_peer_that_sends_an_older_list_than_it_told_of_is_put_off(pod: Pod) -> None:
    pod.hear(pod.session("liar"), Version((9, 9)))
    pod.run(PATIENCE + 1, honest)
    assert pod.offered == [LIST]
    assert pod.drops[Drop.ROSTER] == 1


def test_pieces_that_nobody_asked_for_change_nothing(pod: Pod) -> None:
    a, b = pod.session("a"), pod.session("b")
    part = Part(NEW, 0, len(LIST), LIST[:LARGEST_PIECE])
    pod.hear(a, part)
    assert pod.exchange.next_timer() is None
    pod.hear(a, Version(NEW))
    pod.run(PATIENCE)
    pod.hear(b, part)
    pod.hear(a, Part(OLD, 0, len(LIST), LIST[:LARGEST_PIECE]))
    pod.hear(a, Part(NEW, LARGEST_PIECE, len(LIST), LIST[LARGEST_PIECE : 2 * LARGEST_PIECE]))
    assert pod.asked() == [("a", Ask(NEW, 0))]
    pod.hear(a, part)
    pod.hear(a, part)
    assert pod.asked() == [("a", Ask(NEW, 0)), ("a", Ask(NEW, LARGEST_PIECE))]
    assert not pod.drops


def test_list_that_changes_on_the_way_is_begun_anew(pod: Pod) -> None:
    a = pod.session("a")
    pod.hear(a, Version(OLD))
    changed: list[bool] = []

    def answer(line: Line, ask: Ask) -> Message:
        if ask.age == OLD and ask.offset:
            changed.append(True)
            return Version(NEW)
        return honest(line, ask)

    pod.run(PATIENCE, answer)
    assert changed == [True]
    assert pod.offered == [LIST]
    assert not pod.drops


def test_peer_that_always_has_another_list_is_given_up(pod: Pod) -> None:
    pod.hear(pod.session("liar"), Version(NEW))
    pod.run(PATIENCE + 10, lambda _, ask: Version((ask.age[0] + 1, 0)))
    assert pod.drops[Drop.ROSTER] == 1
    assert pod.exchange.next_timer() is None


def test_session_that_ends_meanwhile_is_no_fault_of_its_peer(pod: Pod) -> None:
    a = pod.session("a")
    pod.hear(a, Version(NEW))
    pod.run(PATIENCE)
    pod.table.sessions.clear()
    pod.run(10)
    assert not pod.drops
    pod.table.sessions[9] = Line(9, Peer("a"))
    pod.hear(cast("Session", pod.table.sessions[9]), Version(NEW))
    pod.run(PATIENCE + 1, honest)
    assert pod.offered == [LIST]


def test_questions_of_one_pod_are_answered_at_a_pace_whatever_sessions_it_opens(pod: Pod) -> None:
    pod.adopt(NEW)
    greedy = [pod.session("greedy") for _ in range(4)]
    modest = pod.session("modest")
    pod.table.sent.clear()
    for n in range(400):
        pod.hear(greedy[n % 4], Ask(NEW, 0))
    assert len(pod.table.sent) == ANSWERS[0]
    pod.hear(modest, Ask(NEW, 0))
    assert len(pod.table.sent) == ANSWERS[0] + 1
    pod.now += 1
    for n in range(400):
        pod.hear(greedy[n % 4], Version(OLD))
    assert len(pod.table.sent) == ANSWERS[0] + 1 + ANSWERS[1]


def test_question_beyond_the_end_or_without_a_list_is_not_answered(pod: Pod) -> None:
    a = pod.session("a")
    pod.hear(a, Ask(NEW, 0))
    pod.adopt(NEW)
    pod.hear(a, Ask(NEW, len(LIST)))
    pod.run(0)
    assert [message for _, message in pod.table.sent] == [Version(NEW)]  # told, as all are


def test_malformed_body_is_counted(pod: Pod) -> None:
    pod.exchange.heard(pod.session("a"), b"\7", pod.now)
    assert pod.drops == {Drop.PACKET_MALFORMED: 1}


def test_claims_are_remembered_up_to_a_bound(pod: Pod) -> None:
    sessions = [pod.session(f"p{n}") for n in range(MOST_REMEMBERED + 10)]
    for session in sessions:
        pod.hear(session, Version(NEW))
        pod.hear(session, Version(NEW))
    assert len(pod.exchange._claims) == MOST_REMEMBERED
