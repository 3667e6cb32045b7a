"""Rules as a user writes them, and what they say, beside a naive reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.identity import PodIdentity
from policy.rules import Decision, Rule, Rules, RulesError, parse_rules

WEB, DB, BATCH = (PodIdentity("shop.example", "shop", name) for name in ("web", "db", "batch"))
TEXT = """\
# who may use the database
[[rule]]
to = "db"
from = ["web", "spiffe://shop.example/ns/shop/sa/batch"]
protocol = "tcp"
ports = [5432, "8000-8100"]

[[rule]]
to = "web"
from = ["*"]
"""


def parse(text: str) -> Rules:
    return parse_rules(text, "rules.toml", "shop.example", "shop")


def mistake(text: str) -> str:
    with pytest.raises(RulesError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_rules_all_of_the_project_may_talk() -> None:
    assert Rules().decide(WEB, DB, 6, 5432) == Decision(allowed=True)
    assert parse("").count == 0


@pytest.mark.parametrize(
    ("source", "port", "allowed"),
    [(WEB, 5432, True), (BATCH, 8050, True), (DB, 5432, False), (DB, 9000, True), (DB, 8101, True)],
)
def test_only_a_destination_that_some_rule_names_is_closed(
    source: PodIdentity,
    port: int,
    allowed: bool,  # noqa: FBT001 - a parameter
) -> None:
    assert parse(TEXT).decide(source, DB, 6, port).allowed is allowed


def test_another_protocol_is_another_destination() -> None:
    assert parse(TEXT).decide(DB, DB, 17, 5432).allowed


def test_a_decision_names_the_line_of_its_rule() -> None:
    rules = parse(TEXT)
    assert (rules.decide(DB, DB, 6, 5432).rule or Rule(0, DB, None, None, None)).line == 2
    assert (rules.decide(DB, WEB, 17, 1).rule or Rule(0, DB, None, None, None)).line == 8
    assert rules.decide(WEB, BATCH, 6, 1).rule is None


NAMES = st.sampled_from([WEB, DB, BATCH])
PORTS = st.lists(
    st.tuples(st.integers(1, 8), st.integers(0, 3)).map(lambda p: (p[0], p[0] + p[1])), min_size=1
)
RULES = st.lists(
    st.builds(
        Rule,
        st.just(None),
        NAMES,
        st.none() | st.frozensets(NAMES),
        st.none() | st.sampled_from([(6,), (17,), (1, 58)]),
        st.none() | PORTS.map(tuple),
    ),
    max_size=6,
)


@given(RULES, NAMES, NAMES, st.sampled_from([6, 17, 1]), st.none() | st.integers(1, 12))
def test_a_decision_is_what_a_naive_reader_says(
    rules: list[Rule],
    source: PodIdentity,
    destination: PodIdentity,
    protocol: int,
    port: int | None,
) -> None:
    about = []
    for rule in rules:
        fits = rule.to == destination
        fits &= rule.protocols is None or protocol in rule.protocols
        fits &= rule.ports is None or any(port in range(a, b + 1) for a, b in rule.ports)
        if fits:
            about.append(rule)
    allowed = not about or any(rule.sources is None or source in rule.sources for rule in about)
    assert Rules(tuple(rules)).decide(source, destination, protocol, port).allowed is allowed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[rule]]\nfrom = ["web"]\n', "rules.toml:1: the rule has no to"),
        ('[[rule]]\nto = "db"\n', "rules.toml:1: the rule has no from"),
        (
            '[[rule]]\nto = "db"\nfrom = ["web"]\nprotocol = "tcp"\nports = [99999]\n',
            "rules.toml:5: ports = [99999]: a port from 1 to 65535, in ranges the lower first",
        ),
        (
            '[[rule]]\nto = "db"\nfrom = ["web"]\nports = [80]\n',
            'rules.toml:4: ports = [80]: needs protocol = "tcp", "udp" or "sctp"',
        ),
        (
            '[[rule]]\nto = "db"\nfrom = ["web"]\nport = 80\n',
            "rules.toml:4: port = 80: not a key of a rule: did you mean ports?",
        ),
        (
            '[[rule]]\nto = "db"\nfrom = "web"\n',
            "rules.toml:3: from = 'web': a list of names, or [\"*\"] for all of the project",
        ),
        (
            '[[rule]]\nto = "spiffe://other.example/ns/shop/sa/db"\nfrom = ["*"]\n',
            "of this project: spiffe://shop.example/ns/shop/sa/...",
        ),
        (
            '[[rule]]\nto = "DB"\nfrom = ["*"]\n',
            "rules.toml:2: to = 'DB': a service account's name",
        ),
        (
            '[[rule]]\nto = "db"\nfrom = ["*"]\nprotocol = "gre"\n',
            "rules.toml:4: protocol = 'gre': tcp, udp, sctp, icmp, or a number from 0 to 255",
        ),
        ("rule = 1\n", "rules.toml: rule: a list of tables"),
        ("rules = []\n", "rules.toml: rules is not known: only [[rule]]"),
        ("[[rule]\n", "rules.toml: not TOML"),
        ('rule = [{to = "db"}]\n', "rules.toml: rule 1: the rule has no from"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(text: str, complaint: str) -> None:
    assert complaint in mistake(text)


def test_more_rules_than_fit_are_refused() -> None:
    assert "1000 at most" in mistake('[[rule]]\nto = "db"\nfrom = []\n' * 1001)
    assert "262144 characters" in mistake("#" * 300_000)
