"""Limits on suites and groups between running proxies: status says what was allowed, and what was agreed."""

from support.exchanges import udp
from support.namespaces import Fabric
from support.processes import run
from support.project import Project
from support.tencrypt import READY_SECONDS, TENCRYPT, Proxy

AES, CHACHA = "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"
HYBRID, P384 = "X25519MLKEM768", "secp384r1"
LIMITS = {
    "nginx1": {"tls_suites": [CHACHA], "tls_groups": [P384]},
    "nginx2": {"tls_suites": [AES, CHACHA], "tls_groups": [HYBRID, P384]},
}


def test_status_says_what_is_allowed_and_what_was_agreed(fabric: Fabric) -> None:
    project = Project(fabric)
    proxies = {
        name: Proxy(fabric[name], project.ca, project.members, settings=limits)
        for name, limits in LIMITS.items()
    }
    for proxy in proxies.values():
        proxy.start()
    for proxy in proxies.values():
        proxy.wait_for_event("ready", READY_SECONDS)

    udp(fabric["nginx2"], fabric["nginx1"], "ipv4", b"hello")

    for name, proxy in proxies.items():
        status = proxy.status()
        limits = LIMITS[name]
        assert status["tls"] == {"suites": limits["tls_suites"], "groups": limits["tls_groups"]}
        assert [(s["cipher"], s["group"]) for s in status["sessions"]] == [(CHACHA, P384)]
    text = run([TENCRYPT, "status", "--socket", proxies["nginx1"].admin_socket]).stdout
    assert text.splitlines()[2] == f"TLS limited to {CHACHA}; {P384}"
