"""Fuzz targets of membership and policy: DNS, rules, lists in clear, orders, and packets that rules judge."""

from ipaddress import ip_address

import dns.message
import dns.rrset

from policy.identity import PodIdentity
from policy.rules import Rules, parse_rules
from proxy.dns import wire
from proxy.dns.answers import read_answer
from proxy.dns.resolv import diverted, parse_resolvers, restored
from proxy.dns.zone import Zone
from proxy.flow.clearance import parse_clearance
from proxy.flow.policy import Policy
from proxy.packet.ip import parse_packet
from proxy.packet.refusal import refuse

WEB, DB = (PodIdentity("shop.example", "shop", name) for name in ("web", "db"))
ZONE = Zone("shop", "cluster.local")
RULES = """\
[[rule]]
to = "db"
from = ["web", "spiffe://shop.example/ns/shop/sa/batch"]
protocol = "tcp"
ports = [80, "8000-8100"]
[[rule]]
to = "web"
from = ["*"]
"""


def query(data: bytes) -> None:
    """Where we read a question, dnspython reads the same."""
    parsed = wire.parse_query(data)
    assert wire.matches(wire.refusal(parsed, data), parsed.id, parsed.question)
    alone = wire.HEADER.pack(parsed.id, 0x0100, 1, 0, 0, 0) + parsed.question
    [question] = dns.message.from_wire(alone).question
    labels = [label.lower().decode("latin-1") for label in question.name.labels[:-1]]
    escaped = [label.replace("\\", "\\\\").replace(".", "\\.") for label in labels]
    assert parsed.name == ".".join(escaped)
    assert (parsed.type, parsed.klass) == (question.rdtype, question.rdclass)


def answer(data: bytes) -> None:
    """An answer that can be read gives addresses of 4 or 16 bytes, and whoever they are."""
    read = read_answer(data)
    for fact in ZONE.facts(read):
        ip_address(fact.address)
    ZONE.name_of(read)


def answer_seeds() -> list[bytes]:
    name = "web.shop.svc.cluster.local."
    seeds = []
    for kind, content in (("A", "10.0.0.2"), ("AAAA", "fd00::2"), ("CNAME", "x.example.")):
        made = dns.message.make_response(dns.message.make_query(name, "A", use_edns=0))
        made.answer = [dns.rrset.from_text(name, 30, "IN", kind, content)]
        seeds.append(made.to_wire())
    reverse = "2.0.0.10.in-addr.arpa."
    made = dns.message.make_response(dns.message.make_query(reverse, "PTR"))
    made.answer = [dns.rrset.from_text(reverse, 30, "IN", "PTR", name)]
    return [*seeds, made.to_wire()]


def query_seeds() -> list[bytes]:
    return [
        wire.make_query(7, "web.shop.svc.cluster.local", wire.A),
        dns.message.make_query("Web.Example.", "AAAA", use_edns=0).to_wire(),
    ]


def resolv(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    before = restored(text)
    assert restored(before) == before
    assert restored(diverted(before)) == before
    parse_resolvers(text)


def rules(text: str) -> None:
    parse_rules(text, "rules.toml", "shop.example", "shop")


def clearance(text: str) -> None:
    parsed = parse_clearance(text)
    assert parse_clearance(str(parsed)) == parsed


def judged(data: bytes) -> None:
    """Whatever packet is one, rules say yes or no to it, and what tells its sender is a packet too."""
    packet = memoryview(bytearray(data))
    parse_packet(packet)
    parsed: Rules = parse_rules(RULES, "rules.toml", "shop.example", "shop")
    policy = Policy(DB, parsed, enforce=True)
    for now in (0.0, 1.0):
        policy.incoming(WEB, packet, now)
        policy.outgoing(WEB, packet, now)
    refusal = refuse(packet)
    if refusal is not None:
        source, destination = parse_packet(packet)
        assert parse_packet(memoryview(refusal)) == (destination, source)
