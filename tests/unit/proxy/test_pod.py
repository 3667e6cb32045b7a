"""What a pod finds out by itself, and how it says that it cannot."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from support.settings_text import file_text, parse

from proxy import pod
from proxy.settings import SettingsError

IN_CLUSTER = {"members": None, "cluster_ranges": '["10.0.0.0/16"]'}


def resolvers(path: Path, monkeypatch: pytest.MonkeyPatch, text: str, **keys: str | None) -> object:
    path.write_text(text, encoding="ascii")
    monkeypatch.setattr(pod, "RESOLV_CONF", path)
    return pod._resolvers(parse(file_text(**{**IN_CLUSTER, **keys})))


def test_resolvers_are_those_of_resolv_conf_unless_the_settings_name_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = tmp_path / "resolv.conf", "search shop\nnameserver 10.96.0.10\n"
    assert resolvers(path, monkeypatch, text) == (ip_address("10.96.0.10"),)
    named = resolvers(path, monkeypatch, text, resolvers='["10.96.0.11"]')
    assert named == (ip_address("10.96.0.11"),)
    # Without ranges there is nothing to find out by DNS.
    listed = resolvers(path, monkeypatch, text, cluster_ranges=None, members='["10.0.0.0/24"]')
    assert listed == ()


def test_a_resolv_conf_that_names_nobody_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resolv.conf"
    with pytest.raises(SettingsError) as caught:
        resolvers(path, monkeypatch, "search shop\n")
    assert str(caught.value) == f"{path}: names no nameserver: set resolvers"
