"""What stands in the kernel after a set-up is the text that people reviewed."""

import json
import re
import subprocess
from ipaddress import ip_network

import pytest
from support.golden import FOLDER, SETTINGS, golden_plan
from support.netagent import Pair, inside

from proxy.netagent.drivers.apply import set_up

UNREACHABLE = "7"  # RTN_UNREACHABLE, as `ip -N` shows it


def filter_in(namespace: str) -> str:
    command = ["ip", "netns", "exec", namespace, "nft", "-s", "list", "table", "inet", "tencrypt"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def shown(namespace: str, *words: str) -> list[dict[str, object]]:
    command = ["ip", "-n", namespace, "-j", "-N", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[dict[str, object]] = json.loads(done.stdout or "[]")
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_set_up_is_the_reviewed_text(pair: Pair, name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text("ascii")
    with inside(pair.a):
        set_up(golden_plan(name))
    nft = text.split("<<EOF\n")[1].split("EOF\n")[0]
    subprocess.run(
        ["ip", "netns", "exec", pair.b, "nft", "-f", "-"], input=nft, text=True, check=True
    )
    assert filter_in(pair.a) == filter_in(pair.b)
    for version in ("-4", "-6"):
        stated = re.findall(
            rf"^ip {version} route replace (unreachable )?(\S+) ", text, re.MULTILINE
        )
        routes = shown(pair.a, version, "route", "show", "table", "126")
        assert sorted((one.get("type") == UNREACHABLE, network(one)) for one in routes) == sorted(
            (bool(kind), str(ip_network(where))) for kind, where in stated
        )
        stated = re.findall(
            rf"^ip {version} rule add pref (\d+) .*lookup (\d+)", text, re.MULTILINE
        )
        rules = shown(pair.a, version, "rule", "show")
        rules = [one for one in rules if str(one.get("protocol")) == "126"]
        assert sorted((str(one["priority"]), str(one["table"])) for one in rules) == sorted(stated)


def network(route: dict[str, object]) -> str:
    return str(ip_network(str(route["dst"])))
