"""`tencrypt net`: what the kernel holds for a pod, with or without a daemon."""

import argparse
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policy.exits import FAILED, FINE, LACKING, NOT_SO, WRONG, say

if TYPE_CHECKING:
    from proxy.netagent.plan import Plan
    from proxy.netagent.settings import Address, NetSettings
    from proxy.settings import Settings

_LONGEST_REASON: Final = 80

_NET: Final = """\
What the kernel holds for a pod: nftables table inet tencrypt, ip rules 97 to 99, routes of table 126, and tenc0.
Nothing else is read or touched. All of it outlives every process; what `up` has put there stays until `down`."""

_EXAMPLES: Final = """\
examples:
  tencrypt net plan --config pod.toml
  tencrypt net up --config pod.toml        # before the application starts, as in an init container
  tencrypt net show --config pod.toml
  tencrypt net break-glass --config pod.toml --reason "CA lost, incident 4711"
  tencrypt net break-glass --config pod.toml --end
  tencrypt net down

exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 4 a privilege, device or program is missing,
6 (show) what stands differs from the plan"""

_HELP: Final = {
    "plan": "print what `up` would set, and touch nothing",
    "up": "put filter, rules, routes and tenc0 there, and hold them until `down`",
    "down": "take away all that is Tencrypt's and nothing else",
    "show": "print what stands, and how it differs from the plan",
    "break-glass": "in an emergency: let plaintext pass inside the cluster's ranges where there is no session; loudly",
}


def build(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group's parsers; each sets ``func``, which returns the exit code."""
    net = subparsers.add_parser(
        "net",
        help="what the kernel holds for a pod",
        description=_NET,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = net.add_subparsers(title="verbs", metavar="VERB", required=True)
    functions = {"plan": _plan, "up": _up, "down": _down, "show": _show, "break-glass": _break}
    for name, function in functions.items():
        verb = verbs.add_parser(name, help=_HELP[name], description=_HELP[name].capitalize() + ".")
        verb.add_argument("--netns", metavar="PATH", help="network namespace, as /run/netns/NAME")
        if name != "down":
            verb.add_argument(
                "--config", metavar="FILE", help="the pod's settings (TOML); no token is needed"
            )
        verb.set_defaults(func=_guarded(function))
    broken = verbs.choices["break-glass"]
    which = broken.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--reason", metavar="TEXT", help="why, for log and status; up to 80 characters"
    )
    which.add_argument("--end", action="store_true", help="go back to what the settings say")


def _guarded(
    function: "Callable[[argparse.Namespace], int]",
) -> "Callable[[argparse.Namespace], int]":
    """Turn what goes wrong into one line and its exit code."""

    def guarded(args: argparse.Namespace) -> int:
        from proxy.netagent.drivers import privileges
        from proxy.netagent.errors import MachineLacksError, NetAgentError
        from proxy.netagent.plan import PlanError
        from proxy.settings import SettingsError

        try:
            if args.netns is not None:
                privileges.enter_netns(args.netns)
            return function(args)
        except (SettingsError, PlanError) as error:
            return say(str(error), WRONG)
        except MachineLacksError as error:
            return say(str(error), LACKING)
        except (NetAgentError, OSError) as error:
            return say(str(error), FAILED)

    return guarded


def _settings(args: argparse.Namespace) -> "tuple[Settings, NetSettings]":
    from proxy import pod
    from proxy.drivers import clock, settings_file

    settings = settings_file.load(args.config, os.environ, clock.wall(), with_token=False)
    return settings, pod.find(settings)


def _planned(net: "NetSettings") -> "Plan":
    """Return the plan over what stands: members added by order and notes are kept."""
    from proxy.netagent.drivers import nft
    from proxy.netagent.plan import plan, standing

    notes = nft.notes()
    return plan(standing(net, notes), notes, nft.members())


def _plan(args: argparse.Namespace) -> int:
    from proxy.netagent.plan import plan

    print(plan(_settings(args)[1]).describe())
    return FINE


def _up(args: argparse.Namespace) -> int:
    from proxy.netagent.drivers import apply

    _, net = _settings(args)
    planned = _planned(net)
    if apply.is_used():
        apply.refit(planned)
    else:
        apply.set_up(planned)
    print("up, until `tencrypt net down`")
    return FINE


def _down(_args: argparse.Namespace) -> int:
    from proxy.drivers import resolv_conf
    from proxy.netagent.drivers import apply

    if apply.is_used():
        return say("net down: a proxy runs here: stop it first", FAILED)
    apply.tear_down()
    with resolv_conf.put_back():
        print("down: plaintext flows")
    return FINE


def _show(args: argparse.Namespace) -> int:
    from proxy.netagent.drivers import apply, nft

    _, net = _settings(args)
    planned = _planned(net)
    if not nft.has_table():
        print("nothing is set up")
        return NOT_SO
    print(nft.table(), end="")
    for note in nft.notes():
        print(f"note: {note}")
    differences = apply.differences(planned)
    print("\n".join(differences) if differences else "rules, routes and tenc0 are as planned")
    return NOT_SO if differences else FINE


def _break(args: argparse.Namespace) -> int:
    from proxy.drivers import clock
    from proxy.netagent.drivers import apply, nft
    from proxy.netagent.plan import BROKEN, PlanError, plan, standing
    from proxy.netagent.settings import check_note

    settings, net = _settings(args)
    marker = Path(settings.break_glass_file)
    if args.end:
        apply.refit(plan(net, (), nft.members()))
        marker.unlink(missing_ok=True)
        print("the glass is whole: what the settings say is in force")
        return FINE
    when = datetime.fromtimestamp(clock.wall(), UTC)
    reason = check_note(args.reason.strip())
    if len(reason) > _LONGEST_REASON:
        raise PlanError(
            f"--reason {reason[:40]}...: {len(reason)} characters: {_LONGEST_REASON} at most"
        )
    notes = [check_note(f"{BROKEN} {when:%Y-%m-%dT%H:%M:%SZ} {reason}")]
    # Encryption goes on where there is a session to go on with.
    kept = {*nft.members(), *_with_sessions(Path(settings.admin_socket))}
    apply.refit(plan(standing(net, notes), notes, sorted(kept, key=str)))
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(
        json.dumps({"since": when.timestamp(), "reason": reason, "uid": os.getuid()}) + "\n",
        encoding="utf-8",
    )
    print(
        f"THE GLASS IS BROKEN: plaintext passes inside the cluster's ranges ({reason}); end it with --end"
    )
    return FINE


def _with_sessions(admin_socket: Path) -> "set[Address]":
    """Return the addresses of peers with whom the daemon has sessions; none where it does not answer."""
    from ipaddress import ip_address

    from proxy.drivers import admin

    try:
        sessions = admin.ask(admin_socket)["sessions"]
    except (OSError, ValueError, KeyError):
        return set()
    found: set[Address] = set()
    for session in sessions if isinstance(sessions, list) else []:
        found |= {ip_address(address) for address in session["peer"]["addresses"]}
    return found
