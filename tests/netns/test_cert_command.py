"""`tencrypt cert` as an operator types it, beside running pods."""

import json
import subprocess
from pathlib import Path

import pytest
from support.exchanges import udp
from support.namespaces import Fabric
from support.project import Project
from support.tencrypt import TENCRYPT, Json, ProjectCA


@pytest.fixture
def project(fabric: Fabric) -> Project:
    made = Project(fabric)
    made.start(*fabric.pods)
    return made


def cert(
    project: Project, pod: str, *words: str, json_too: bool = True
) -> subprocess.CompletedProcess[str]:
    socket = ("--socket", str(project[pod].admin_socket), *(("--json",) if json_too else ()))
    command = [str(TENCRYPT), "cert", *words, *socket]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def shown(project: Project, pod: str) -> Json:
    found: Json = json.loads(cert(project, pod, "show").stdout)
    return found


def test_rotate_gives_a_fresh_certificate_and_sessions_go_on(
    fabric: Fabric, project: Project
) -> None:
    one, two = fabric["nginx1"], fabric["nginx2"]
    udp(one, two, "ipv4", b"before")
    before = shown(project, "nginx1")["chain"][0]["serial"]
    done = cert(project, "nginx1", "rotate")
    after = json.loads(done.stdout)
    assert (done.returncode, after["renewed"]) == (0, True)
    assert shown(project, "nginx1")["chain"][0]["serial"] == after["serial"] != before
    udp(one, two, "ipv4", b"after")
    assert "certificate_renewed" in project["nginx1"].event_names()


def test_rotate_without_a_ca_keeps_the_certificate_and_says_why(project: Project) -> None:
    before = shown(project, "nginx1")["chain"][0]["serial"]
    project.ca.process.stop()
    done = cert(project, "nginx1", "rotate", json_too=False)
    assert done.returncode == 1
    assert done.stdout.startswith(f"not renewed, {before} stays in use: https://")
    assert shown(project, "nginx1")["chain"][0]["serial"] == before


def test_show_draws_the_chain_below_its_root(project: Project) -> None:
    lines = cert(project, "nginx1", "show", json_too=False).stdout.splitlines()
    assert lines[0] == "CN=Tencrypt project CA"
    assert "└─ spiffe://shop.example/ns/shop/sa/web" in lines
    assert any(line.startswith("renewal in 1") for line in lines)


def test_verify_says_what_a_handshake_would(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "peer.pem"
    file.write_text(shown(project, "nginx2")["chain"][0]["pem"], encoding="ascii")
    good = cert(project, "nginx1", "verify", str(file), json_too=False)
    assert (good.returncode, good.stdout.splitlines()[0]) == (
        0,
        "ACCEPTED  a peer of this project: nginx2, spiffe://shop.example/ns/shop/sa/web",
    )


def test_verify_refuses_another_authoritys(
    fabric: Fabric, project: Project, tmp_path: Path
) -> None:
    other = ProjectCA(fabric, port=8444)
    root = (other.directory / "root.pem").read_text(encoding="ascii")
    file = tmp_path / "root.pem"
    file.write_text(root, encoding="ascii")
    refused = cert(project, "nginx1", "verify", str(file), json_too=False)
    assert refused.returncode == 6
    assert refused.stdout.startswith("REFUSED  untrusted")


def test_a_file_that_is_not_there_is_one_line(project: Project) -> None:
    missing = cert(project, "nginx1", "verify", "/nonexistent")
    assert (missing.returncode, missing.stderr) == (
        2,
        "tencrypt: cert verify: /nonexistent: No such file or directory\n",
    )
