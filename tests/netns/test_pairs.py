"""Four pairs of patched and unpatched pods in each setting, as the table of docs/operating.md has it."""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from support.capture import Taps
from support.cluster import IN_CLUSTER
from support.namespaces import BRIDGE, Fabric, Pod
from support.processes import run, wait_for
from support.project import Project
from support.servers import tcp_echo, udp_echo
from support.tencrypt import TENCRYPT, Proxy

PAGE: Final = Path(__file__).parents[2] / "docs/operating.md"
BEGINS, ENDS = (
    "<!-- pairs: pytest tests/netns/test_pairs.py --write-documents -->\n",
    "<!-- /pairs -->\n",
)
CANARY: Final = b"canary-of-pairs-31b0"
PORT: Final = 7001
SETTINGS: Final = {
    "strict": "`strict`",
    "permissive": "`permissive`",
    "broken": "`strict`, glass broken in both",
}
PAIRS: Final = {
    ("one", "two"): ("patched", "patched"),
    ("one", "bare1"): ("patched", "unpatched"),
    ("bare1", "one"): ("unpatched", "patched"),
    ("bare1", "bare2"): ("unpatched", "unpatched"),
}


def protect(pods: Fabric, setting: str) -> None:
    """Run Tencrypt in two pods; returns when they know each other."""
    encryption = "permissive" if setting == "permissive" else "strict"
    settings = {**IN_CLUSTER, "roster": "on", "dns": "off", "encryption": encryption}
    project = Project(pods, settings)
    project.start("one", "two")
    for proxy, other in ((project["one"], pods["two"]), (project["two"], pods["one"])):
        wait_for("the other", lambda proxy=proxy, other=other: knows(proxy, other))  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
    if setting == "broken":
        reason = ("--reason", "a table for the documents")
        for proxy in project.proxies.values():
            where = ("--config", proxy.configuration, "--netns", proxy.pod.path)
            run([TENCRYPT, "net", "break-glass", *where, *reason])


def knows(proxy: Proxy, other: Pod) -> bool:
    project = proxy.status()["project"]
    return other.ipv4 in project["members"] and project["kernel_settled"]


def call(client: Pod, server: Pod, kind: socket.SocketKind) -> str:
    """Say the canary; what the program makes of it."""
    with client.socket(socket.AF_INET, kind) as program:
        program.settimeout(3)
        try:
            program.connect((server.ipv4, PORT))
            program.send(CANARY)
            program.recv(100)
        except TimeoutError:
            return "no answer"
        except OSError:
            return "refused at once"
    return "answered"


def observed(pods: Fabric) -> dict[tuple[str, str], str]:
    """Return what becomes of a call of each pair, by TCP and by UDP alike."""
    found = {}
    for client, server in PAIRS:
        outcomes = set()
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            taps = Taps((pods.node, BRIDGE))
            outcome = call(pods[client], pods[server], kind)
            (capture,) = taps.stop().values()
            way = "**in clear**" if capture.holding(CANARY) else "sealed"
            outcomes.add(f"answered, {way}" if outcome == "answered" else outcome)
            # What an unpatched pod says is in clear, whoever hears it.
            silent = outcome == "answered" or PAIRS[client, server][0] == "unpatched"
            assert silent or not capture.holding(CANARY)
        found[client, server] = " / ".join(sorted(outcomes))
    return found


def table(columns: dict[str, dict[tuple[str, str], str]]) -> str:
    lines = [
        f"| caller | called | {' | '.join(SETTINGS[name] for name in columns)} |",
        "|---|---" + "|---" * len(columns) + "|",
    ]
    for pair, kinds in PAIRS.items():
        cells = [columns[name][pair] for name in columns]
        lines.append(f"| {' | '.join([*kinds, *cells])} |")
    return "\n".join(lines) + "\n"


def in_setting(name: str) -> dict[tuple[str, str], str]:
    with Fabric("one", "two", "bare1", "bare2") as pods, ExitStack() as stack:
        for pod in pods.pods.values():
            stack.enter_context(tcp_echo(pod, pod.ipv4, PORT))
            stack.enter_context(udp_echo(pod, pod.ipv4, PORT))
        protect(pods, name)
        return observed(pods)


def test_the_table_of_patched_and_unpatched_pods_is_what_happens(
    request: pytest.FixtureRequest,
) -> None:
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    seen = table({name: in_setting(name) for name in SETTINGS})
    if request.config.getoption("write_documents"):
        PAGE.write_text(before + BEGINS + seen + ENDS + after, encoding="utf-8")
    else:
        assert before + BEGINS + seen + ENDS + after == text
