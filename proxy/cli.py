"""`tencrypt run`, `status`, `rekey`, `verify` and `explain`: what a pod's owner types."""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.drivers.dns_proxy import Way
    from proxy.drivers.project_files import Files
    from proxy.netagent.settings import Address, NetSettings
    from proxy.settings import Settings

FINE, FAILED, WRONG, CA_REFUSED, LACKING, LEAK, NOT_PROVEN = range(7)

RUN_DIRECTORY: Final = Path("/run/tencrypt")

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

_STATUS: Final = """\
Asks a running proxy for its sessions (peer, cipher, key-exchange group, age, bytes), for what it refused
and why, and for the remaining life of its certificate."""

_STATUS_EXAMPLES: Final = """\
examples:
  tencrypt status
  tencrypt status --socket /run/tencrypt/shop.nginx1.sock --json"""

_REKEY: Final = """\
Begins a new session, with new keys, beside each one that a running proxy has, and waits until it has taken over.
No packet is lost; where no handshake succeeds within 5 s, the session there is stays in use (exit code 1)."""

_REKEY_EXAMPLES: Final = """\
examples:
  tencrypt rekey
  tencrypt rekey nginx2 --socket /run/tencrypt/shop.nginx1.sock"""

_VERIFY: Final = """\
Proves that traffic with a peer is encrypted: lets random canaries run there and back by ordinary TCP and UDP
sockets, while both pods look at what passes their interfaces. Both need verify = "project" in their settings.
Takes about a second.

exit codes: 0 proven, 1 no proxy answers, 5 a leak: something was outside in clear, 6 not proven (and why)"""

_VERIFY_EXAMPLES: Final = """\
examples:
  tencrypt verify nginx2
  tencrypt verify 10.0.0.2 --socket /run/tencrypt/shop.nginx1.sock --json"""


_EXPLAIN: Final = """\
Asks a running proxy what would become of a packet: encrypted, bypassed (in clear), refused or local, and by which
fact. What packets would have looked up is looked up."""

_EXPLAIN_EXAMPLES: Final = """\
examples:
  tencrypt explain nginx2.shop.svc.cluster.local 80
  tencrypt explain 10.0.0.2 5432 --json"""


def build(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group's parsers; each sets ``func``, which returns the exit code."""
    from proxy.settings_keys import describe

    run = subparsers.add_parser(
        "run",
        help="run a pod's proxy",
        description=_RUN,
        epilog=f"keys of the configuration:\n{describe()}\n\n{_RUN_EXAMPLES}",
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
    status = subparsers.add_parser(
        "status",
        help="ask a running proxy",
        description=_STATUS,
        epilog=_STATUS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    status.set_defaults(func=_status)
    rekey = subparsers.add_parser(
        "rekey",
        help="renew a running proxy's sessions now",
        description=_REKEY,
        epilog=_REKEY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rekey.add_argument("pod", metavar="POD", nargs="?", help="only the sessions with this pod")
    rekey.set_defaults(func=_rekey)
    verify = subparsers.add_parser(
        "verify",
        help="prove that traffic with a peer is encrypted",
        description=_VERIFY,
        epilog=_VERIFY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument(
        "peer", metavar="PEER", help="a pod to which there is a session, or any member's address"
    )
    verify.set_defaults(func=_verify)
    explain = subparsers.add_parser(
        "explain",
        help="say what becomes of packets to an address or a name, and why",
        description=_EXPLAIN,
        epilog=_EXPLAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument("target", metavar="ADDRESS|NAME", help="an address, or a whole DNS name")
    explain.add_argument("port", metavar="PORT", nargs="?", type=_port, help="the destination port")
    explain.add_argument(
        "--protocol", choices=("tcp", "udp", "sctp", "icmp"), default="tcp", help="tcp if left out"
    )
    explain.set_defaults(func=_explain)
    for command in (status, rekey, verify, explain):
        command.add_argument(
            "--socket",
            metavar="PATH",
            type=Path,
            help=f"the proxy's socket; found in {RUN_DIRECTORY} where there is one",
        )
        command.add_argument(
            "--json", action="store_true", help="print what the proxy answered, for programs"
        )


def _say(message: str, code: int) -> int:
    print(f"tencrypt: {message}", file=sys.stderr)
    return code


def _run(args: argparse.Namespace) -> int:
    from proxy import pod
    from proxy.drivers import clock, project_files, settings_file
    from proxy.netagent.drivers import privileges
    from proxy.netagent.errors import MachineLacksError, NetAgentError
    from proxy.settings import SettingsError

    try:
        settings = settings_file.load(args.config, os.environ, clock.wall())
    except SettingsError as error:
        return _say(str(error), WRONG)
    if os.geteuid() != 0:
        return _say(
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
        return _say(str(error), WRONG)
    except MachineLacksError as error:
        return _say(str(error), LACKING)
    except NetAgentError as error:
        return _say(str(error), WRONG)
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
        return _say(str(error), WRONG)
    except OSError as error:
        return _say(f"admin_socket = {settings.admin_socket}: {error.strerror}", LACKING)

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


def _status(args: argparse.Namespace) -> int:
    from proxy.status import draw

    return ask_proxy("status", args, "GET", "/v1/status", lambda answer: (draw(answer), FINE))


def _rekey(args: argparse.Namespace) -> int:
    from urllib.parse import urlencode

    from proxy import rekey

    def draw(answer: dict[str, object]) -> tuple[str, int]:
        if args.pod is not None and answer["sessions"] == []:
            return f"no session with {args.pod}", FAILED
        text, fine = rekey.draw(answer)
        return text, FINE if fine else FAILED

    query = urlencode({} if args.pod is None else {"pod": args.pod})
    return ask_proxy("rekey", args, "POST", f"/v1/rekey?{query}", draw)


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text}: a port from 1 to 65535")
    return int(text)


def _explain(args: argparse.Namespace) -> int:
    from urllib.parse import urlencode

    from proxy import explain

    query = {"target": args.target, "protocol": explain.PROTOCOLS[args.protocol]}
    if args.port is not None:
        query["port"] = args.port
    url = f"/v1/explain?{urlencode(query)}"
    return ask_proxy("explain", args, "GET", url, lambda answer: (explain.draw(answer), FINE))


def _verify(args: argparse.Namespace) -> int:
    from urllib.parse import urlencode

    from proxy.verify import verdict

    codes = {verdict.PROVEN: FINE, verdict.LEAK: LEAK}

    def draw(answer: dict[str, object]) -> tuple[str, int]:
        return verdict.draw(answer), codes.get(str(answer["verdict"]), NOT_PROVEN)

    return ask_proxy("verify", args, "POST", f"/v1/verify?{urlencode({'peer': args.peer})}", draw)


def ask_proxy(
    name: str,
    args: argparse.Namespace,
    method: str,
    url: str,
    draw: "Callable[[dict[str, object]], tuple[str, int]]",
) -> int:
    """Ask the proxy whose socket is named, or the only one there is; print what it says, and give ``draw``'s code."""
    from proxy.drivers import admin

    path: Path | None = args.socket
    if path is None:
        there = sorted(RUN_DIRECTORY.glob("*.sock")) if RUN_DIRECTORY.is_dir() else []
        if len(there) != 1:
            listing = ", ".join(map(str, there)) or f"none in {RUN_DIRECTORY}"
            return _say(f"{name}: name one proxy's socket with --socket: {listing}", WRONG)
        path = there[0]
    try:
        answer = admin.ask(path, method, url)
        text, code = draw(answer)
        print(json.dumps(answer, indent=2) if args.json else text)
    except OSError as error:
        return _say(f"{name}: no proxy answers at {path}: {error.strerror or error}", FAILED)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        return _say(f"{name}: {path} is not a proxy of this version: {error}", FAILED)
    return code
