"""resolv.conf: whom a pod asks, and that a rewrite loses nothing."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dns.resolv import ResolvError, diverted, parse_resolvers, restored
from proxy.drivers import resolv_conf

POD = """\
search shop.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
nameserver fd00::a
options ndots:5
"""


def test_nameservers_in_their_order_and_three_at_most() -> None:
    assert parse_resolvers(POD) == (ip_address("10.96.0.10"), ip_address("fd00::a"))
    four = "".join(f"nameserver 10.0.0.{n}\n" for n in (4, 3, 3, 2, 1))
    assert [str(one) for one in parse_resolvers(four)] == ["10.0.0.4", "10.0.0.3", "10.0.0.2"]


@pytest.mark.parametrize(
    "text", ["", "search x\n", "nameserver ten\n", "nameserver fe80::1%eth0\n"]
)
def test_what_names_none_is_one_line(text: str) -> None:
    with pytest.raises(ResolvError, match="nameserver"):
        parse_resolvers(text)


def test_the_rewritten_file_asks_us_and_keeps_search_and_options() -> None:
    text = diverted(POD)
    asked = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")]
    assert asked == ["127.0.0.1", "127.0.0.2"]
    assert "search shop.svc.cluster.local" in text
    assert "options ndots:5" in text
    assert diverted(text) == text
    assert parse_resolvers(text) == parse_resolvers(POD)


@given(st.lists(st.sampled_from([*POD.splitlines(), "# a comment", "", "nameserver 10.9.9.9"])))
def test_what_was_rewritten_comes_back_whole(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    assert restored(diverted(text)) == text
    assert restored(diverted(text) + "options timeout:1\n") == text + "options timeout:1\n"


@given(st.text(alphabet="namesrv 12.\r\n\t\x0c\x85\u2028#;", max_size=60), st.booleans())
def test_whatever_stood_there_comes_back_to_the_letter(text: str, named: bool) -> None:  # noqa: FBT001 - drawn
    text = f"{text}\nnameserver 10.0.0.1" if named else text
    assert restored(text) == text
    assert restored(diverted(text)) == text
    assert restored(diverted(diverted(text))) == text


def test_a_comment_of_somebody_else_stays_a_comment() -> None:
    text = "# tencrypt: read the manual\nnameserver 10.0.0.1  # tencrypt:\n"
    assert restored(text) == text
    assert restored(diverted(text)) == text


def test_the_file_is_rewritten_in_place_and_put_back(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(POD, encoding="ascii")
    inode = path.stat().st_ino
    resolv_conf.divert(path)
    assert "nameserver 127.0.0.1" in path.read_text(encoding="ascii")
    resolv_conf.divert(path)
    resolv_conf.restore(path)
    resolv_conf.restore(path)
    assert path.read_text(encoding="ascii") == POD
    assert path.stat().st_ino == inode
