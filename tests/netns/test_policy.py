"""Rules of a file, as programs in pods meet them: refused at once at either end, changed while all runs."""

import errno
import socket
import time
from pathlib import Path

import pytest
from support.namespaces import Fabric, Pod, family_of
from support.processes import run, wait_for
from support.project import Project
from support.tencrypt import NAMESPACE, TENCRYPT, Json, Proxy

PORT = 7002
OPEN = ""
CLOSED = '[[rule]]\nto = "web"\nfrom = ["batch"]\nprotocol = "tcp"\nports = [7002]\n'
UDP_CLOSED = '[[rule]]\nto = "web"\nfrom = ["batch"]\nprotocol = "udp"\n'


def rules_file(fabric: Fabric, pod: str, text: str) -> Path:
    path = fabric.directory / f"{pod}.rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def start(fabric: Fabric, one: str, two: str, mode: str = "enforce") -> Project:
    """Start both pods with rules of their own; a third kind of pod, `batch`, there is none."""
    project = Project(fabric)
    for pod_name, text in (("nginx1", one), ("nginx2", two)):
        path = rules_file(fabric, pod_name, text)
        settings = {"rules_file": str(path), "rules": mode}
        proxy = Proxy(fabric[pod_name], project.ca, project.members, settings=settings)
        project.proxies[pod_name] = proxy
        proxy.start()
    for proxy in project.proxies.values():
        proxy.wait_for_event("ready", 15)
    return project


def call(pod: Pod, host: str, kind: socket.SocketKind) -> int:
    """Call a port of a pod, and hear what comes of it: 0, or errno."""
    with pod.socket(family_of(host), kind) as program:
        program.settimeout(8)
        try:
            program.connect((host, PORT))
            program.send(b"hello")
            program.recv(10)
        except OSError as error:
            if error.errno is None:
                raise
            return error.errno
    return 0


def rules_of(project: Project, pod_name: str) -> Json:
    rules: Json = project[pod_name].status()["project"]["rules"]
    return rules


@pytest.mark.parametrize("refusing", ["nginx1", "nginx2"])
def test_a_program_hears_at_once_that_rules_refuse_whichever_end_has_them(
    fabric: Fabric, refusing: str
) -> None:
    texts = {"nginx1": OPEN, "nginx2": OPEN, refusing: CLOSED + UDP_CLOSED}
    project = start(fabric, texts["nginx1"], texts["nginx2"])
    one, two = fabric["nginx1"], fabric["nginx2"]
    for host in (two.ipv4, two.ipv6):
        began = time.monotonic()  # noqa: TID251 - below the seconds that silence would take
        assert call(one, host, socket.SOCK_STREAM) == errno.ECONNREFUSED
        assert call(one, host, socket.SOCK_DGRAM) in {errno.EHOSTUNREACH, errno.EACCES}
        assert time.monotonic() < began + 5  # noqa: TID251 - as above
    drops = project[refusing].status()["drops"]
    assert drops["policy_out" if refusing == "nginx1" else "policy_in"] >= 4


def test_rules_are_read_again_when_they_change_and_wrong_ones_leave_the_last_in_force(
    fabric: Fabric,
) -> None:
    project = start(fabric, OPEN, OPEN)
    one, two = fabric["nginx1"], fabric["nginx2"]
    with two.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((two.ipv4, PORT))
        server.listen()
        server.settimeout(10)
        with one.socket(socket.AF_INET, socket.SOCK_STREAM) as program:
            program.settimeout(10)
            program.connect((two.ipv4, PORT))
            accepted, _ = server.accept()
            with accepted:
                program.send(b"before")
                assert accepted.recv(10) == b"before"
                rules_file(fabric, "nginx2", CLOSED + '[[rule]]\nto = "web"\nfrom = []\n')
                wait_for("the rules", lambda: rules_of(project, "nginx2")["count"] == 2)
                # An open connection ends too, and its program hears it.
                with pytest.raises(ConnectionResetError):  # noqa: PT012 - at the first or second
                    program.send(b"after")
                    program.recv(10)
    rules_file(fabric, "nginx2", '[[rule]]\nto = "web"\nform = []\n')
    wait_for("the error", lambda: rules_of(project, "nginx2")["error"] is not None)
    assert "rules.toml:3: form = []: not a key of a rule: did you mean from?" in str(
        rules_of(project, "nginx2")["error"]
    )
    assert call(one, two.ipv4, socket.SOCK_STREAM) == errno.ECONNREFUSED
    refused = project["nginx2"].status()["drops"]["policy_in"]
    rules_file(fabric, "nginx2", OPEN)
    wait_for("the rules", lambda: rules_of(project, "nginx2")["count"] == 0)
    # Refused by the kernel now, for nobody listens any more.
    assert call(one, two.ipv4, socket.SOCK_STREAM) == errno.ECONNREFUSED
    assert project["nginx2"].status()["drops"]["policy_in"] == refused


def test_in_audit_nothing_is_refused_and_all_is_counted(fabric: Fabric) -> None:
    project = start(fabric, OPEN, CLOSED, mode="audit")
    one, two = fabric["nginx1"], fabric["nginx2"]
    with two.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((two.ipv4, PORT))
        server.listen()
        with one.socket(socket.AF_INET, socket.SOCK_STREAM) as program:
            program.settimeout(10)
            program.connect((two.ipv4, PORT))
            [audited] = rules_of(project, "nginx2")["audited"]
    assert (audited["direction"], audited["protocol"], audited["port"]) == ("in", 6, PORT)
    assert audited["peer"].endswith(f"/ns/{NAMESPACE}/sa/web")


def test_a_pod_with_wrong_rules_does_not_start(fabric: Fabric) -> None:
    project = Project(fabric)
    path = rules_file(fabric, "nginx1", "[[rule]]\nto = 7\nfrom = []\n")
    proxy = Proxy(fabric["nginx1"], project.ca, project.members, settings={"rules_file": str(path)})
    words = (TENCRYPT, "run", "--config", proxy.configuration, "--netns", fabric["nginx1"].path)
    done = run(words, accept=(2,))
    assert done.stderr == (
        f"tencrypt: {path}:2: to = 7: a service account's name, or a pod's SPIFFE id\n"
    )
