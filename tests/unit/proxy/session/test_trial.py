"""A trial of another address: when it is judged, whatever the clock reads then."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.session.trial import Outcome, Trial

HERE, THERE = b"h" * 8, b"t" * 8
moments = st.floats(0, 1e9)


def trial(now: float, *answers: bytes, preferred: bool = False) -> Trial:
    made = Trial(("10.0.0.9", 15443), HERE, THERE, now, preferred=preferred)
    for answer in answers:
        made.answered(answer)
    return made


@given(moments)
def test_each_trial_is_over_when_its_last_timer_runs(now: float) -> None:
    silent = trial(now)
    assert silent.outcome(silent.judge_at) is Outcome.OPEN
    assert silent.outcome(silent.give_up_at) is Outcome.STAY


@given(moments)
def test_new_address_alone_is_moved_to_at_the_judgement_and_not_before(now: float) -> None:
    new = trial(now, THERE)
    assert new.outcome(new.ask_again_at) is Outcome.OPEN
    assert new.outcome(new.judge_at) is Outcome.MOVE


@given(moments)
def test_old_address_keeps_its_session(now: float) -> None:
    assert trial(now, HERE).outcome(now) is Outcome.STAY
    assert trial(now, THERE, HERE).outcome(now + 0.5) is Outcome.STAY


@given(moments)
def test_preferred_address_wins_as_soon_as_it_answers(now: float) -> None:
    assert trial(now, HERE, preferred=True).outcome(now) is Outcome.OPEN
    assert trial(now, HERE, THERE, preferred=True).outcome(now) is Outcome.MOVE


def test_answer_to_no_question_of_this_trial_says_nothing() -> None:
    assert trial(1.0, b"another ", b"").outcome(1.5) is Outcome.OPEN
