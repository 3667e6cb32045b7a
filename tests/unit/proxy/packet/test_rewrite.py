"""Rewriting in place gives what making the packet anew would: naive packets are the reference."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.naive import ECHO_REPLY, Way, crc32c, unfinished

from proxy.drops import Drop
from proxy.errors import Dropped
from proxy.packet.ip import parse_packet
from proxy.packet.name import ends, flow_name, made_name, quoted, turned
from proxy.packet.rewrite import DESTINATION, SOURCE, Change, End, change, rewrite, rewrite_quoted
from proxy.packet.upper import find_upper

OWN, VIP, POD = (ip_address(one).packed for one in ("10.0.0.1", "172.30.0.9", "10.0.0.2"))
OWN6, VIP6, POD6 = (ip_address(one).packed for one in ("fd00::1", "fd00:1::9", "fd00::2"))
V4, V6 = Way(OWN, 1000, VIP, 80), Way(OWN6, 1000, VIP6, 80)

ports = st.integers(1, 0xFFFF)
v4 = st.builds(Way, *[st.binary(min_size=4, max_size=4), ports] * 2)
v6 = st.builds(Way, *[st.binary(min_size=16, max_size=16), ports] * 2)
pairs = st.tuples(v4, v4) | st.tuples(v6, v6)
kinds = st.sampled_from([Way.tcp, Way.udp, Way.sctp])
payloads = st.binary(max_size=200)


def between(before: Way, after: Way) -> list[Change]:
    return [
        change(SOURCE, End(before.source, before.sport), End(after.source, after.sport)),
        change(
            DESTINATION,
            End(before.destination, before.dport),
            End(after.destination, after.dport),
        ),
    ]


def rewritten(packet: bytes, changes: list[Change], *, unfinished: bool = False) -> bytes:
    made = memoryview(bytearray(packet))
    rewrite(made, find_upper(made), changes, unfinished=unfinished)
    parse_packet(made)
    return bytes(made)


def test_reference_computes_the_published_crc() -> None:
    """RFC 3720 B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@given(pair=pairs, kind=kinds, payload=payloads)
def test_packet_with_other_ends_is_as_if_made_with_them(
    pair: tuple[Way, Way], kind: type, payload: bytes
) -> None:
    before, after = pair
    assert rewritten(kind(before, payload), between(before, after)) == kind(after, payload)


@given(pair=pairs, kind=st.sampled_from([Way.tcp, Way.udp]), payload=payloads)
def test_checksum_left_to_hardware_stays_so(
    pair: tuple[Way, Way], kind: type, payload: bytes
) -> None:
    before, after = pair
    made = rewritten(unfinished(kind(before, payload)), between(before, after), unfinished=True)
    assert made == unfinished(kind(after, payload))


@given(pair=pairs, payload=payloads)
def test_echo_changes_its_addresses_alone(pair: tuple[Way, Way], payload: bytes) -> None:
    before, after = pair
    after = replace(after, sport=before.sport)  # its identifier is no port
    assert rewritten(before.echo(payload), between(before, after)) == after.echo(payload)


@given(pair=pairs, kind=kinds, payload=payloads, cut=st.integers(28, 300))
def test_error_and_its_quote_are_as_if_made_with_the_other_ends(
    pair: tuple[Way, Way], kind: type, payload: bytes, cut: int
) -> None:
    before, after = pair
    cut += 40 * (len(before.source) == 16)
    packet = memoryview(bytearray(before.turned().error(kind(before, payload)[:cut])))
    upper = find_upper(packet)
    about = quoted(packet, upper)
    assert about is not None
    name, inner = about
    assert ends(name)[:2] == (
        (before.source, before.sport),
        (before.destination, before.dport),
    )
    rewrite_quoted(
        packet, upper, inner, between(before.turned(), after.turned()), between(before, after)
    )
    assert without_checksums(packet) == without_checksums(
        after.turned().error(kind(after, payload)[:cut])
    )
    if cut >= 60:
        assert packet == after.turned().error(kind(after, payload)[:cut])


def without_checksums(packet: bytes | memoryview) -> bytes:
    """Leave out ICMP's checksum and what is behind the quote's ports: a checksum that was cut off says nothing."""
    at, ip = (20, 20) if packet[0] >> 4 == 4 else (40, 40)
    return bytes(packet[:at]) + bytes(packet[at + 4 : at + 8 + ip + 4])


@pytest.mark.parametrize("way", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", [Way.tcp, Way.udp])
def test_fragments_put_together_are_the_packet_with_the_other_ends(way: Way, kind: type) -> None:
    pod = POD if way is V4 else POD6
    after = replace(way, destination=pod, dport=8080)
    whole = kind(way, bytes(range(200)))
    made = [rewritten(one, between(way, after)) for one in way.fragments(whole, 64)]
    assert made == after.fragments(kind(after, bytes(range(200))), 64)


def test_udp_without_a_checksum_gets_none() -> None:
    packet = bytearray(V4.udp(b"data"))
    packet[26:28] = bytes(2)
    assert rewritten(bytes(packet), between(V4, replace(V4, dport=53)))[26:28] == bytes(2)


def test_udp_checksum_that_becomes_zero_is_written_as_ones() -> None:
    """RFC 768: zero would say that there is none."""
    candidates = (replace(V4, dport=port) for port in range(1, 0x10000))
    after = next(one for one in candidates if one.udp(b"data")[26:28] == b"\xff\xff")
    assert rewritten(V4.udp(b"data"), between(V4, after)) == after.udp(b"data")


@pytest.mark.parametrize(("kind", "at"), [(Way.tcp, 36), (Way.udp, 26), (Way.sctp, 28)])
def test_damaged_packet_stays_damaged(kind: type, at: int) -> None:
    packet = bytearray(kind(V4, b"data"))
    packet[-1] ^= 1
    after = replace(V4, destination=POD, dport=8080)
    right = kind(after, b"data")
    made = rewritten(bytes(packet), between(V4, after))
    assert made[at : at + 2] == right[at : at + 2]
    assert made[-1] != right[-1]


def test_fragmented_sctp_keeps_its_port_or_is_refused() -> None:
    first = V4.fragments(V4.sctp(bytes(100)), 64)[0]
    same = replace(V4, destination=POD)
    assert (
        rewritten(first, between(V4, same))
        == same.fragments(same.sctp(bytes(100)), 64)[0][:20] + (first[20:])
    )
    with pytest.raises(Dropped) as caught:
        rewritten(first, between(V4, replace(same, dport=8080)))
    assert caught.value.reason is Drop.PACKET_FORBIDDEN


@pytest.mark.parametrize("size", [0, 3, 8, 17])
def test_packet_too_short_for_its_checksum_is_refused(size: int) -> None:
    packet = V4.ip(6, bytes(size))
    with pytest.raises(Dropped) as caught:
        rewritten(packet, between(V4, replace(V4, dport=8080)))
    assert caught.value.reason is Drop.PACKET_MALFORMED


@given(way=v4 | v6, kind=kinds)
def test_name_says_the_ends_and_turned_names_the_answer(way: Way, kind: type) -> None:
    packet, answer = memoryview(kind(way)), memoryview(kind(way.turned()))
    name = flow_name(packet, find_upper(packet))
    assert name is not None
    source, destination, protocol = ends(name)
    assert (*source, *destination) == (way.source, way.sport, way.destination, way.dport)
    assert made_name(source, destination, protocol) == name
    assert flow_name(answer, find_upper(answer)) == turned(name)


@pytest.mark.parametrize("way", [V4, V6], ids=["IPv4", "IPv6"])
def test_echo_reply_is_named_as_the_answer_to_its_request(way: Way) -> None:
    request, reply = way.echo(), way.turned().echo(kind=ECHO_REPLY)
    names = [flow_name(memoryview(one), find_upper(memoryview(one))) for one in (request, reply)]
    assert names[0] is not None
    assert turned(names[0]) == names[1]


@pytest.mark.parametrize("length", range(60))
def test_quote_that_is_cut_short_is_named_or_not_but_never_an_error(length: int) -> None:
    options = bytes((6, 0, 1, 4, 0, 0, 0, 0))
    for quote in (V4.tcp(), V6.tcp(), V6.ip(60, options + V6.tcp()[40:])):
        way = V4 if quote[0] >> 4 == 4 else V6
        packet = memoryview(way.turned().error(quote[:length]))
        about = quoted(packet, find_upper(packet))
        header = 20 if way is V4 else 48 if quote[6] == 60 else 40
        assert (about is not None) == (length >= header + 4)
