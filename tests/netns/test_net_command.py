"""`tencrypt net`: what is planned is what stands, held over every stop, and nothing is left of it."""

import re
import time
from collections.abc import Sequence

import pytest
from support.kernel_state import kernel_state
from support.namespaces import Fabric, Pod
from support.processes import run
from support.project import Project
from support.servers import start_nginx
from support.tencrypt import TENCRYPT, Proxy

CANARY = "canary-of-net-19aa"


def net(
    proxy: Proxy, verb: str, *more: str, accept: Sequence[int] = (0,), config: bool = True
) -> str:
    words = (TENCRYPT, "net", verb, "--netns", proxy.pod.path)
    named = ("--config", proxy.configuration) if config else ()
    done = run([*words, *named, *more], accept=accept)
    return done.stdout + done.stderr


def reaches(client: Pod, host: str) -> bool:
    """Whether the page of a server can be had."""
    words = ["curl", "-sS", "--max-time", "3", f"http://{host}/"]
    return CANARY in client.run(words, accept=range(100)).stdout


@pytest.fixture
def project(fabric: Fabric) -> Project:
    """Two pods, of which nothing runs yet but a web server in nginx2."""
    made = Project(fabric)
    start_nginx(fabric["nginx2"], CANARY)
    for pod in fabric.pods.values():
        made.proxies[pod.label] = Proxy(pod, made.ca, made.members)
    return made


def test_up_sets_what_plan_prints_and_down_leaves_no_trace_beside_foreign_things(
    project: Project,
) -> None:
    one = project["nginx1"]
    one.pod.run(["nft", "add", "table", "inet", "other"])
    one.pod.ip("rule add pref 98 fwmark 7 lookup 77\nroute add 10.5.0.0/24 dev eth0 table 77\n")
    before = kernel_state(one.pod)
    planned = net(one, "plan")
    assert kernel_state(one.pod) == before
    assert "nothing is set up" in net(one, "show", accept=(6,))
    net(one, "up")
    standing = kernel_state(one.pod)
    net(one, "up")
    assert kernel_state(one.pod) == standing
    shown = net(one, "show")
    assert "rules, routes and tenc0 are as planned" in shown
    # Each line that `ip` would be told of is what `ip` shows.
    rules = one.pod.run(["sh", "-c", "ip rule; ip -6 rule"]).stdout
    for line in re.findall(r"^ip -[46] rule add pref (\d+) .*lookup (\d+)", planned, re.MULTILINE):
        assert re.search(rf"^{line[0]}:.*lookup {line[1]} proto 126", rules, re.MULTILINE)
    for line in re.findall(r"route replace (unreachable )?(\S+)", planned):
        routes = one.pod.run(["sh", "-c", "ip r s t 126; ip -6 r s t 126"]).stdout
        assert f"{line[0]}{line[1].removesuffix('/32').removesuffix('/128')} " in routes
    one.pod.run(["ip", "rule", "del", "pref", "99"])
    assert "missing: ip -4 rule add pref 99" in net(one, "show", accept=(6,))
    net(one, "up")
    assert kernel_state(one.pod) == standing
    net(one, "down", config=False)
    assert kernel_state(one.pod) == before
    net(one, "down", config=False)
    assert kernel_state(one.pod) == before


def test_what_is_up_outlives_an_orderly_stop_of_the_proxy(project: Project) -> None:
    one, two = project["nginx1"], project["nginx2"]
    host = two.pod.ipv4
    assert reaches(one.pod, host)
    net(one, "up")
    assert not reaches(one.pod, host)
    for proxy in (one, two):
        proxy.start_and_wait()
    assert reaches(one.pod, host)
    assert "a proxy runs here" in net(one, "down", accept=(1,), config=False)
    assert one.stop() == 0
    assert two.stop() == 0
    assert not reaches(one.pod, host)
    for proxy in (one, two):
        net(proxy, "down", config=False)
    assert reaches(one.pod, host)


def test_break_glass_lets_plaintext_pass_loudly_and_ends_again(project: Project) -> None:
    one, two = project["nginx1"], project["nginx2"]
    host = two.pod.ipv4
    one.start_and_wait()
    assert not reaches(one.pod, host)
    assert "1 to 120 of letters" in net(
        one, "break-glass", "--reason", 'x"; flush ruleset', accept=(2,)
    )
    assert "81 characters: 80 at most" in net(one, "break-glass", "--reason", "x" * 81, accept=(2,))
    assert not reaches(one.pod, host)
    said = net(one, "break-glass", "--reason", "CA lost, incident 4711")
    assert "THE GLASS IS BROKEN" in said
    assert reaches(one.pod, host)
    one.wait_for_event("break_glass")
    assert one.status()["project"]["break_glass"]["reason"] == "CA lost, incident 4711"
    assert "note: break-glass" in net(one, "show")
    text = run([TENCRYPT, "status", "--socket", one.admin_socket]).stdout
    assert "THE GLASS IS BROKEN, plaintext passes: CA lost, incident 4711" in text
    # It outlives a restart: an emergency may need some.
    one.kill_daemon()
    one.start_and_wait()
    assert reaches(one.pod, host)
    net(one, "break-glass", "--end")
    assert not reaches(one.pod, host)
    assert "as planned" in net(one, "show")
    deadline = time.monotonic() + 5  # noqa: TID251 - the daemon looks once a second
    while one.status()["project"]["break_glass"] is not None:
        assert time.monotonic() < deadline  # noqa: TID251 - as above


def test_break_glass_keeps_what_has_a_session_encrypted(project: Project) -> None:
    one, two = project["nginx1"], project["nginx2"]
    for proxy in (one, two):
        proxy.start_and_wait()
    assert reaches(one.pod, two.pod.ipv4)
    before = one.status()["sessions"][0]["packets_out"]
    net(one, "break-glass", "--reason", "a drill")
    assert reaches(one.pod, two.pod.ipv4)
    assert one.status()["sessions"][0]["packets_out"] > before
