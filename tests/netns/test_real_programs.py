"""Real programs through Services, none of them configured for Tencrypt; nothing that they say is seen on the bridge."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest
from support.capture import Taps
from support.cluster import IN_CLUSTER
from support.dns_server import DNS_PORT, dnsmasq_command
from support.endpoints import served, text_of
from support.exchanges import leaks
from support.namespaces import Fabric
from support.processes import wait_for
from support.programs import (
    POSTGRES_PORT,
    REDIS_PORT,
    pgbench,
    redis_benchmark,
    start_postgres,
    start_redis,
    wrk,
)
from support.project import Project
from support.servers import IPERF3_PORT, start_nginx, tcp_echo
from support.talk import Talk, talking
from support.tencrypt import Json

WEB, SHOP, CACHE, NAMES, LOAD, ECHO = (f"10.96.0.{number}" for number in range(80, 86))
SECRET = "letmein-7f11"
ECHO_PORT: Final = 9000
CONNECTIONS: Final = 100
RULES: Final = """\
[[rule]]
from = ["web"]
to = "web"
protocol = "tcp"
ports = [9000]
"""


class Shop:
    """A client, two servers, and their Services in a file that the client's proxy reads."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.client, self.one, self.two, self.guest = fabric.pods.values()
        self.file = fabric.directory / "endpoints.json"
        self.write()
        settings = {**IN_CLUSTER, "roster": "on", "dns": "off", "endpoints_file": str(self.file)}
        self.rules = fabric.directory / "rules.toml"
        self.rules.write_text("", encoding="ascii")
        self.project = Project(fabric, {**settings, "rules_file": str(self.rules)})
        self.project.start("client", "one", "two")

    def write(self, *more: str) -> None:
        """Write the endpoints; ``more`` pods serve the echo's Service too."""
        one, two = [self.one.ipv4], [self.two.ipv4]
        items = [
            *served(WEB, 8080, one, 80, protocols=("TCP",), name="web"),
            *served(SHOP, POSTGRES_PORT, two, protocols=("TCP",), name="shop"),
            *served(CACHE, REDIS_PORT, one, protocols=("TCP",), name="cache"),
            *served(NAMES, DNS_PORT, two, 5353, name="names"),
            *served(LOAD, IPERF3_PORT, one, protocols=("TCP", "UDP"), name="load"),
            *served(ECHO, ECHO_PORT, [*one, *two, *more], protocols=("TCP",), name="echo"),
        ]
        self.file.write_text(text_of(*items), encoding="utf-8")


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Fabric("client", "one", "two", "guest") as fabric:
        yield Shop(fabric)


@pytest.fixture
def nothing_in_clear(shop: Shop) -> Iterator[None]:
    """Listen on every side of the bridge while a test runs."""
    taps = Taps.everywhere(shop.fabric)
    yield
    assert not leaks(taps.stop(), SECRET.encode(), b"pgbench_accounts", b"key:__rand")


def test_nginx_by_curl_and_under_the_load_of_wrk(shop: Shop) -> None:
    start_nginx(shop.one, SECRET)
    taps = Taps.everywhere(shop.fabric)
    answer = shop.client.run(["curl", "-sS", "--max-time", "10", f"http://{WEB}:8080/"]).stdout
    assert SECRET in answer
    assert not leaks(taps.stop(), SECRET.encode())
    assert wrk(shop.client, f"http://{WEB}:8080/", 2) > 200


@pytest.mark.usefixtures("nothing_in_clear")
def test_postgresql_under_the_load_of_pgbench(shop: Shop) -> None:
    start_postgres(shop.two)
    assert pgbench(shop.client, SHOP, 25) == 100


@pytest.mark.usefixtures("nothing_in_clear")
def test_redis_under_the_load_of_redis_benchmark(shop: Shop) -> None:
    start_redis(shop.one)
    assert redis_benchmark(shop.client, CACHE, 500) == {"set", "get", "incr", "lpush", "mset"}


@pytest.mark.usefixtures("nothing_in_clear")
def test_dns_over_udp_and_tcp(shop: Shop) -> None:
    record = f"txt-record=secret.shop.example,{SECRET}"
    directory = shop.fabric.directory
    shop.two.start(dnsmasq_command(shop.two.ipv4, 5353, [record], directory))
    ask = (
        "import sys, dns.message, dns.query, dns.rcode\n"
        "query = dns.message.make_query('secret.shop.example', 'TXT')\n"
        "for way in (dns.query.udp, dns.query.tcp):\n"
        "    print(way(query, sys.argv[1], timeout=10).answer[0])\n"
    )
    wait_for("the server", lambda: bool(shop.two.run(["ss", "-Hlun", "sport = :5353"]).stdout))
    text = shop.client.run([sys.executable, "-c", ask, NAMES]).stdout
    assert text.count(SECRET) == 2


@pytest.mark.usefixtures("nothing_in_clear")
def test_iperf3_over_udp(shop: Shop) -> None:
    serving = shop.one.start(["iperf3", "--server", "--port", str(IPERF3_PORT)])
    shop.one.wait_for_listener(serving, IPERF3_PORT)
    load = ["--udp", "--bitrate", "5M", "--time", "2", "--length", "1200", "--json"]
    done = shop.client.run(["iperf3", "--client", LOAD, "--port", str(IPERF3_PORT), *load])
    total = json.loads(done.stdout)["end"]["sum"]
    assert total["packets"] > 500
    assert total["lost_packets"] <= total["packets"] // 20


def test_a_hundred_long_connections_arrive_whole_across_changes_of_membership(shop: Shop) -> None:
    with ExitStack() as stack:
        for pod in (shop.one, shop.two):
            stack.enter_context(tcp_echo(pod, pod.ipv4, ECHO_PORT))
        talk = stack.enter_context(talking(shop.client, ECHO, ECHO_PORT, CONNECTIONS))
        change_everything(shop, talk)
    assert talk.rounds >= 6


def change_everything(shop: Shop, talk: Talk) -> None:
    """Change members, endpoints, rules and daemons while connections are open; each change is waited for."""
    project, client = shop.project, shop.project["client"]

    def heard(event: str, count: int) -> bool:
        return client.event_names().count(event) >= count

    def members() -> Json:
        found: Json = client.status()["project"]["members"]
        return found

    another_round = talk.another_round

    another_round()
    project.start("guest")
    wait_for("the guest", lambda: shop.guest.ipv4 in members())
    another_round()
    shop.write(shop.guest.ipv4)
    wait_for("the endpoints", lambda: heard("services", 2))
    another_round()
    before = client.event_names().count("rules")
    shop.rules.write_text(RULES, encoding="ascii")
    wait_for("the rules", lambda: heard("rules", before + 1))
    another_round()
    for name in ("client", "one"):
        project[name].kill_daemon()
        project[name].start_and_wait()
        another_round()
    assert project["guest"].stop() == 0
    shop.write()
    wait_for("the endpoints", lambda: heard("services", 2))
    another_round()
