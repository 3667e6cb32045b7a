"""How the net agent and the daemon end each other, and what stands afterwards."""

import os
import signal
from collections.abc import Callable

import pytest
from support.agent import Agent
from support.netagent import (
    SETTINGS,
    Pair,
    inside,
    run,
    state,
    table_126,
)

from proxy.netagent.drivers import apply
from proxy.netagent.plan import plan

STAYS = (
    ": traffic to and from members stays refused, until `tencrypt run` starts again or "
    "`tencrypt net down` lifts this\n"
)


def lift(pair: Pair) -> None:
    with inside(pair.a):
        apply.tear_down()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_daemon_and_leaves_members_refused(
    pair: Pair, agent: Callable[[str], Agent], number: signal.Signals
) -> None:
    before = state(pair.a)
    running = agent("wait")
    running.daemon()
    protected = state(pair.a)
    assert protected != before
    # To the whole group, as a terminal does: the daemon must not meet it unprepared.
    os.killpg(running.process.pid, number)
    assert running.end() == (0, "ended b'stop'\n", f"tencrypt: stopped{STAYS}")
    assert state(pair.a) == protected
    lift(pair)
    assert state(pair.a) == before


def test_what_was_never_ready_is_undone_and_a_second_signal_does_not_cut_that_short(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    before = state(pair.a)
    running = agent("impatient")
    running.daemon()
    running.process.terminate()
    assert running.end() == (0, "ended b'stop'\n", "")
    assert state(pair.a) == before


def test_a_killed_daemon_leaves_members_refused_until_that_is_lifted(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    before = state(pair.a)
    running = agent("wait")
    pid = running.daemon()
    protected = state(pair.a)
    os.kill(pid, signal.SIGKILL)
    code, _, said = running.end()
    assert code == 1
    assert said.startswith("tencrypt: the daemon ended with signal 9 (Killed): traffic to and from")
    assert said.count("\n") == 1
    assert state(pair.a) == protected

    again = agent("wait")
    again.daemon()
    again.process.terminate()
    assert again.end()[0] == 0
    assert state(pair.a) == protected
    lift(pair)
    assert state(pair.a) == before


def test_a_killed_agent_ends_the_daemon_and_leaves_members_refused(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    running = agent("wait")
    running.daemon()
    running.process.kill()
    assert running.daemon_ends()
    assert running.end()[:2] == (-signal.SIGKILL, "ended b''\n")
    with inside(pair.a):
        assert len(table_126()) == 4
        assert "refused_arriving" in run("nft", "list", "ruleset")


@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_daemon_that_refuses_its_first_start_leaves_nothing_half_set_up(
    pair: Pair, agent: Callable[[str], Agent], code: int
) -> None:
    before = state(pair.a)
    assert agent(f"fail-{code}").end() == (code, "", "")
    assert state(pair.a) == before


def test_a_daemon_that_refuses_a_later_start_leaves_members_refused(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    with inside(pair.a):
        apply.set_up(plan(SETTINGS))
    before = state(pair.a)
    code, _, said = agent("fail-3").end()
    assert (code, said.split(":")[1]) == (1, " the daemon ended with exit code 3")
    assert state(pair.a) == before


def test_a_daemon_that_does_not_end_does_not_hold_up_the_end(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    running = agent("stuck")
    pid = running.daemon()
    running.process.terminate()
    running.process.wait(20)
    os.kill(pid, signal.SIGKILL)
    code, _, said = running.end()
    assert (code, said) == (1, f"tencrypt: the daemon (PID {pid}) did not end in 0 s{STAYS}")
    with inside(pair.a):
        assert len(table_126()) == 4


def test_a_second_agent_is_refused_and_disturbs_nothing(
    pair: Pair, agent: Callable[[str], Agent]
) -> None:
    first = agent("wait")
    first.daemon()
    before = state(pair.a)
    second = "tencrypt: tenc0 is in use: Tencrypt already runs in this network namespace\n"
    assert agent("wait").end() == (1, "", second)
    assert state(pair.a) == before
    first.process.terminate()
    assert first.end()[0] == 0
