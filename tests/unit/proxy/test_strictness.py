"""What is said of flows in clear before strict, and of answers that are none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.flow.membership import Kind, Verdict
from proxy.strictness import ClearFlow, advise, draw, parse_flows

MEMBER = Verdict(Kind.MEMBER, "roster", "nginx2")
STRANGER = Verdict(Kind.UNKNOWN, "range", "10.0.0.0/8")
OUT = ClearFlow("spoken", "10.0.0.2", "tcp", 80, 3, 7.0)
IN = ClearFlow("heard", "10.0.0.2", "udp", 53, 1, 0.0)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=20
)


def test_flows_are_read_as_the_agent_writes_them() -> None:
    told = [["spoken", "10.0.0.2", "tcp", 80, 3, 7], ["heard", "10.0.0.2", "udp", 53, 1, 0]]
    assert parse_flows(json.dumps(told)) == [OUT, IN]
    assert parse_flows("[]") == []


@given(JSON)
def test_what_is_no_list_of_flows_is_one_error(value: object) -> None:
    try:
        flows = parse_flows(json.dumps(value))
    except ValueError:
        return
    assert flows == []


@pytest.mark.parametrize(
    ("flow", "verdict", "name", "unpatched", "said"),
    [
        (OUT, MEMBER, "nginx2", None, None),
        (OUT, STRANGER, "", None, 'list it: clear_out = ["10.0.0.2 tcp/80"]'),
        (OUT, STRANGER, "db.shop.svc", None, "tell its endpoints (endpoints_file)"),
        (OUT, STRANGER, "", ["10.0.0.7"], "give its endpoints Tencrypt: 10.0.0.7"),
        (OUT, STRANGER, "", [], None),
        (IN, MEMBER, "nginx2", None, "make it strict first"),
        (IN, STRANGER, "", None, 'list it: clear_in = ["10.0.0.2 udp/53"]'),
    ],
)
def test_each_flow_that_strict_would_refuse_has_an_advice(
    flow: ClearFlow, verdict: Verdict, name: str, unpatched: list[str] | None, said: str | None
) -> None:
    advice = advise(flow, verdict, name, unpatched)
    assert advice is None if said is None else advice is not None and said in advice


@pytest.mark.parametrize(
    "answer", [{}, {"ready": True, "summary": ""}, {"ready": True, "summary": "", "flows": 7}]
)
def test_an_answer_that_is_none_is_an_error(answer: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        draw(answer)
