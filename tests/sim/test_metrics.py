"""What a scrape says of whole nodes: each name and reason, true values, totals that never go backwards."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from sim.nodes import A6, B6, PACKED_B, STRANGE_RECORD, A, B, two
from sim.world import PORT, Node, Weather, World, udp_packet
from support.pki import START, Authority, Leaf

from proxy.credentials.credential import Credential
from proxy.credentials.renewal import Renewal
from proxy.drivers.metrics import Parts, ProxyMetrics, registry
from proxy.drops import Drop
from proxy.session.session import RETIRED_LIFE
from proxy.session.wire import RECORD, Hello

OPERATING = Path(__file__).parents[2] / "docs/operating.md"
OFFSET = START.timestamp()
MOST_SERIES = 250
OFFLOADS = {"tso": True, "uso": False, "gso": True, "gro": True}

Values = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@dataclass
class Certified:
    """A certificate that was issued 100 s after boot for 1,000 s, and how its renewals went."""

    credential: Credential
    renewal: Renewal
    wall_offset: float = OFFSET
    renewals: int = 3
    failures: int = 7


class Scraped:
    """A node that can be scraped."""

    def __init__(self, node: Node) -> None:
        """Watch ``node``, whose sessions and counters are those of now."""
        self.why_not = ""
        now = lambda: node.world.now  # noqa: E731 - read at each scrape
        metrics = ProxyMetrics("1.2.3", node.drops, lambda: self.why_not, now)
        self.metrics, self.registry = metrics, registry(metrics)
        certified = Certified(node.credential, Renewal.begin(100.0, 1000.0, 0.5))
        metrics.parts = Parts(node.table, node.outbound, certified, lambda: OFFLOADS)

    def values(self, name: str) -> Values:
        """Return the samples of a metric by the values of their labels, in the labels' order by name."""
        samples = [s for family in self.registry.collect() for s in family.samples]
        return {
            tuple(value for _, value in sorted(s.labels.items())): s.value
            for s in samples
            if s.name == name
        }

    def value(self, name: str, *labels: str) -> float:
        return self.values(name)[labels]

    def counters(self) -> dict[tuple[str, ...], float]:
        """Return all that must never go backwards, but those of the process."""
        return {
            (s.name, *sorted(s.labels.values())): s.value
            for family in self.registry.collect()
            for s in family.samples
            if s.name.startswith("tencrypt_") and s.name.endswith("_total")
        }


def test_packets_and_bytes_are_counted_both_ways(authority: Authority) -> None:
    world, a, b = two(authority)
    scraped = Scraped(a)
    packets = [udp_packet(A, B, bytes(10)), udp_packet(A6, B6, bytes(1000))]
    for packet in packets:
        a.send_packet(packet)
    world.run(1)
    answer = udp_packet(B, A, bytes(20))
    b.send_packet(answer)
    world.run(1)
    assert scraped.values("tencrypt_packets_total") == {
        ("in", "encrypted"): 1,
        ("out", "encrypted"): 2,
    }
    assert scraped.values("tencrypt_packet_bytes_total") == {
        ("in", "encrypted"): len(answer),
        ("out", "encrypted"): sum(map(len, packets)),
    }


def test_no_counter_goes_backwards_while_sessions_come_and_go(authority: Authority) -> None:
    world, a, b = two(authority, weather=Weather(loss=0.05, jitter=0.01))
    scraped = Scraped(a)
    last = scraped.counters()
    ended = 0.0
    for step in range(400):
        if step % 20 == 10:
            a.table.renew(world.now)
        if step == 200:
            b.table.close(world.now)
        for node, source, there in ((a, A, B), (b, B, A)):
            node.send_packet(udp_packet(source, there, bytes(100)))
        world.run(1)
        now = scraped.counters()
        assert not {name for name, value in last.items() if now[name] < value}
        last, ended = now, scraped.value("tencrypt_handshakes_total", "opened", "initiator")
    assert ended > 15, "sessions came and went"
    assert len(a.table.sessions) < 5
    # Each packet was sent once it had a session, whichever that was.
    out = scraped.value("tencrypt_packets_total", "out", "encrypted")
    assert out + a.drops[Drop.NO_SESSION] + a.outbound.waiting == 400


def test_what_a_session_counted_outlives_it(authority: Authority) -> None:
    world, a, _ = two(authority)
    scraped = Scraped(a)
    a.send_packet(udp_packet(A, B, bytes(100)))
    world.run(1)
    before = scraped.counters()
    a.table.close(world.now)
    a.settle()
    assert not a.table.sessions
    after = scraped.counters()
    told = ("tencrypt_datagrams_total", "control", "out")
    assert after == before | {told: before[told] + 1}, "the CLOSE alone"


def test_every_reason_is_there_from_the_start_and_counts(authority: Authority) -> None:
    world, a, _ = two(authority)
    scraped = Scraped(a)
    assert scraped.values("tencrypt_drops_total") == {(str(reason),): 0 for reason in Drop}
    a.receive(STRANGE_RECORD, (B, PORT))
    a.receive(b"\x09", (B, PORT))
    a.send_packet(udp_packet(A, "10.9.9.9", b""))
    world.run(1)
    met = {key: n for key, n in scraped.values("tencrypt_drops_total").items() if n}
    assert met == {("unknown_index",): 1, ("malformed",): 1, ("not_a_member",): 1}


def test_sessions_are_counted_by_state(authority: Authority) -> None:
    world, a, _ = two(authority)
    scraped = Scraped(a)

    def states() -> list[float]:
        values = scraped.values("tencrypt_sessions")
        return [values[state,] for state in ("unconfirmed", "confirmed", "retired")]

    assert states() == [0, 0, 0]
    a.send_packet(udp_packet(A, B, b""))
    world.run(1)
    assert states() == [0, 1, 0]
    a.table.renew(world.now)
    a.settle()
    world.run(1)
    assert states() == [0, 1, 1]
    world.run(RETIRED_LIFE + 1)
    assert states() == [0, 1, 0]


def test_handshakes_are_counted_by_role_and_outcome(authority: Authority) -> None:
    world, a, b = two(authority)
    foreign = world.join(authority.issue(Leaf(pod="c", addresses=("10.0.0.3",), namespace="other")))
    scraped, answers = Scraped(a), Scraped(b)
    a.send_packet(udp_packet(A, B, b""))
    world.run(1)
    foreign.send_packet(udp_packet("10.0.0.3", A, b""))
    world.run(0.1)
    both = ("tencrypt_handshakes_total", "tencrypt_handshake_refusals_total")
    assert [scraped.values(name) for name in both] == [
        {
            ("opened", "initiator"): 1,
            ("refused", "initiator"): 0,
            ("opened", "responder"): 0,
            ("refused", "responder"): 1,
        },
        {("foreign_project", "responder"): 1},
    ]
    assert answers.value("tencrypt_handshakes_total", "opened", "responder") == 1


def test_a_call_that_nobody_answers_waits_and_then_counts_as_failed(authority: Authority) -> None:
    world, a, _ = two(authority)
    scraped = Scraped(a)
    for _ in range(3):
        a.send_packet(udp_packet(A, "10.0.0.77", b""))
    assert scraped.value("tencrypt_packets_waiting") == 3
    assert scraped.value("tencrypt_calls") == 1
    world.run(10)
    assert scraped.value("tencrypt_packets_waiting") == 0
    assert scraped.value("tencrypt_calls") == 0
    assert scraped.value("tencrypt_calls_failed_total") == 1


def test_half_open_handshakes_are_counted_while_they_are(authority: Authority) -> None:
    world, a, b = two(authority)
    scraped = Scraped(b)
    # No answer of b arrives, so a's handshake stays half open there.
    world.mtu = lambda _from, to: 0 if to == A and b.table.half_open else 65_535
    a.send_packet(udp_packet(A, B, b""))
    world.run(1)
    assert scraped.value("tencrypt_handshakes_half_open") >= 1
    assert scraped.value("tencrypt_datagrams_total", "in", "hello") >= 1
    world.run(20)
    assert scraped.value("tencrypt_handshakes_half_open") == 0


def test_datagrams_are_counted_by_kind(authority: Authority) -> None:
    world, a, b = two(authority)
    scraped = Scraped(b)
    a.send_packet(udp_packet(A, B, b""))
    world.run(1)
    b.receive(Hello(7).encode(), ("10.0.0.9", PORT))
    b.receive(STRANGE_RECORD, ("10.0.0.9", PORT))
    values = scraped.values("tencrypt_datagrams_total")
    kinds = {kind for _, kind in values}
    assert kinds == {"hello", "retry", "flight", "hint", "control"}
    assert [values["in", "hello"], values["out", "retry"], values["out", "hint"]] == [2, 2, 1]
    assert values["out", "hello"] == values["in", "hint"] == 0
    assert values["in", "control"] >= 1


def test_records_that_lost_a_datagram_are_counted(authority: Authority) -> None:
    world, a, b = two(authority)
    scraped = Scraped(b)
    a.send_packet(udp_packet(A, B, b""))
    world.run(1)
    a.table.current[PACKED_B].path.size = 1220  # as on a path that is too narrow for IPv6

    def lost(data: bytes) -> bool:
        return data[0] == RECORD + 1 and data[1] == 1  # the second datagram of two

    world.tamper = lambda data, _from, _to: [] if lost(data) else [data]
    a.send_packet(udp_packet(A6, B6, bytes(1200)))
    world.run(60)
    assert any(map(lost, world.carried))
    assert scraped.value("tencrypt_records_incomplete_total") == 1


def test_the_certificate_and_its_renewal_are_told_in_unix_time(authority: Authority) -> None:
    world, a, _ = two(authority)
    scraped = Scraped(a)
    name = "tencrypt_certificate_{}_timestamp_seconds"
    assert scraped.value(name.format("expiry")) == a.credential.own.not_after
    assert scraped.value("tencrypt_certificate_lifetime_seconds") == 1000
    assert scraped.value(name.format("renewal")) == OFFSET + 600
    world.run(700)
    assert scraped.value(name.format("renewal")) == OFFSET + world.now, "now, if it is overdue"
    renewals = scraped.values("tencrypt_certificate_renewals_total")
    assert renewals == {("renewed",): 3, ("failed",): 7}


def test_version_and_readiness_are_told_before_there_is_a_certificate(authority: Authority) -> None:
    _, a, _ = two(authority)
    scraped = Scraped(a)
    scraped.metrics.parts = None
    scraped.why_not = "no certificate yet"
    assert scraped.value("tencrypt_build_info", "1.2.3") == 1
    assert scraped.value("tencrypt_ready") == 0
    scraped.why_not = ""
    assert scraped.value("tencrypt_ready") == 1
    assert len(scraped.values("tencrypt_drops_total")) == len(Drop)


def test_series_do_not_grow_with_the_project(authority: Authority) -> None:
    world = World(1)
    a = world.join(authority.issue(Leaf(pod="a", addresses=(A,))))
    scraped = Scraped(a)
    for number in range(2, 40):
        there = f"10.0.0.{number}"
        world.join(authority.issue(Leaf(pod=f"p{number}", addresses=(there,))))
        a.send_packet(udp_packet(A, there, b""))
        world.run(0.1)
    assert scraped.value("tencrypt_sessions", "confirmed") == 38
    # Had every reason refused handshakes in both roles, which many cannot.
    for reason in Drop:
        a.table.totals.refused.update({(True, reason): 1, (False, reason): 1})
    samples = [s for family in scraped.registry.collect() for s in family.samples]
    assert len(samples) <= MOST_SERIES
    told = {value for s in samples for value in s.labels.values()}
    assert not {value for value in told if re.search(r"[0-9]{2}|\.|:", value)} - {"1.2.3"}


def test_names_types_and_labels_are_those_of_the_operating_manual(authority: Authority) -> None:
    world, a, _ = two(authority)
    scraped = Scraped(a)
    a.send_packet(udp_packet(A, "10.0.0.77", b""))
    world.run(10)
    families = {f.name: f for f in scraped.registry.collect() if f.name.startswith("tencrypt_")}
    rows = re.findall(
        r"^\| `(tencrypt_\w+)` \| (counter|gauge) \|([^|]*)\|",
        OPERATING.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    documented = {
        name.removesuffix("_total"): (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in rows
    }
    assert documented == {
        name: (family.type, set(family.samples[0].labels)) for name, family in families.items()
    }
    assert {name for name, kind, _ in rows if name.endswith("_total")} == {
        f"{name}_total" for name, (kind, _) in documented.items() if kind == "counter"
    }


def test_both_formats_are_parsed_by_others_to_the_same_values(authority: Authority) -> None:
    world, a, _ = two(authority)
    scraped = Scraped(a)
    a.send_packet(udp_packet(A, B, b""))
    world.run(1)
    encode, _ = choose_encoder("application/openmetrics-text; version=1.0.0")
    texts = generate_latest(scraped.registry).decode(), encode(scraped.registry).decode()
    assert texts[1].endswith("# EOF\n")
    ours = [
        {
            (s.name, *sorted(s.labels.items())): s.value
            for family in families
            for s in family.samples
            if s.name.startswith("tencrypt_")
        }
        for families in (parse_text(texts[0]), parse_openmetrics(texts[1]))  # type: ignore[no-untyped-call]  # the library's
    ]
    assert ours[0] == ours[1]
    assert len(ours[0]) > 60
    for line in texts[0].splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z_]+(\{[^{}]*\})? [0-9.e+-]+", line), line
