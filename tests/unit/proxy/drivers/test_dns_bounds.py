"""What a DNS proxy gives up, and what it never does: bounds, silence, answers that cannot be heeded or read."""

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from support.dns_proxied import WEB, ask, forged, proxied, texts
from support.dns_server import dnsmasq_here, liar

from proxy.dns import wire
from proxy.dns.answers import read_answer
from proxy.drivers import dns_proxy
from proxy.drops import Drop

RECORDS = (f"host-record={WEB},10.0.0.2",)


def rightly(data: bytes, _asker: tuple[str, int]) -> Sequence[bytes]:
    """Answer as a server that knows the name."""
    made = dns.message.make_response(dns.message.from_wire(data))
    made.answer = [dns.rrset.from_text(f"{WEB}.", 30, "IN", "A", "10.0.0.2")]
    return [made.to_wire()]


def never(_data: bytes, _asker: tuple[str, int]) -> Sequence[bytes]:
    return ()


@contextlib.contextmanager
def program(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)  # noqa: FBT003 - the standard library's signature
        opened.connect(("127.0.0.1", port))
        yield opened


async def hears(opened: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(opened, 65535), 10)


async def test_queries_without_answer_are_bounded_and_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dns_proxy, "MOST_UNDER_WAY", 8)
    monkeypatch.setattr(dns_proxy, "PATIENCE", 0.2)
    with liar(never) as server:
        async with proxied(server) as served:
            with program(served.port) as asking:
                for number in range(20):
                    asking.send(wire.make_query(number, WEB, wire.A))
                answers = [await hears(asking) for _ in range(20)]
            assert {wire.rcode(answer) for answer in answers} == {wire.SERVFAIL}
            assert served.drops[Drop.DNS_FULL] == 12
            assert served.proxy.under_way == 0


async def test_answers_that_wait_to_be_heeded_are_bounded_and_none_is_let_out_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dns_proxy, "MOST_UNDER_WAY", 4)
    heeded = asyncio.Event()
    with liar(rightly) as server:
        async with proxied(server) as served:
            served.told.verdict = heeded.wait
            with program(served.port) as asking:
                for number in range(4):
                    served.told.heard.clear()
                    asking.send(wire.make_query(number, WEB, wire.A))
                    await served.told.heard.wait()
                asking.send(wire.make_query(99, WEB, wire.A))
                refused = await hears(asking)
                assert (refused[:2], wire.rcode(refused)) == (b"\0\x63", wire.SERVFAIL)
                assert served.drops[Drop.DNS_FULL] == 1
                heeded.set()
                answers = [await hears(asking) for _ in range(4)]
            assert {wire.rcode(answer) for answer in answers} == {wire.NOERROR}
            assert served.proxy.under_way == 0


@pytest.mark.parametrize("tcp", [False, True])
async def test_an_answer_that_is_never_heeded_becomes_a_server_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tcp: bool,  # noqa: FBT001 - a parameter
) -> None:
    monkeypatch.setattr(dns_proxy, "PATIENCE", 0.2)
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served:
            served.told.verdict = asyncio.get_running_loop().create_future
            assert (await ask(served.port, WEB, tcp=tcp)).rcode() == dns.rcode.SERVFAIL
            assert served.drops[Drop.DNS_REFUSED] == 1


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("late", [False, True])
async def test_what_goes_wrong_while_one_answer_is_heeded_ends_that_answer_alone(
    tmp_path: Path,
    tcp: bool,  # noqa: FBT001 - a parameter
    late: bool,  # noqa: FBT001 - a parameter
) -> None:
    bugs: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: bugs.append(told["exception"]))
    bug = KeyError("a bug of ours")

    def at_once() -> bool:
        raise bug

    async def after_a_while() -> bool:
        raise bug

    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served:
            served.told.verdict = after_a_while if late else at_once
            assert (await ask(served.port, WEB, tcp=tcp)).rcode() == dns.rcode.SERVFAIL
            served.told.verdict = True
            assert texts(await ask(served.port, WEB, tcp=tcp)) == {"10.0.0.2"}
    assert bugs == [bug]


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let this process open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held[0] + 1, 64), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)


async def test_without_sockets_programs_hear_it_and_so_do_we(tmp_path: Path) -> None:
    with dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(server) as served:
            with program(served.port) as asking:
                with no_more_descriptors():
                    asking.send(wire.make_query(7, WEB, wire.A))
                    assert wire.rcode(await hears(asking)) == wire.SERVFAIL
                    assert await served.proxy.ask(WEB, wire.A) is None
                assert served.drops[Drop.SOCKET] == 2
                assert texts(await ask(served.port, WEB)) == {"10.0.0.2"}


async def test_a_late_answer_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_proxy, "PATIENCE", 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)  # noqa: FBT003 - the standard library's signature
        loop = asyncio.get_running_loop()
        async with proxied(server.getsockname()[1]) as served:
            with program(served.port) as asking:
                asking.send(wire.make_query(7, WEB, wire.A))
                query, proxy = await loop.sock_recvfrom(server, 512)
                assert wire.rcode(await hears(asking)) == wire.SERVFAIL
                server.sendto(rightly(query, proxy)[0], proxy)
                # The next answer is the next query's.
                asking.send(wire.make_query(8, WEB, wire.A))
                query, proxy = await loop.sock_recvfrom(server, 512)
                server.sendto(rightly(query, proxy)[0], proxy)
                answer = await hears(asking)
            assert (answer[:2], wire.rcode(answer)) == (b"\0\x08", wire.NOERROR)
            assert len(served.told.answers) == 1


async def test_an_answer_as_large_as_a_datagram_can_be_passes_whole() -> None:
    sent = []

    def answering(data: bytes, _asker: tuple[str, int]) -> Sequence[bytes]:
        made = dns.message.make_response(dns.message.from_wire(data))
        lines = [f'"{"x" * 250}"'] * 250
        made.answer = [dns.rrset.from_text(f"{WEB}.", 30, "IN", "TXT", *map(str.strip, lines))]
        sent.append(made.to_wire() + bytes(65000 - len(made.to_wire())))
        return sent

    with liar(answering) as server:
        async with proxied(server) as served:
            with program(served.port) as asking:
                asking.send(wire.make_query(7, WEB, 16))
                answer = await hears(asking)
    assert len(answer) == 65000
    assert answer[2:] == sent[0][2:]


async def test_a_truncated_answer_that_nobody_can_read_still_sends_programs_to_tcp() -> None:
    def answering(data: bytes, _asker: tuple[str, int]) -> Sequence[bytes]:
        whole = forged(data, flags=dns.flags.QR | dns.flags.TC | dns.flags.RD)
        return [whole[:-3]]

    with liar(answering) as server:
        async with proxied(server) as served:
            answer = await ask(served.port, WEB)
    assert answer.flags & dns.flags.TC
    assert answer.rcode() == dns.rcode.NOERROR
    assert not answer.answer


async def test_a_question_of_our_own_goes_to_the_next_resolver_when_one_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_proxy, "OWN_PATIENCE", 0.1)
    with liar(never) as silent, dnsmasq_here(tmp_path, RECORDS) as server:
        async with proxied(silent, server) as served:
            data = await served.proxy.ask(WEB, wire.A)
            assert data is not None
            [(_, address, _)] = read_answer(data).addresses
            assert address == ip_address("10.0.0.2").packed
        async with proxied(silent, silent) as served:
            assert await served.proxy.ask(WEB, wire.A) is None
