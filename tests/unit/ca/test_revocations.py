"""Who is withdrawn: the list on record, what a namespace hears of it, and the owner's command."""

import json
from pathlib import Path

import pytest
from support.authority import Authority

from ca.lists import MOST_REVOKED, Revoked
from ca.messages import MessageError
from ca.refusal import Refusal, Refused
from ca.revocations import (
    Entry,
    Kind,
    RevocationList,
    check_not_revoked,
    digest,
    parse,
    read_revocations,
    to_json,
)
from tencrypt import main

POD = Entry(Kind.POD, "shop", "web-1", 100, "its node")
ACCOUNT = Entry(Kind.IDENTITY, "bank", "teller", 100)
LEAF = Entry(Kind.CERTIFICATE, "", "5b1f", 100, ends=200)


def listed(*entries: Entry) -> RevocationList:
    found = RevocationList()
    for entry in entries:
        found = found.adding(entry)
    return found


def test_a_namespace_hears_of_its_own_and_of_all_certificates() -> None:
    found = listed(POD, ACCOUNT, LEAF)
    assert found.seen_by("shop", {"77"}) == Revoked(("5b1f", "77"), ("web-1",), ())
    assert found.seen_by("bank") == Revoked(("5b1f",), (), ("teller",))


def test_what_is_withdrawn_twice_is_one_entry_and_what_is_lifted_is_gone() -> None:
    found = listed(POD)
    assert found.adding(POD) is found
    assert found.lifting(POD.what) == RevocationList()
    assert found.lifting(LEAF.what) is found


def test_a_certificate_that_has_ended_is_forgotten_when_another_entry_comes() -> None:
    later = Entry(Kind.POD, "shop", "web-2", 201)
    assert listed(LEAF, later).entries == (later,)
    assert LEAF in listed(LEAF, Entry(Kind.POD, "shop", "web-2", 200)).entries


def test_a_list_is_bounded() -> None:
    full = RevocationList(
        tuple(Entry(Kind.POD, "shop", f"w{number}", 1) for number in range(MOST_REVOKED))
    )
    with pytest.raises(MessageError, match="4096 entries"):
        full.adding(POD)


@pytest.mark.parametrize(
    ("pod", "account", "serials", "named"),
    [
        ("web-1", "x", (), "pod web-1"),
        ("x", "teller", (), "service account teller"),
        ("x", "x", ("1", "5b1f"), "certificate 5b1f"),
    ],
)
def test_each_way_to_be_withdrawn_is_refused_by_its_name(
    pod: str, account: str, serials: tuple[str, ...], named: str
) -> None:
    revoked = Revoked(("5b1f",), ("web-1",), ("teller",))
    with pytest.raises(Refused, match=named) as refused:
        check_not_revoked(revoked, pod, account, serials)
    assert refused.value.reason is Refusal.REVOKED
    check_not_revoked(revoked, "x", "x", ("1",))


def test_whatever_differs_has_another_digest() -> None:
    some = [Revoked(), Revoked(("1",)), Revoked((), ("1",)), Revoked((), (), ("1",))]
    assert len({digest(one) for one in some}) == len(some)


def test_a_document_gives_back_what_went_in() -> None:
    found = listed(POD, ACCOUNT, LEAF)
    assert parse(json.loads(json.dumps(to_json(found)))) == found
    assert parse({}) == RevocationList()


@pytest.mark.parametrize(
    "content",
    [
        {"entries": 7},
        {"entries": [7]},
        {"entries": [{}]},
        {"entries": [to_json(listed(POD))["entries"]]},
        {"x": []},
    ],
)
def test_a_damaged_document_is_an_error(content: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        parse(content)


def test_the_owner_withdraws_lists_and_lifts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path / "ca")
    words = ["ca", "revoke", "--dir", str(authority.directory)]

    def run(*more: str) -> tuple[int, str, str]:
        code = main([*words, *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    assert run("--pod", "shop/web-1", "--reason", "a test")[:2] == (
        0,
        "pod shop/web-1 is withdrawn\n",
    )
    assert run("--pod", "shop/web-1")[1] == "pod shop/web-1 was withdrawn already\n"
    assert run("--certificate", "0A:1B")[1] == "certificate a1b is withdrawn\n"
    shown = json.loads(run("--json")[1])
    assert [one["name"] for one in shown] == ["web-1", "a1b"]
    assert "shop/web-1" in run()[1]
    assert run("--pod", "shop/web-1", "--lift")[1] == "pod shop/web-1 is withdrawn no more\n"
    (left,) = read_revocations(authority.documents)[0].entries
    assert left.ends == left.since + 31 * 86_400
    for wrong in (["--pod", "web-1"], ["--certificate", "xyz"], ["--issuer", "12"]):
        code, _, err = run(*wrong, "--passphrase-file", str(tmp_path / "none"))
        assert code == 2
        assert err.startswith("tencrypt: ca revoke: ")
        assert err.count("\n") == 1
