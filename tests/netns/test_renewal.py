"""Certificates of seconds: renewed under traffic without a loss, and healed after the CA was away too long."""

import re
from functools import partial
from signal import SIGINT

from support.exchanges import udp
from support.namespaces import Fabric
from support.processes import Process, wait_for
from support.project import Project
from support.tencrypt import Json, Proxy

LIFE = 8
SHORT = ("--ttl", f"{LIFE}s")
END_SECONDS = LIFE + 10.0


def start(fabric: Fabric) -> Project:
    """Start both proxies; their tokens are over after their first use."""
    project = Project(fabric)
    project.ca.process.stop()
    project.ca.serve(*SHORT)
    for pod in fabric.pods.values():
        token = project.ca.token(pod, options=("--ttl", "10s"))
        project.proxies[pod.label] = Proxy(pod, project.ca, project.members, token=token)
        project[pod.label].start_and_wait()
    return project


def certified(proxy: Proxy) -> list[Json]:
    """What a proxy told of its certificates, the first of them from its token."""
    names = {"certificate_issued", "certificate_renewed"}
    return [event for event in proxy.events() if event["event"] in names]


def wait_for_certificates(proxy: Proxy, count: int) -> None:
    process = proxy.process
    assert process is not None
    what = f"certificate {count}"
    process.wait_until(what, lambda: len(certified(proxy)) >= count, 2 * END_SECONDS)


def has_no_session(proxy: Proxy) -> bool:
    return not proxy.status()["sessions"]


def readiness(fabric: Fabric, name: str) -> str:
    return fabric[name].run(["curl", "-sS", "http://127.0.0.1:15090/readyz"]).stdout


def replies(ping: Process) -> int:
    return ping.stdout.count(" bytes from ")


def test_certificates_are_renewed_under_a_ping_that_loses_nothing(fabric: Fabric) -> None:
    project = start(fabric)
    one, two = fabric["nginx1"], fabric["nginx2"]
    udp(one, two, "ipv4", b"before")
    first = {name: project[name].status()["certificate"]["serial"] for name in fabric.pods}

    ping = one.start(["ping", "-n", "-i", "0.05", two.ipv4])
    ping.wait_until("the first reply", lambda: replies(ping) > 0)
    for name in fabric.pods:
        # The fourth comes after the first has ended: sessions that lived by it are over.
        wait_for_certificates(project[name], 4)
    at_the_end = replies(ping)
    ping.wait_until("some more replies", lambda: replies(ping) > at_the_end + 20)
    ping.stop(SIGINT)

    sent, received = re.findall(r"(\d+) packets transmitted, (\d+) received", ping.stdout)[0]
    assert (int(received), int(sent) > 100) == (int(sent), True)
    for name in fabric.pods:
        status = project[name].status()["certificate"]
        told = certified(project[name])
        assert [event["means"] for event in told] == ["token", *["key"] * (len(told) - 1)]
        assert len({event["serial"] for event in told}) == len(told)
        assert status["serial"] != first[name]
        assert status["renewal"]["failures"] == 0
        assert status["renewal"]["renewals"] >= 3
        assert "certificate_ended" not in project[name].event_names()


def test_pods_whose_certificates_ended_open_no_session_and_heal_when_the_ca_is_back(
    fabric: Fabric,
) -> None:
    project = start(fabric)
    one, two = fabric["nginx1"], fabric["nginx2"]
    udp(one, two, "ipv4", b"before")
    project.ca.process.stop()
    for name in fabric.pods:
        project[name].wait_for_event("certificate_ended", END_SECONDS)
        wait_for("the end of sessions", partial(has_no_session, project[name]))

    # Nobody calls or answers with a certificate that every peer would refuse.
    one.run(["ping", "-n", "-c1", "-W1", two.ipv4], accept=(1,))
    project["nginx1"].wait_for_event("unreachable")
    told = [e["reason"] for e in project["nginx1"].events() if e["event"] == "unreachable"]
    assert told == ["certificate_time"]
    for name in fabric.pods:
        status = project[name].status()["certificate"]
        assert status["remaining_seconds"] <= 0
        assert status["renewal"]["failures"] > 0
        assert "Connection refused" in status["renewal"]["last_error"]
        ended = "the certificate has ended: the certificate authority has not renewed it\n"
        assert readiness(fabric, name) == ended

    project.ca.serve(*SHORT)
    for name in fabric.pods:
        wait_for_certificates(project[name], 2)
    udp(one, two, "ipv4", b"after")
    for name in fabric.pods:
        told = certified(project[name])
        assert {event["means"] for event in told[1:]} == {"key"}, "the token has expired"
        assert project[name].event_names().count("certificate_ended") == 1
        assert readiness(fabric, name) == "ok\n"
        assert project[name].status()["certificate"]["renewal"]["failures"] == 0
