"""The net agent as a process of its own, with a daemon that does nothing."""

import contextlib
import os
import select
import signal
import subprocess
import sys

from support.netagent import ROOT, SETTINGS

PRELUDE = f"""
import json, os, socket, sys, time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from proxy.netagent import agent
from proxy.netagent.drivers import apply, privileges
from proxy.netagent.plan import NetSettings, plan
SETTINGS = {SETTINGS!r}
"""

# What the daemon is to the agent; argv: how it ends.
DAEMON = """
def start_daemon(channel, tun, kept):
    how = sys.argv[1]
    if how.startswith("fail-"):
        return int(how.removeprefix("fail-"))
    if how != "impatient":
        channel.say(b"ready")
    print(os.getpid(), flush=True)
    while True:
        try:
            message, _ = channel.hear()
        except ConnectionResetError:
            message = b""
        if how == "stuck":
            time.sleep(60)
        if message in (b"stop", b""):
            print("ended", message, flush=True)
            return 0
if sys.argv[1] == "impatient":
    undo = apply.tear_down
    def tear_down():
        os.kill(os.getpid(), 15)
        undo()
    apply.tear_down = tear_down
agent.STOP_SECONDS = 0.5 if sys.argv[1] == "stuck" else 10
sys.exit(agent.run(SETTINGS, start_daemon, netns=sys.argv[2]))
"""


def at_root(*command: str) -> tuple[str, ...]:
    """Give the command with this checkout to import from."""
    return ("env", f"PYTHONPATH={ROOT}", *command)


class Agent:
    """A running agent with a daemon that does nothing."""

    def __init__(self, namespace: str, how: str) -> None:
        path = f"/run/netns/{namespace}"
        self.daemon_pid = 0
        self.process = subprocess.Popen(
            at_root(sys.executable, "-c", PRELUDE + DAEMON, how, path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            extra_groups=[4],
            start_new_session=True,
        )

    def daemon(self) -> int:
        """Wait until the daemon runs and return its PID."""
        assert self.process.stdout is not None
        self.daemon_pid = int(self.process.stdout.readline())
        self.daemon_descriptor = os.pidfd_open(self.daemon_pid)
        return self.daemon_pid

    def daemon_ends(self) -> bool:
        """Wait for it although it is nobody's child here."""
        return bool(select.select([self.daemon_descriptor], [], [], 10)[0])

    def kill(self) -> None:
        """End what still runs."""
        if self.daemon_pid:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.daemon_descriptor, signal.SIGKILL)
            os.close(self.daemon_descriptor)
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str, str]:
        """Wait for the agent's end: exit code, what the daemon and what the agent said."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err
