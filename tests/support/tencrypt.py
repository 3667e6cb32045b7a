"""Tencrypt as a user runs it: the installed command, a CA on the node, a proxy in each pod."""

import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from support.capture import SESSION_PORT
from support.namespaces import BRIDGE_IPV4, Fabric, Pod
from support.processes import HarnessError, Process, run

TENCRYPT: Final = Path(sys.executable).parent / "tencrypt"
TRUST_DOMAIN: Final = "shop.example"
NAMESPACE: Final = "shop"
SERVICE_ACCOUNT: Final = "web"
CA_PORT: Final = 8443
DAEMON_UID: Final = 15443
READY_SECONDS: Final = 15.0

# Settings that a run of the tests gives to each proxy whose test does not set them itself.
OF_EVERY_PROXY: Final[dict[str, list[str]]] = {}

Setting = str | int | Sequence[str] | Mapping[str, int] | None

# What the command prints as JSON is judged by the tests that read it.
Json = dict[str, Any]


class ProjectCA:
    """The embedded CA, served on the bridge's address, which is no member."""

    def __init__(
        self,
        fabric: Fabric,
        *,
        trust_domain: str = TRUST_DOMAIN,
        port: int = CA_PORT,
        serve_options: Sequence[str] = (),
    ) -> None:
        """Make and serve it; returns once it answers."""
        self.trust_domain = trust_domain
        self.directory = fabric.directory / f"ca.{port}"
        self._passphrase = fabric.directory / f"ca.{port}.passphrase"
        self._passphrase.touch(mode=0o600)
        self._passphrase.write_text("correct horse battery staple\n", encoding="ascii")
        secret = ("--passphrase-file", self._passphrase)
        run([TENCRYPT, "ca", "init", self.directory, "--trust-domain", trust_domain, *secret])
        self._command = (TENCRYPT, "ca", "serve", "--dir", self.directory, *secret)
        self._port = port
        self._node = fabric.node
        self.address = f"https://{BRIDGE_IPV4}:{port}"
        self.serve(*serve_options)

    def serve(self, *options: str) -> None:
        """Serve it; returns once it answers. One server a directory: `stop` the former first."""
        listen = ("--listen", f"{BRIDGE_IPV4}:{self._port}")
        self.process = self._node.start([*self._command, *listen, *options])
        pattern = re.compile(r"sha256:[0-9a-fA-F:]{64,}")
        self.process.wait_until("ready", lambda: bool(pattern.search(self.process.stdout)))
        self.fingerprint = pattern.findall(self.process.stdout)[0]

    def token(
        self,
        pod: Pod,
        *,
        namespace: str = NAMESPACE,
        service_account: str = SERVICE_ACCOUNT,
        addresses: Sequence[str] | None = None,
        options: Sequence[str] = (),
    ) -> str:
        """Make a join token; by default for the pod's own name and addresses."""
        named = [pod.ipv4, pod.ipv6] if addresses is None else addresses
        who = ("--name", pod.label, "--namespace", namespace, "--service-account", service_account)
        where = [word for address in named for word in ("--address", address)]
        command = (TENCRYPT, "ca", "token", "--dir", self.directory)
        return run([*command, *who, *where, *options]).stdout.strip()

    def rotate(self, step: str, *options: str, accept: Sequence[int] = (0,)) -> int:
        """Run a step of `tencrypt ca rotate`; the exit code."""
        secret = ("--passphrase-file", self._passphrase)
        command: list[str | Path] = [TENCRYPT, "ca", "rotate", step, "--dir", self.directory]
        command += [*secret, *options]
        return run(command, accept=accept, timeout=120).returncode

    def roots(self) -> Json:
        """What `tencrypt ca rotate status --json` prints."""
        done = run([TENCRYPT, "ca", "rotate", "status", "--dir", self.directory, "--json"])
        return _json_object(done.stdout)

    def revoke(self, *options: str) -> None:
        """Run `tencrypt ca revoke`."""
        run([TENCRYPT, "ca", "revoke", "--dir", self.directory, *options])

    def show(self) -> Json:
        """What `tencrypt ca show --json` prints."""
        done = run([TENCRYPT, "ca", "show", "--dir", self.directory, "--json"])
        return _json_object(done.stdout)


class Proxy:
    """`tencrypt run` for one pod: the net agent and the daemon that it forks."""

    def __init__(
        self,
        pod: Pod,
        ca: ProjectCA,
        members: Sequence[str],
        *,
        token: str | None = None,
        settings: Mapping[str, Setting] | None = None,
    ) -> None:
        """Write the pod's configuration; `settings` overrides single keys of it, None leaves one out."""
        self.pod = pod
        run_directory = pod.directory / f"{pod.label}.run"
        run_directory.mkdir(mode=0o700, exist_ok=True)
        os.chown(run_directory, DAEMON_UID, DAEMON_UID)
        self.admin_socket = run_directory / "admin.sock"
        self.configuration = pod.directory / f"{pod.label}.toml"
        keys: dict[str, Setting] = {
            "trust_domain": ca.trust_domain,
            "name": pod.label,
            "namespace": NAMESPACE,
            "service_account": SERVICE_ACCOUNT,
            "interface": "eth0",
            "addresses": [pod.ipv4, pod.ipv6],
            "session_port": SESSION_PORT,
            "ca_address": ca.address,
            "ca_root_fingerprint": ca.fingerprint,
            "token": ca.token(pod) if token is None else token,
            "members": list(members),
            "admin_socket": str(self.admin_socket),
            **OF_EVERY_PROXY,
            **(settings or {}),
        }
        given = {key: value for key, value in keys.items() if value is not None}
        text = "".join(f"{key} = {_toml(value)}\n" for key, value in given.items())
        self.configuration.touch(mode=0o600)
        self.configuration.write_text(text, encoding="utf-8")
        self.process: Process | None = None

    def start(self, command: Sequence[str | Path] | None = None) -> Process:
        """Run it without waiting; `command` stands in place of `tencrypt run` as a user types it."""
        usual = (TENCRYPT, "run", "--config", self.configuration, "--netns", self.pod.path)
        self.process = self.pod.start_as_is(command or usual, "tencrypt")
        return self.process

    def start_and_wait(self, command: Sequence[str | Path] | None = None) -> None:
        """Run it; returns when its data path is up."""
        self.start(command)
        self.wait_for_event("ready", READY_SECONDS)

    def wait_for_event(self, name: str, timeout: float = 10.0) -> None:
        """Wait until it has logged an event of that name since it was last started."""
        self._running().wait_until(name, lambda: name in self.event_names(), timeout)

    def event_names(self) -> list[str]:
        """Names of the events that it has logged, in order."""
        return [str(event.get("event")) for event in self.events()]

    def events(self) -> list[Json]:
        """What it has logged since it was last started; lines that are not JSON are left out."""
        return [
            json.loads(line)
            for line in self._running().stderr.splitlines(keepends=True)
            if line.startswith("{") and line.endswith("}\n")
        ]

    def status(self) -> Json:
        """What `tencrypt status --json` prints."""
        return _json_object(
            run([TENCRYPT, "status", "--socket", self.admin_socket, "--json"]).stdout
        )

    def verify(self, peer: str) -> tuple[int, Json]:
        """What `tencrypt verify --json` says of a peer: exit code and answer."""
        ask = ("--socket", self.admin_socket, "--json")
        done = run([TENCRYPT, "verify", peer, *ask], accept=(0, 5, 6))
        return done.returncode, _json_object(done.stdout)

    def daemon_pid(self) -> int:
        """Process id of the daemon: of the agent's children the one of its user."""
        agent = self._running().pid
        children = Path(f"/proc/{agent}/task/{agent}/children").read_text(encoding="ascii").split()
        daemons = [pid for pid in children if Path(f"/proc/{pid}").stat().st_uid == DAEMON_UID]
        if len(daemons) != 1:
            raise HarnessError(f"the agent has {len(daemons)} daemons, expected one")
        return int(daemons[0])

    def kill_daemon(self) -> int:
        """Kill the daemon with -9; the agent's exit code, which ends after it."""
        # The agent has not waited for its child yet, so the pid cannot be another's.
        os.kill(self.daemon_pid(), signal.SIGKILL)
        return self._running().wait()

    def stop(self) -> int:
        """Ask the agent to end in order; its exit code."""
        return self._running().stop()

    def _running(self) -> Process:
        if self.process is None:
            raise HarnessError(f"no proxy was started in {self.pod.label}")
        return self.process


def _toml(value: Setting) -> str:
    # Strings, numbers and lists of strings are written alike in TOML and JSON.
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f'"{key}" = {one}' for key, one in value.items()) + " }"
    return json.dumps(value)


def _json_object(text: str) -> Json:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise HarnessError(f"expected a JSON object: {text[:200]}")
    return value
