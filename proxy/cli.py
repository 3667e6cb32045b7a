"""`tencrypt run`: the composition of a pod's proxy."""

import argparse
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policy.exits import LACKING, WRONG, say

if TYPE_CHECKING:
    from proxy.drivers.dns_proxy import Way
    from proxy.drivers.project_files import Files
    from proxy.netagent.settings import Address, NetSettings
    from proxy.settings import Settings

_RUN: Final = """\
Runs a pod's proxy in the foreground: makes tenc0 with its rules, routes and filter, starts the daemon
under a UID of its own without any capability, and stays to undo all of it at SIGTERM or Ctrl-C.
From the first moment on, members are reached through Tencrypt or not at all; that stays so when the
proxy is killed, until it is started again and stopped in order.

Each key of the configuration can also be set as TENCRYPT_<KEY> in the environment, which wins."""

_RUN_EXAMPLES: Final = """\
examples:
  tencrypt run --config pod.toml
  tencrypt run --config pod.toml --netns /run/netns/nginx1"""


def build(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group's parsers; each sets ``func``, which returns the exit code."""
    from policy.settings_source import describe
    from proxy.settings_keys import KEYS

    run = subparsers.add_parser(
        "run",
        help="run a pod's proxy",
        description=_RUN,
        epilog=f"keys of the configuration:\n{describe(KEYS)}\n\n{_RUN_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "--config", metavar="FILE", help="the pod's settings (TOML); see examples/pod.toml"
    )
    run.add_argument(
        "--netns",
        metavar="PATH",
        help="network namespace to run in, as /run/netns/NAME or /proc/PID/ns/net",
    )
    run.add_argument(
        "--resolv-conf",
        action="store_true",
        help="name the DNS proxy in /etc/resolv.conf while it runs, instead of redirecting queries by the kernel",
    )
    run.set_defaults(func=_run)


def _run(args: argparse.Namespace) -> int:
    from proxy import pod
    from proxy.drivers import clock, project_files, settings_file
    from proxy.netagent.drivers import privileges
    from proxy.netagent.errors import MachineLacksError, NetAgentError
    from proxy.settings import SettingsError

    try:
        settings = settings_file.load(args.config, os.environ, clock.wall())
    except SettingsError as error:
        return say(str(error), WRONG)
    if os.geteuid() != 0:
        return say(
            "run: needs root, to make tenc0 and its rules; the daemon then gives it up", LACKING
        )
    try:
        if args.netns is not None:
            privileges.enter_netns(args.netns)
        if args.resolv_conf:
            settings = pod.by_resolv_conf(settings)
        net = pod.find(settings)
        files = project_files.read_files(settings)
    except SettingsError as error:
        return say(str(error), WRONG)
    except MachineLacksError as error:
        return say(str(error), LACKING)
    except NetAgentError as error:
        return say(str(error), WRONG)
    return _start(settings, net, files, resolv_conf=args.resolv_conf)


def _start(settings: "Settings", net: "NetSettings", files: "Files", *, resolv_conf: bool) -> int:
    from proxy.drivers import resolv_conf as diversion
    from proxy.drivers.line import DaemonsEnd
    from proxy.drivers.tun import Tun
    from proxy.netagent import agent
    from proxy.netagent.errors import MachineLacksError
    from proxy.netagent.plan import PlanError, plan

    try:
        tunnel_mtu = plan(net).tunnel_mtu
        _make_run_directory(Path(settings.admin_socket).parent, settings.daemon_uid)
    except PlanError as error:
        return say(str(error), WRONG)
    except OSError as error:
        return say(f"admin_socket = {settings.admin_socket}: {error.strerror}", LACKING)

    ways: list[Way] = []

    def load() -> None:
        importlib.import_module("proxy.daemon")
        try:
            ways.extend(diversion.listeners(net.resolvers) if resolv_conf else ())
        except OSError as error:
            raise MachineLacksError(f"--resolv-conf: {error.strerror}") from None

    def start_daemon(channel: DaemonsEnd, tun: Tun, kept: "list[Address]") -> int:
        from proxy import daemon
        from proxy.drivers.place import Place

        place = Place(net.addresses, net.resolvers, tunnel_mtu, tuple(kept), files, tuple(ways))
        return daemon.run(settings, place, channel, tun)

    if not resolv_conf:
        return agent.run(net, start_daemon, load=load)
    with diversion.put_back():
        return agent.run(net, start_daemon, load=load, ready=diversion.name_listeners)


def _make_run_directory(directory: Path, uid: int) -> None:
    """Give the daemon a directory for its socket; one that is there already stays as it is."""
    if not directory.exists():
        directory.mkdir(mode=0o755, parents=True)
        os.chown(directory, uid, uid)
