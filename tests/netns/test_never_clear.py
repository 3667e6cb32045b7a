"""Whatever is killed, whenever, while whatever changes: nothing that an application sends inside the ranges is read."""

import contextlib
import itertools
import os
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.canaries import CLEAR, OUTSIDE, Application, Found, Way
from support.capture import Taps
from support.cluster import ZONE, Cluster, name_of
from support.namespaces import BRIDGE, Fabric
from support.processes import Process, run, wait_for
from support.servers import tcp_echo, udp_echo
from support.tencrypt import READY_SECONDS, TENCRYPT, Proxy

PORT, RULED_PORT = 7006, 7009
NOBODY = ("10.77.0.99", "fd77:7465:6e63::99")
OPEN = ""
CLOSED = f'[[rule]]\nto = "web"\nfrom = ["batch"]\nprotocol = "udp"\nports = [{RULED_PORT}]\n'
SEED = 20_261
FIRST_OF_CONTROL = 90_000_000
FLOW_SECONDS = 20.0
IN_A_STORY, EVENTS_OF_A_STORY = 10, 7
COMM = "tencrypt\n"
PARTS = ("daemon", "agent", "run")


class Stage:
    """Four pods: `client` and `server` are protected, `comer` at times, `plain` never, which has NOBODY's addresses."""

    def __init__(self, fabric: Fabric, seed: int, *, held: bool) -> None:
        self.fabric, self.held = fabric, held
        self.random = random.Random(seed)
        self.rules = fabric.directory / "rules.toml"
        self.rules.write_text(OPEN, encoding="ascii")
        self.cluster = Cluster(fabric, {"roster": "on", "rules_file": str(self.rules)})
        # Who comes and goes is known by the roster alone, but when a change of DNS says otherwise.
        self.cluster.records = [one for one in self.cluster.records if "comer." not in one]
        self.cluster.serve_again()
        self.proxies = {name: self._proxy(name) for name in ("client", "server", "comer")}
        self.net_up: Process | None = None
        self.done = Counter[str]()
        self.story: list[tuple[int, str]] = []
        self.moved = 0
        client, server, comer, plain = (fabric[name] for name in fabric.pods)
        plain.ip(f"addr add {NOBODY[0]}/24 dev eth0\naddr add {NOBODY[1]}/64 dev eth0 nodad\n")
        hosts = [(pod.ipv4, pod.ipv6) for pod in (server, comer, plain)]
        self.to_server = ways(hosts[0])
        self.to_comer = ways(hosts[1])
        self.ways = [*self.to_server, *self.to_comer, *ways(hosts[2]), *ways(NOBODY)]
        self.ruled = [Way("udp", host, RULED_PORT) for host in hosts[0]]
        self.clear = [Way("udp", host, PORT) for host in OUTSIDE]
        self.first = [*self.ways, *self.ruled]
        self.found = Found()
        node = fabric.node
        self.taps = Taps((node, BRIDGE), (node, client.node_port), (node, server.node_port))

    def _proxy(self, name: str) -> Proxy:
        project = self.cluster.project
        settings = project.settings
        return Proxy(self.fabric[name], project.ca, project.members, settings=settings)

    def look(self) -> None:
        """End the captures, and see what they hold."""
        for capture in self.taps.stop().values():
            self.found.add(capture, self.fabric["client"])

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Echo servers at all ways, ruled ones too."""
        places = {"server": self.to_server, "comer": self.to_comer}
        owner = {way: self.fabric[name] for name, there in places.items() for way in there}
        with contextlib.ExitStack() as stack:
            for way in (*self.ways, *self.ruled):
                pod = owner.get(way, self.fabric["server" if way in self.ruled else "plain"])
                echo = tcp_echo if way.kind == "tcp" else udp_echo
                stack.enter_context(echo(pod, way.address, way.port))
            yield

    def begin(self) -> None:
        """Put the interlock up where it is held, and start what is protected."""
        if self.held:
            for proxy in self.proxies.values():
                run(net_up(proxy))
        for name in ("client", "server"):
            self.proxies[name].start()
        self.wait_until_ready("client", "server")

    def wait_until_ready(self, *names: str) -> None:
        for name in names:
            self.proxies[name].wait_for_event("ready", READY_SECONDS)

    def pause(self, longest: float) -> None:
        """Let a random while pass: the moment of what comes next is what is random."""
        time.sleep(self.random.uniform(0, longest))

    def tell(self, application: Application, what: str) -> None:
        self.story.append((application.now, what))
        self.done[what.split(maxsplit=1)[0]] += 1

    # What changes. Each begins, and gives what ends it.

    def member_comes_or_goes(self, _: Application) -> Callable[[], None]:
        comer = self.proxies["comer"]
        if is_up(comer):
            running(comer).signal(signal.SIGTERM)
            return lambda: wait_for("its end", lambda: not is_up(comer))
        comer.start()
        if self.random.random() < 0.5:
            self.wait_until_ready("comer")
        else:
            self.pause(1.5)
        return lambda: self.wait_until_ready("comer")

    def address_outside_is_named(self, application: Application) -> Callable[[], None]:
        """What a program learns here is sealed or refused from then on, though it lies outside of the ranges.

        Also where `net up` is called at the same time, for settings that have changed.
        """
        self.moved += 1
        high, low = divmod(self.moved, 250)
        name = f"moved{self.moved}.{ZONE}"
        self.cluster.serve_again(
            f"host-record={name},198.18.{high}.{low + 1},2001:db8:18::{self.moved:x}"
        )
        application.names = {name_of(self.fabric["server"]), name}
        if self.held:
            self.net_up = self.fabric.node.start_as_is(net_up(self.proxies["client"]), "net")
        return lambda: wait_for("the name", lambda: len(application.resolved.get(name, ())) == 2)

    def name_changes(self, application: Application) -> Callable[[], None]:
        comer, self.moved = self.fabric["comer"], self.moved + 1
        named = f"host-record={name_of(comer)},{comer.ipv4},{comer.ipv6}"
        alias = f"alias{self.moved}.{ZONE}"
        high, low = divmod(self.moved, 250)
        aliased = (
            f"cname={alias},evil.example",
            f"host-record=evil.example,198.19.{high}.{low + 1}",
        )
        self.cluster.serve_again(*self.random.choice([(named,), aliased, (named, *aliased), ()]))
        application.names = {name_of(comer), alias}
        return lambda: None

    def rules_change(self, _: Application) -> Callable[[], None]:
        closed = self.rules.read_text(encoding="ascii") == CLOSED
        self.rules.write_text(OPEN if closed else CLOSED, encoding="ascii")
        self.pause(2.0)  # two looks of a second each
        return lambda: wait_for("the rules", lambda: self.rules_count() == (not closed))

    def rules_count(self) -> int:
        return int(self.proxies["server"].status()["project"]["rules"]["count"])

    # What is killed, and stopped.

    def kill(self, application: Application, name: str, part: str) -> None:
        kill(self.proxies[name], part)
        self.tell(application, f"kill {name}'s {part}")

    def event(self, application: Application, number: int) -> None:
        """One kill or stop, of one or both, and back."""
        changes = (
            self.member_comes_or_goes,
            self.address_outside_is_named,
            self.name_changes,
            self.rules_change,
        )
        end = changes[number // 2 % len(changes)](application) if number % 2 else None
        if end is not None:
            self.tell(application, f"change {changes[number // 2 % len(changes)].__name__}")
        self.pause(0.2 if end is not None else 0.5)
        victims = self.random.choice([("client",), ("server",), ("client", "server")])
        if self.held and number % 5 == 4:
            self.stop(application, victims)
        else:
            for name in victims:
                self.kill(application, name, self.random.choice(PARTS))
        self.pause(0.5)
        if self.net_up is not None:
            self.net_up.wait()
        for name in victims:
            self.proxies[name].start()
        if number % 4 == 2:
            # Again while it starts.
            self.pause(1.2)
            self.kill(application, victims[0], self.random.choice(PARTS))
            self.proxies[victims[0]].start()
        self.wait_until_ready(*victims)
        if end is not None:
            end()
        self.flows_again(application)

    def stop(self, application: Application, names: tuple[str, ...]) -> None:
        """As an upgrade does: stopped in order, its interlock put up anew by the next version."""
        for name in names:
            assert self.proxies[name].stop() == 0
            self.tell(application, f"stop {name}")
            self.pause(0.3)
            run(net_up(self.proxies[name]))

    def flows_again(self, application: Application) -> None:
        since = application.now
        comer = self.to_comer if is_up(self.proxies["comer"]) else []
        application.wait_for_echoes([*self.to_server, *comer], since, FLOW_SECONDS)


def ways(hosts: tuple[str, str]) -> list[Way]:
    return [Way(kind, host, PORT) for host in hosts for kind in ("udp", "tcp")]


def net_up(proxy: Proxy) -> list[str | Path]:
    return [TENCRYPT, "net", "up", "--config", proxy.configuration, "--netns", proxy.pod.path]


def running(proxy: Proxy) -> Process:
    assert proxy.process is not None
    return proxy.process


def is_up(proxy: Proxy) -> bool:
    return proxy.process is not None and proxy.process.running()


def kill(proxy: Proxy, part: str) -> None:
    """Kill with -9 the daemon, the agent or both, in whatever state they are; returns when both have ended."""
    agent = running(proxy)
    # Stopped, it forks no more: who is found now is all there is to wait for.
    agent.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, agent.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    home = Path(f"/proc/{agent.pid}")
    children = (home / f"task/{agent.pid}/children").read_text(encoding="ascii").split()
    handles = [os.pidfd_open(int(child)) for child in children]
    if part != "agent":
        for handle in handles:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    # A child that runs another program than the agent is nft: there is no daemon yet.
    daemons = [child for child in children if Path(f"/proc/{child}/comm").read_text() == COMM]
    if part == "daemon" and daemons:
        agent.signal(signal.SIGCONT)
    else:
        agent.signal(signal.SIGKILL)
    agent.wait()
    for handle in handles:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(10_000), f"a child of {proxy.pod.label}'s agent outlives it"
        os.close(handle)


def talk_in_clear(stage: Stage) -> dict[Way, int]:
    """The control, before anything is set up: a text of each way that came back."""
    client, since = stage.fabric["client"], FIRST_OF_CONTROL
    with Application(client, stage.first, kind=CLEAR, first=since) as program:
        program.wait_for_echoes(stage.first, since, FLOW_SECONDS)
    return program.heard


def judge(stage: Stage, program: Application, control: dict[Way, int]) -> None:
    """Nothing sealed was found, where all that was clear was found, before and all the while."""
    found, story = stage.found, stage.story
    points = [f"node:{BRIDGE}", f"node:{stage.fabric['client'].node_port}"]
    times = [0, *(at for at, _ in story), program.now]
    for seen in (found.clear[point] for point in points):
        assert seen.issuperset(control.values())
        for before, after in zip(times[::4], times[4::4], strict=False):
            assert any(before < number < after for number in seen), (before, after)
    assert found.sessions > program.echoed / 10
    for number, where in found.sealed.items():
        pytest.fail(
            f"{number} in clear, {where}, after {[what for at, what in story if at <= number][-3:]}"
        )
    assert not found.plain, found.plain[:9]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ten kills a story: its own pods, its own seed. For each four that are held, and at least one, one that is not."""
    kills = metafunc.config.getoption("kills")
    held = [
        (True, at // IN_A_STORY, min(IN_A_STORY, kills - at)) for at in range(0, kills, IN_A_STORY)
    ]
    crashes = [(False, at, max(1, IN_A_STORY // 2)) for at in range(0, len(held), 4)]
    names = [
        f"{'held by net up' if up else 'crashes alone'} {at}" for up, at, _ in (*held, *crashes)
    ]
    metafunc.parametrize(("held", "story", "kills"), [*held, *crashes], ids=names)


def test_no_canary_is_clear_while_proxies_are_killed_and_all_changes(
    held: bool,  # noqa: FBT001 - a parameter of the test
    story: int,
    kills: int,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    with Fabric("client", "server", "comer", "plain") as fabric:
        stage = Stage(fabric, SEED + 2 * story + held, held=held)
        with stage.serving():
            control = talk_in_clear(stage)
            stage.begin()
            with Application(fabric["client"], stage.first, stage.clear) as program:
                stage.flows_again(program)
                for number in itertools.count(story * EVENTS_OF_A_STORY):
                    if stage.done["kill"] >= kills:
                        break
                    stage.event(program, number)
            stage.look()
    found = stage.found
    told = {**stage.done, "sent": program.sent, "echoed": program.echoed}
    told |= {"captured": len(found.sealed), "control": len(found.clear[f"node:{BRIDGE}"])}
    for name, value in told.items():
        record_property(name, value)
    request.config.get_terminal_writer().line(f" {told}")
    judge(stage, program, control)
