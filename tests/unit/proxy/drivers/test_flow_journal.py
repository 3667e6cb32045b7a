"""What a daemon that was killed leaves of its flows."""

import random
from ipaddress import ip_address
from pathlib import Path

import pytest

from proxy.drivers import flow_journal
from proxy.drivers.flow_journal import FlowJournal
from proxy.packet.name import ends, made_name
from proxy.packet.rewrite import End
from proxy.packet.upper import TCP


def end(text: str, port: int) -> End:
    return End(ip_address(text).packed, port)


FLOWS = {
    made_name(end("10.0.0.1", port), end("10.96.0.80", 80), TCP): end("10.0.0.2", 8080)
    for port in (1000, 1001, 1002)
} | {made_name(end("fd00::1", 1000), end("fd00::80", 80), TCP): end("fd00::2", 65535)}


def test_what_was_open_is_found_by_the_next_daemon_and_what_was_closed_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pod.flows"
    journal = FlowJournal(path)
    assert journal.take() == []
    for name, target in FLOWS.items():
        journal.opened(name, target)
    gone = next(iter(FLOWS))
    journal.closed(gone)
    following = FlowJournal(path)
    assert dict(following.take()) == {name: FLOWS[name] for name in FLOWS if name != gone}
    assert FlowJournal(path).take() == []  # who took it up notes anew what it keeps
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_room_of_what_was_closed_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_journal, "_SIZE", 2 * 64)
    journal = FlowJournal(tmp_path / "pod.flows")
    names = list(FLOWS)
    for name in names:  # the third and fourth find no room
        journal.opened(name, FLOWS[name])
    for name in names[2:]:
        journal.closed(name)
    journal.closed(names[0])
    journal.opened(names[3], FLOWS[names[3]])
    assert dict(FlowJournal(tmp_path / "pod.flows").take()) == {
        name: FLOWS[name] for name in (names[1], names[3])
    }


def test_rubbish_gives_flows_of_the_right_form_or_none(tmp_path: Path) -> None:
    path = tmp_path / "pod.flows"
    path.write_bytes(random.Random(7).randbytes(1 << 16))
    for name, target in FlowJournal(path).take():
        source, destination, _ = ends(name)
        assert len(source.address) == len(destination.address) == len(target.address)
        assert len(target.address) in {4, 16}


def test_without_a_file_flows_are_noted_nowhere(tmp_path: Path) -> None:
    (tmp_path / "pod.flows").symlink_to(tmp_path / "elsewhere")
    journal = FlowJournal(tmp_path / "pod.flows")
    for name, target in FLOWS.items():
        journal.opened(name, target)
        journal.closed(name)
    assert not (tmp_path / "elsewhere").exists()
