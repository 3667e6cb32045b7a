"""Forged DNS answers against strict pods: what they cannot do; and, in tests named for it, the limits of DNS alone."""

import errno
import socket
from collections.abc import Iterator, Sequence

import pytest
from support.capture import Capture, Taps
from support.cluster import IN_CLUSTER, ZONE, Cluster, name_of, resolve
from support.dns_server import DNS_PORT, dnsmasq_command
from support.exchanges import plain_kinds
from support.forge import hardware_address
from support.kernel_state import refused_count
from support.mallory import Stage, members, staged
from support.namespaces import BRIDGE_IPV4, Fabric, Pod
from support.servers import udp_echo

from proxy.dns import wire
from proxy.dns.answers import read_answer
from proxy.drops import Drop

CANARY = b"canary-of-the-liar-5b0e"
PORT = 7007
OUTSIDE, FORGED = "192.0.2.66", "192.0.2.67"
OF_ANOTHER_PROJECT = "db.other.svc.cluster.local"
REFUSED = {errno.EHOSTUNREACH, errno.EACCES}
ASK_THE_C_LIBRARY = 'mount --bind "$0" /etc/resolv.conf && exec getent ahostsv4 "$1"'


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged("dns") as made:
        yield made


def call(pod: Pod, host: str) -> int:
    """What a program hears that sends a datagram: 0 for its echo, or errno."""
    with pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.settimeout(8)
        try:
            program.connect((host, PORT))
            program.send(CANARY)
            assert program.recv(100) == CANARY
        except OSError as error:
            if error.errno is None:
                raise
            return error.errno
    return 0


def leaving(capture: Capture, pod: Pod) -> Capture:
    """Give what the pod itself has sent."""
    own = hardware_address(pod, "eth0")
    return Capture(capture.point, [frame for frame in capture.frames if frame[6:12] == own])


@pytest.mark.parametrize(
    ("hers", "record"),
    [
        pytest.param("10.77.0.91", f"host-record=db.{ZONE}", id="the zone's name"),
        pytest.param(
            "10.77.0.92", f"ptr-record=92.0.77.10.in-addr.arpa,db.{ZONE}", id="a reverse name"
        ),
        pytest.param("10.77.0.93", "host-record=www.example.org", id="an outside name"),
        pytest.param(
            "10.77.0.94", f"host-record={OF_ANOTHER_PROJECT}", id="another project's name"
        ),
    ],
)
def test_whatever_dns_calls_an_attackers_address_no_plaintext_goes_there(
    stage: Stage, hers: str, record: str
) -> None:
    mallory, plain, one = stage["mallory"], stage["plain"], stage["nginx1"]
    kind, _, name = record.partition("=")
    stage.cluster.serve_again(f"{record},{hers}" if kind == "host-record" else record)
    mallory.ip(f"addr add {hers}/32 dev eth0\n")
    with udp_echo(mallory, hers, PORT) as callers:
        assert call(plain, hers) == 0
        taps = Taps((one, "eth0"))
        if kind == "host-record":
            assert resolve(one, name) == [socket.inet_aton(hers)]
        assert call(one, hers) in REFUSED
        [capture] = taps.stop().values()
        assert {host for host, _ in callers} == {plain.ipv4}
    # A session was tried where a name of the project made the address a member's.
    assert (capture.kinds()["session HELLO"] > 0) == (ZONE in record)
    assert not plain_kinds(leaving(capture, one))


def test_an_outside_name_with_a_members_address_is_sealed_as_ever(stage: Stage) -> None:
    one, two = stage["nginx1"], stage["nginx2"]
    stage.cluster.serve_again(f"host-record=www.example.org,{two.ipv4}")
    with udp_echo(two, two.ipv4, PORT):
        taps = Taps((one, "eth0"))
        assert resolve(one, "www.example.org") == [socket.inet_aton(two.ipv4)]
        assert call(one, two.ipv4) == 0
        [capture] = taps.stop().values()
    assert capture.kinds()["session RECORD"] >= 2
    assert not plain_kinds(capture)
    assert not capture.holding(CANARY)


def test_limit_with_dns_bypass_a_forged_name_opens_a_way_in_clear_yet_to_no_member() -> None:
    """This is what `dns_bypass = true` means, and why it is not the default."""
    with Fabric("nginx1", "nginx2", "mallory") as fabric:
        one, two, mallory = fabric.pods.values()
        cluster = Cluster(fabric, {**IN_CLUSTER, "dns_bypass": True})
        cluster.records = cluster.records[:2]
        other = "10.77.0.98"
        mallory.ip(f"addr add {other}/32 dev eth0\n")
        cluster.serve_again(
            f"host-record={OF_ANOTHER_PROJECT},{mallory.ipv4}",
            f"host-record=of-a-member.{OF_ANOTHER_PROJECT},{two.ipv4}",
            f"host-record=www.example.org,{other}",
        )
        cluster.project.start("nginx1", "nginx2")
        with (
            udp_echo(mallory, mallory.ipv4, PORT) as led,
            udp_echo(mallory, other, PORT) as refused,
            udp_echo(two, two.ipv4, PORT),
        ):
            assert call(one, two.ipv4) == 0
            assert call(one, mallory.ipv4) in REFUSED
            for name in (
                OF_ANOTHER_PROJECT,
                f"of-a-member.{OF_ANOTHER_PROJECT}",
                "www.example.org",
            ):
                assert len(resolve(one, name)) == 1
            assert call(one, mallory.ipv4) == 0
            assert len(led) == 1
            taps = Taps((one, "eth0"))
            assert call(one, two.ipv4) == 0
            assert call(one, other) in REFUSED
            [capture] = taps.stop().values()
            assert not refused
    assert not capture.holding(CANARY)


def looked_up(pod: Pod, name: str, ndots: int = 5) -> str | None:
    """What the C library makes of a name, with the search list that a cluster's node gives."""
    file = pod.directory / f"{pod.label}.resolv.conf"
    search = f"search {ZONE} svc.cluster.local cluster.local corp.example"
    file.write_text(
        f"nameserver {BRIDGE_IPV4}\n{search}\noptions ndots:{ndots}\n", encoding="ascii"
    )
    done = pod.run(["unshare", "--mount", "sh", "-c", ASK_THE_C_LIBRARY, file, name], accept=(0, 2))
    return done.stdout.split()[0] if done.stdout else None


def test_limit_who_denies_a_name_leads_a_program_outside_by_its_search_list(stage: Stage) -> None:
    """Strict, with `cluster_ranges`: what is outside of these is clear, and a program asks for names, not for pods.

    The forger takes the resolver's address on the bridge. `ndots:1` changes the order alone, a final dot ends it.
    """
    one, two, mallory = stage["nginx1"], stage["nginx2"], stage["mallory"]
    stage.cluster.serve_again()
    assert looked_up(one, "nginx2") == two.ipv4
    mallory.ip(f"addr add {OUTSIDE}/32 dev lo\n")
    directory = mallory.directory / "liar"
    directory.mkdir()
    led_to = [f"host-record={name}.corp.example,{OUTSIDE}" for name in ("nginx2", name_of(two))]
    records = ["local=/cluster.local/", *led_to]
    with (
        stage.mallory.taking(BRIDGE_IPV4, one),
        udp_echo(mallory, OUTSIDE, PORT) as led,
        udp_echo(two, two.ipv4, PORT),
    ):
        liar = mallory.start(dnsmasq_command(BRIDGE_IPV4, DNS_PORT, records, directory))
        mallory.wait_for_listener(liar, DNS_PORT)
        assert looked_up(one, "nginx2") == OUTSIDE
        assert call(one, OUTSIDE) == 0
        assert {host for host, _ in led} == {one.ipv4}
        assert looked_up(one, name_of(two), ndots=1) == OUTSIDE
        assert looked_up(one, f"{name_of(two)}.", ndots=1) is None
        # Nothing is taken away from the pod itself.
        taps = Taps((one, "eth0"))
        assert call(one, two.ipv4) == 0
        [capture] = taps.stop().values()
        liar.stop()
    assert not capture.holding(CANARY)
    assert two.ipv4 in members(stage.cluster, "nginx1")


def answer(number: int, question: bytes, host: str) -> bytes:
    """Make an answer of one A record."""
    header = wire.HEADER.pack(number, 0x8180, 1, 1, 0, 0)
    record = b"\xc0\x0c" + bytes((0, wire.A, 0, wire.IN, 0, 0, 0, 60, 0, 4))
    return header + question + record + socket.inet_aton(host)


def asked(stage: Stage, forge: Sequence[str]) -> tuple[str, int, int]:
    """Ask for a pod's name while forged answers come before the true one.

    Gives what the program gets, and how many answers the daemon and the filter have refused.
    """
    one, two, node = stage["nginx1"], stage["nginx2"], stage.cluster.fabric.node
    stage.cluster.server.stop()
    counted = (stage.drops("nginx1").get(Drop.DNS_FORGED, 0), filtered(one))
    query = wire.make_query(4711, name_of(two).replace("n", "N"), wire.A)
    with (
        node.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver,
        one.socket(socket.AF_INET, socket.SOCK_DGRAM) as program,
    ):
        resolver.bind((BRIDGE_IPV4, DNS_PORT))
        for opened in (resolver, program):
            opened.settimeout(10)
        program.connect((BRIDGE_IPV4, DNS_PORT))
        program.send(query)
        data, (_, port) = resolver.recvfrom(1000)
        number, question = int.from_bytes(data[:2], "big"), wire.parse_query(data).question
        ways = {
            "wrong id": (BRIDGE_IPV4, port, number ^ 1, question),
            "wrong port": (BRIDGE_IPV4, port ^ 1, number, question),
            "wrong server": ("10.77.0.99", port, number, question),
            "wrong letters": (BRIDGE_IPV4, port, number, question.lower()),
            "all right": (BRIDGE_IPV4, port, number, question),
        }
        for way in forge:
            source, to, told, words = ways[way]
            lie = answer(told, words, FORGED)
            stage.mallory.datagram(one, (source, one.ipv4), (DNS_PORT, to), lie)
        resolver.sendto(answer(number, question, two.ipv4), (one.ipv4, port))
        heard = program.recv(1000)
    [(_, host, _)] = read_answer(heard).addresses
    stage.cluster.serve_again()
    by_daemon = stage.drops("nginx1").get(Drop.DNS_FORGED, 0) - counted[0]
    return socket.inet_ntoa(host), by_daemon, filtered(one) - counted[1]


def filtered(pod: Pod) -> int:
    return refused_count(pod, "refused_arriving")


def test_answers_with_a_wrong_id_port_server_or_letter_are_not_taken(stage: Stage) -> None:
    forged = ("wrong id", "wrong port", "wrong server", "wrong letters")
    host, by_daemon, by_filter = asked(stage, forged)
    assert host == stage["nginx2"].ipv4
    assert (by_daemon, by_filter >= 2) == (2, True)


def test_limit_who_sees_the_query_can_answer_first_and_whom_he_names_is_refused_or_sealed(
    stage: Stage,
) -> None:
    host, _, _ = asked(stage, ["all right"])
    assert host == FORGED
    # It is a name of the zone, so the address is a member's now: refused, for nobody there has a certificate.
    assert members(stage.cluster, "nginx1")[FORGED] == "zone"
    taps = Taps((stage["nginx1"], "eth0"))
    assert call(stage["nginx1"], FORGED) in REFUSED
    [capture] = taps.stop().values()
    assert capture.kinds()["session HELLO"] > 0
    assert not plain_kinds(leaving(capture, stage["nginx1"]))
