"""The DNS proxy on loopback, between real programs, a real server, and one that lies."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from support.dns_proxied import WEB, ask, forged, proxied, texts
from support.dns_server import dnsmasq_here, liar

from proxy.dns import wire
from proxy.dns.answers import read_answer
from proxy.drops import Drop

MANY = "many.shop.svc.cluster.local"
RECORDS = (
    f"host-record={WEB},10.0.0.2,fd00::2",
    "cname=shop.example," + WEB,
    *(f"host-record={MANY},10.1.{n}.1" for n in range(100)),
    f"txt-record=long.example,{'x' * 200},{'y' * 200},{'z' * 200},{'w' * 200}",
)


@pytest.mark.parametrize("tcp", [False, True])
async def test_programs_get_what_the_server_says(tmp_path: Path, tcp: bool) -> None:  # noqa: FBT001 - a parameter
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served:
            for name, kind, wanted in (
                (WEB, "A", {"10.0.0.2"}),
                ("WEB.shop.svc.Cluster.local", "AAAA", {"fd00::2"}),
                ("2.0.0.10.in-addr.arpa", "PTR", {f"{WEB}."}),
                ("shop.example", "A", {f"{WEB}.", "10.0.0.2"}),
            ):
                assert texts(await ask(served.port, name, kind, tcp=tcp)) == wanted
            answer = await ask(served.port, "nobody.example", tcp=tcp)
            assert answer.rcode() == dns.rcode.REFUSED  # as dnsmasq says it without upstream
            assert len((await ask(served.port, "long.example", "TXT", tcp=tcp)).answer) == 1
            # What can matter was told of, and nothing else.
            assert [query.type for query, _ in served.told.answers] == [1, 28, 12, 1]


async def test_a_truncated_answer_comes_whole_by_tcp(tmp_path: Path) -> None:
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served:
            short = await ask(served.port, MANY)
            assert short.flags & dns.flags.TC
            assert len(texts(await ask(served.port, MANY, tcp=True))) == 100


async def test_edns_passes_as_it_came() -> None:
    seen = []

    def answering(data: bytes, _asker: tuple[str, int]) -> Sequence[bytes]:
        query = dns.message.from_wire(data)
        seen.append((query.edns, query.payload, query.ednsflags, list(query.options)))
        return [dns.message.make_response(query).to_wire()]

    with liar(answering) as server:
        async with proxied(server) as served:
            option = dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"abc")
            query = dns.message.make_query(
                WEB, "A", use_edns=0, payload=4000, want_dnssec=True, options=[option]
            )
            await asyncio.to_thread(dns.query.udp, query, "127.0.0.1", port=served.port, timeout=5)
    assert seen == [(0, 4000, dns.flags.DO, [option])]


async def test_an_answer_that_is_refused_becomes_a_server_failure(tmp_path: Path) -> None:
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served:
            served.told.verdict = False
            for tcp in (False, True):
                answer = await ask(served.port, WEB, tcp=tcp)
                assert answer.rcode() == dns.rcode.SERVFAIL
            assert served.drops[Drop.DNS_REFUSED] == 2


async def test_an_answer_waits_until_it_was_heeded(tmp_path: Path) -> None:
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served:
            heeded = asyncio.get_running_loop().create_future()
            served.told.verdict = heeded
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
                program.setblocking(False)  # noqa: FBT003 - the standard library's signature
                program.connect(("127.0.0.1", served.port))
                program.send(wire.make_query(7, WEB, wire.A))
                await served.told.heard.wait()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(loop.sock_recv(program, 512), 0.2)
                heeded.set_result(True)
                answer = await asyncio.wait_for(loop.sock_recv(program, 512), 5)
            assert [address for _, address, _ in read_answer(answer).addresses] == [
                ip_address("10.0.0.2").packed
            ]


async def test_forged_answers_are_counted_and_the_right_one_is_waited_for() -> None:
    def answering(data: bytes, asker: tuple[str, int]) -> Sequence[bytes]:
        query = dns.message.from_wire(data)
        other = dns.message.make_query("other.example", "A", id=query.id).to_wire()
        lower = dns.message.make_query(WEB, "A", id=query.id).to_wire()
        # From another address, to the right port: a connected socket does not hear it.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.2", 0))
            stranger.sendto(forged(data), asker)
        right = dns.message.make_response(query)
        right.answer = [dns.rrset.from_text(f"{WEB}.", 30, "IN", "A", "10.0.0.2")]
        return [
            forged(data, id=query.id ^ 1),
            forged(other),
            forged(lower),
            data,
            b"",
            data[:11],
            right.to_wire(),
        ]

    with liar(answering) as server:
        async with proxied(server) as served:
            answer = await ask(served.port, "Web.shop.svc.cluster.local")
            assert texts(answer) == {"10.0.0.2"}
            assert served.drops[Drop.DNS_FORGED] == 6
            assert len(served.told.answers) == 1


async def test_each_query_has_a_port_and_an_id_of_its_own() -> None:
    seen = set()

    def answering(data: bytes, asker: tuple[str, int]) -> Sequence[bytes]:
        seen.add((asker[1], int.from_bytes(data[:2], "big")))
        return [dns.message.make_response(dns.message.from_wire(data)).to_wire()]

    with liar(answering) as server:
        async with proxied(server) as served:
            for _ in range(40):
                await ask(served.port, WEB)
    assert len({port for port, _ in seen}) > 20
    assert len({number for _, number in seen}) > 38


async def test_an_answer_that_nobody_can_read_reaches_no_program() -> None:
    def answering(data: bytes, _asker: tuple[str, int]) -> Sequence[bytes]:
        return [forged(data)[:-3]]

    with liar(answering) as server:
        async with proxied(server) as served:
            assert (await ask(served.port, WEB)).rcode() == dns.rcode.SERVFAIL
            assert served.drops[Drop.DNS_MALFORMED] == 1


async def test_a_server_that_is_away_is_told_at_once_and_the_next_is_asked(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()[1]
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(nobody, server) as served:
            answer = await ask(served.port, WEB, seconds=2)
            assert answer.rcode() == dns.rcode.SERVFAIL
            data = await served.proxy.ask(
                wire.reverse_name(ip_address("10.0.0.2").packed), wire.PTR
            )
            assert data is not None
            assert read_answer(data).names[0][0] == WEB
            with pytest.raises(ValueError, match="domain name"):
                await served.proxy.ask("x" * 70, wire.A)


@pytest.mark.parametrize("rubbish", [b"", b"\0", b"\0\x0c" + bytes(12), b"\xff\xff" + bytes(70)])
async def test_rubbish_harms_nobody(tmp_path: Path, rubbish: bytes) -> None:
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
                program.sendto(rubbish, ("127.0.0.1", served.port))
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(rubbish)
            writer.write_eof()
            for tcp in (False, True):
                assert texts(await ask(served.port, WEB, tcp=tcp)) == {"10.0.0.2"}
            writer.close()
