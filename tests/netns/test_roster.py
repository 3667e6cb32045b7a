"""The authority's signed list of live pods, as pods and their programs meet it; no DNS, no list of members."""

import socket
from collections.abc import Callable

import pytest
from support.capture import Taps
from support.exchanges import leaks
from support.namespaces import Fabric, Pod, family_of
from support.processes import run, wait_for
from support.project import Project
from support.servers import udp_echo
from support.tencrypt import TENCRYPT, Proxy, Setting

CANARY = b"canary-of-the-roster-5d20"
PORT = 7003
BY_ROSTER: dict[str, Setting] = {
    "members": None,
    "cluster_ranges": ["10.77.0.0/16", "fd77:7465:6e63::/48"],
    "dns": "off",
}


def exchange(one: Pod, two: Pod, host: str) -> bytes | None:
    """Ask an echo server, again while nothing comes back; None where nothing ever does."""
    with udp_echo(two, host, PORT), one.socket(family_of(host), socket.SOCK_DGRAM) as program:
        program.connect((host, PORT))
        program.settimeout(1)
        for _ in range(6):
            try:
                program.send(CANARY)
                return program.recv(100)
            except OSError:
                continue
    return None


def clear(fabric: Fabric, act: Callable[[], bytes | None]) -> tuple[bytes | None, bool]:
    """What an exchange brings, and whether anybody could read it."""
    taps = Taps.everywhere(fabric)
    answer = act()
    return answer, bool(leaks(taps.stop(), CANARY))


def members(project: Project, pod_name: str) -> dict[str, str]:
    found: dict[str, str] = project[pod_name].status()["project"]["members"]
    return found


def test_pods_know_each_other_by_the_roster_and_one_that_stops_is_gone_from_it(
    fabric: Fabric,
) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    project = Project(fabric, BY_ROSTER)
    project.start()
    for host in (two.ipv4, two.ipv6):
        wait_for("the roster", lambda host=host: host in members(project, "nginx1"))  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
        assert members(project, "nginx1")[host] in {"roster", "session"}
        assert clear(fabric, lambda host=host: exchange(one, two, host)) == (CANARY, False)  # type: ignore[misc]  # as above
    assert project["nginx1"].status()["project"]["roster"]["entries"] == 2
    assert project["nginx2"].stop() == 0
    wait_for("the release", lambda: members(project, "nginx1") == {})
    assert project["nginx1"].status()["project"]["roster"]["entries"] == 1


def test_permissive_is_clear_to_a_pod_without_a_certificate_and_sealed_once_it_has_one(
    fabric: Fabric,
) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    project = Project(fabric, {**BY_ROSTER, "encryption": "permissive"})
    project.start("nginx1")
    assert clear(fabric, lambda: exchange(one, two, two.ipv4)) == (CANARY, True)
    assert clear(fabric, lambda: exchange(two, one, one.ipv4)) == (CANARY, True)
    project.start("nginx2")
    wait_for("the roster", lambda: two.ipv4 in members(project, "nginx1"))
    wait_for("the kernel", lambda: bool(project["nginx1"].status()["project"]["kernel_settled"]))
    wait_for("the other's", lambda: one.ipv4 in members(project, "nginx2"))
    wait_for("the kernel", lambda: bool(project["nginx2"].status()["project"]["kernel_settled"]))
    assert clear(fabric, lambda: exchange(one, two, two.ipv4)) == (CANARY, False)
    assert clear(fabric, lambda: exchange(two, one, one.ipv4)) == (CANARY, False)
    # Who ever held a session is never sent clear again, whatever becomes of the other.
    project["nginx2"].kill_daemon()
    assert clear(fabric, lambda: exchange(one, two, two.ipv4)) == (None, False)


def test_permissive_is_clear_as_before_once_the_glass_is_whole_again(fabric: Fabric) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    project = Project(fabric, {**BY_ROSTER, "encryption": "permissive"})
    project.start("nginx1")
    words = ("--config", project["nginx1"].configuration, "--netns", one.path)
    for more in (("--reason", "a drill"), ("--end",)):
        run([TENCRYPT, "net", "break-glass", *words, *more])
    leave = ["nft", "list", "set", "inet", "tencrypt", "fresh4"]
    wait_for("leave", lambda: "timeout 5" in one.run(leave).stdout, 30)
    assert clear(fabric, lambda: exchange(one, two, two.ipv4)) == (CANARY, True)


@pytest.mark.parametrize("encryption", ["strict", "permissive"])
def test_without_a_roster_nothing_is_clear(fabric: Fabric, encryption: str) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    project = Project(fabric, {**BY_ROSTER, "encryption": encryption})
    project.ca.process.stop()
    settings = {**BY_ROSTER, "encryption": encryption}
    proxy = Proxy(one, project.ca, project.members, settings=settings)
    proxy.start()
    proxy.wait_for_event("ca_unreachable")
    assert clear(fabric, lambda: exchange(one, two, two.ipv4)) == (None, False)
