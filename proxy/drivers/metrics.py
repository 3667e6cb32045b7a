"""What a scrape is told: read from the counters that the parts keep anyway, when somebody asks.

No object of the metrics library is on the way of a packet. Labels are words of closed lists; no pod, address or
session is one, so a pod has at most some 250 series however large its project is. `tencrypt status` has the rest.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from proxy.credentials.credential import Credential
from proxy.credentials.renewal import Renewal
from proxy.drops import Drop, Drops
from proxy.outbound import Outbound
from proxy.session.registry import CONTROL, KINDS
from proxy.session.session import STATES
from proxy.session.table import SessionTable
from proxy.session.wire import MOST_DATAGRAMS

SECURITY: Final = "encrypted"
"""The only way that packets go in this release; the label is there so that another can stand beside it."""

SOURCES: Final = ("session", "roster", "service", "zone")

_ROLES: Final = {True: "initiator", False: "responder"}
_DATAGRAM_KINDS: Final = (*KINDS.values(), CONTROL)

_Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values of the labels, and the sample's."""


class CertificateState(Protocol):
    """What `proxy.drivers.enrolment` knows; ``renewals`` and ``failures`` are attempts since the start."""

    credential: Credential
    wall_offset: float
    renewal: Renewal
    renewals: int
    failures: int


class ProjectState(Protocol):
    """What `proxy.drivers.project` knows."""

    @property
    def is_glass_broken(self) -> bool:
        """Whether plaintext passes by an operator's order."""

    @property
    def queries(self) -> int:
        """How many DNS queries of programs were taken."""

    def member_counts(self) -> Mapping[str, int]:
        """Return how many members are known, by source."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs once the pod has a certificate."""

    table: SessionTable
    outbound: Outbound
    certificate: CertificateState
    offloads: Callable[[], Mapping[str, bool]]
    """Which are in use."""
    project: ProjectState | None = None


class ProxyMetrics(Collector):
    """All metrics of one proxy but those of its process; before there are `parts`, those that need none."""

    def __init__(
        self, version: str, drops: Drops, why_not_ready: Callable[[], str], now: Callable[[], float]
    ) -> None:
        """Read ``drops``, which others count into, the monotonic time, and why the proxy is not ready, if so."""
        self._version, self._drops, self._now = version, drops, now
        self._why_not_ready = why_not_ready
        self.parts: Parts | None = None

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield each metric family, read now."""
        yield _gauge(
            "tencrypt_build_info",
            "1; its label says which version runs.",
            ("version",),
            [((self._version,), 1)],
        )
        yield _gauge(
            "tencrypt_ready",
            "1 while GET /readyz says so, else 0.",
            (),
            [((), not self._why_not_ready())],
        )
        yield _counter(
            "tencrypt_drops",
            "Datagrams, packets and handshakes refused or lost, by reason.",
            ("reason",),
            [((str(reason),), self._drops[reason]) for reason in Drop],
        )
        if self.parts is not None:
            yield from _traffic(self.parts.table)
            yield from _sessions(self.parts.table)
            yield from _queues(self.parts)
            yield from _offloads(self.parts)
            if self.parts.project is not None:
                yield from _project(self.parts.project)
            yield from _certificate(self.parts.certificate, self._now())


def registry(metrics: ProxyMetrics) -> CollectorRegistry:
    """Return what to scrape: ``metrics``, and CPU time, memory and descriptors of this process."""
    made = CollectorRegistry()
    made.register(metrics)
    ProcessCollector(registry=made)
    return made


def _project(project: ProjectState) -> Iterator[Metric]:
    yield _gauge(
        "tencrypt_break_glass",
        "1 while plaintext passes inside the cluster's ranges by `tencrypt net break-glass`, else 0.",
        (),
        [((), project.is_glass_broken)],
    )
    counts = project.member_counts()
    yield _gauge(
        "tencrypt_members",
        "Members that are known beside those in the settings, by what names them.",
        ("source",),
        [((source,), counts.get(source, 0)) for source in SOURCES],
    )
    yield _counter(
        "tencrypt_dns_queries",
        "Queries of programs that passed the DNS proxy.",
        (),
        [((), project.queries)],
    )


def _traffic(table: SessionTable) -> Iterator[Metric]:
    volume = table.totals.volume(table.sessions.values())
    ways = (("in", SECURITY), ("out", SECURITY))
    yield _counter(
        "tencrypt_packets",
        "Packets of and for applications.",
        ("direction", "security"),
        zip(ways, (volume.packets_in, volume.packets_out), strict=True),
    )
    yield _counter(
        "tencrypt_packet_bytes",
        "Bytes of these packets, without what the tunnel adds.",
        ("direction", "security"),
        zip(ways, (volume.bytes_in, volume.bytes_out), strict=True),
    )
    yield _counter(
        "tencrypt_records_incomplete",
        "Records given up because datagrams of them never came.",
        (),
        [((), volume.incomplete)],
    )
    kinds = _DATAGRAM_KINDS
    yield _counter(
        "tencrypt_datagrams",
        "Datagrams that carry no packet: handshakes, hints and control records.",
        ("direction", "kind"),
        (
            *((("in", kind), table.received[kind]) for kind in kinds),
            *((("out", kind), table.sent[kind]) for kind in kinds),
        ),
    )


def _sessions(table: SessionTable) -> Iterator[Metric]:
    totals = table.totals
    states = Counter(session.state for session in table.sessions.values())
    yield _gauge(
        "tencrypt_sessions",
        "Sessions by state: a confirmed one seals, a retired one only opens what is under way.",
        ("state",),
        [((state,), states[state]) for state in STATES],
    )
    refused: Counter[bool] = Counter()
    for (is_initiator, _), count in totals.refused.items():
        refused[is_initiator] += count
    yield _counter(
        "tencrypt_handshakes",
        "Handshakes that ended, by our role and whether they made a session.",
        ("role", "outcome"),
        [
            ((role, outcome), counts[is_initiator])
            for is_initiator, role in _ROLES.items()
            for outcome, counts in (("opened", totals.opened), ("refused", refused))
        ],
    )
    yield _counter(
        "tencrypt_handshake_refusals",
        "Handshakes that made no session, by our role and the reason; a reason is here once it was met.",
        ("role", "reason"),
        [
            ((_ROLES[is_initiator], str(reason)), count)
            for (is_initiator, reason), count in totals.refused.items()
        ],
    )
    yield _counter(
        "tencrypt_calls_failed",
        "Addresses that could not be reached within a call's time, each with one or more handshakes.",
        (),
        [((), totals.calls_failed)],
    )


def _queues(parts: Parts) -> Iterator[Metric]:
    for name, help_text, value in (
        ("tencrypt_packets_waiting", "Packets that wait for a session.", parts.outbound.waiting),
        ("tencrypt_handshakes_half_open", "Handshakes begun by others.", parts.table.half_open),
        ("tencrypt_calls", "Addresses that are being called.", parts.table.calls),
    ):
        yield _gauge(name, help_text, (), [((), value)])


def _offloads(parts: Parts) -> Iterator[Metric]:
    yield _gauge(
        "tencrypt_offload",
        "1 for each offload that is in use: without, packets cost more.",
        ("offload",),
        [((name,), used) for name, used in parts.offloads().items()],
    )
    yield _gauge(
        "tencrypt_sessions_small_records",
        "Sessions whose path loses so much that their records are small.",
        (),
        [((), sum(s.limit.most < MOST_DATAGRAMS for s in parts.table.sessions.values()))],
    )


def _certificate(state: CertificateState, now: float) -> Iterator[Metric]:
    renewal = state.renewal
    for name, help_text, value in (
        (
            "tencrypt_certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, in Unix time.",
            state.credential.own.not_after,
        ),
        (
            "tencrypt_certificate_lifetime_seconds",
            "For how long it was good when it was issued.",
            renewal.life,
        ),
        (
            "tencrypt_certificate_renewal_timestamp_seconds",
            "When the authority is asked for the next one, in Unix time.",
            max(renewal.next_at, now) + state.wall_offset,
        ),
    ):
        yield _gauge(name, help_text, (), [((), value)])
    yield _counter(
        "tencrypt_certificate_renewals",
        "Attempts at a renewal since the start.",
        ("outcome",),
        [(("renewed",), state.renewals), (("failed",), state.failures)],
    )


def _gauge(name: str, help_text: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, help_text: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    """Make a counter; the library adds ``_total`` to its name."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
